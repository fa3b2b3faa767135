import { expect } from 'chai';
import { VolumeIdentity } from '../../../node/cluster/identity.ts';
import { Standing } from '../../../node/cluster/standing.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { MemoryMachine } from '../../support/memory-store.ts';
import { seededRandom } from '../../support/seeded-random.ts';

describe('what a volume can be trusted with', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let identity: VolumeIdentity;
  let standing: Standing;
  const random = seededRandom(1);

  const start = async (): Promise<void> => {
    store = await machine.open();
    identity = await machine.time.run(VolumeIdentity.open(store, 'kv-0', random));
    standing = new Standing(store);
  };
  const restart = async (): Promise<void> => {
    machine.kill();
    await start();
  };
  const mark = (...partitions: number[]): Promise<void> =>
    machine.time.run(standing.markReadable(partitions));

  beforeEach(async () => {
    machine = new MemoryMachine();
    await start();
  });

  afterEach(() => machine.kill());

  it('is nothing while it is blank, and nothing after it has begun', async () => {
    expect(standing.begun).to.equal(false);
    await machine.time.run(standing.begin());
    await restart();
    expect(standing.begun).to.equal(true);
    expect([...standing.readable]).to.deep.equal([]);
  });

  it('is the partitions that were marked, also after a crash', async () => {
    await mark(1, 4);
    await mark(6);
    await machine.time.run(standing.unmark([4]));
    await restart();
    expect(standing.begun).to.equal(true);
    expect([...standing.readable]).to.deep.equal([1, 6]);
  });

  it('stays what it is under a new incarnation, also when a crash follows at once', async () => {
    await mark(1, 4);
    const before = identity.incarnation;
    await machine.time.run(identity.renew(() => undefined));
    expect([...standing.readable]).to.deep.equal([1, 4]);
    await restart();
    expect(identity.incarnation).not.to.equal(before);
    expect([...standing.readable]).to.deep.equal([1, 4]);
    await mark(2);
    await restart();
    expect([...standing.readable]).to.deep.equal([1, 2, 4]);
  });

  it('is nothing at once when the volume has lost something, and stays nothing', async () => {
    await mark(1, 4);
    const lost = standing.loseAll();
    expect([...standing.readable]).to.deep.equal([]);
    await machine.time.run(lost);
    await restart();
    expect(standing.begun).to.equal(true);
    expect([...standing.readable]).to.deep.equal([]);
    await machine.time.run(identity.renew(() => undefined));
    await restart();
    expect([...standing.readable]).to.deep.equal([]);
  });

  for (const [when, reached] of [
    ['about to be written', () => Promise.resolve()],
    ['being written', () => new Promise((resolve) => setImmediate(resolve))],
  ] as const) {
    it(`does not come back by a mark that was ${when} when everything was lost`, async () => {
      const marked = standing.markReadable([1, 4]);
      await reached();
      await machine.time.run(Promise.all([standing.loseAll(), marked]));
      expect([...standing.readable]).to.deep.equal([]);
      await restart();
      expect([...standing.readable]).to.deep.equal([]);
    });

    it(`does not come back by a mark that was ${when} when its partition was taken away`, async () => {
      await mark(2);
      const marked = standing.markReadable([1, 4]);
      await reached();
      await machine.time.run(Promise.all([standing.unmark([4]), marked]));
      expect(standing.isReadable(4)).to.equal(false);
      expect(standing.isReadable(2)).to.equal(true);
      await restart();
      expect(standing.isReadable(4)).to.equal(false);
    });

    it(`comes by a mark that was ${when} when another partition was taken away`, async () => {
      const marked = standing.markReadable([1, 4]);
      await reached();
      await machine.time.run(Promise.all([standing.unmark([2]), marked]));
      expect([...standing.readable]).to.deep.equal([1, 4]);
    });
  }
});
