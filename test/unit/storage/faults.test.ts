import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { StoreCorrupt } from '../../../node/storage/store-errors.ts';
import type { Mutation } from '../../../node/storage/store.ts';
import { diskError, type DiskOperation } from '../../support/memory-disk.ts';
import { MemoryMachine, SMALL_LIMITS } from '../../support/memory-store.ts';

function put(key: string, wallMs: number, size = 50): Mutation {
  const record = liveRecord(Buffer.from(key), Buffer.alloc(size, wallMs), { wallMs, counter: 0, writer: 1 });
  return { key: Buffer.from(key), record, own: true };
}

async function errorOf(promise: Promise<unknown>): Promise<KvError | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    if (error instanceof KvError) return error;
    throw error;
  }
}

/** Writes until the store fails; the keys that were acknowledged. */
async function writeUntilFailure(machine: MemoryMachine, store: LogStore): Promise<string[]> {
  const acknowledged: string[] = [];
  for (let index = 0; index < 500; index += 1) {
    const key = `k${index}`;
    const write = async (): Promise<void> => store.apply([put(key, 1)]).durable;
    const error = await machine.time.run(errorOf(write()));
    if (error !== undefined) {
      expect(error.code).to.equal('INTERNAL');
      return acknowledged;
    }
    acknowledged.push(key);
    if (index % 7 === 0) await machine.time.advance(SMALL_LIMITS.checkpointMs!);
  }
  throw new Error('the store did not fail');
}

describe('a store whose disk or state fails', () => {
  const failures: {
    name: string;
    prepare: (machine: MemoryMachine) => void;
    repair: (machine: MemoryMachine) => void;
  }[] = [
    ...(['append', 'sync', 'syncDir', 'create'] as DiskOperation[]).flatMap((operation) =>
      [1, 2, 9].map((nth) => ({
        name: `EIO on ${operation} number ${nth}`,
        prepare: (machine: MemoryMachine) => {
          let left = nth;
          machine.disk.interfere = (current, name) => {
            if (current === operation) left -= 1;
            return left === 0 && current === operation ? diskError('EIO', name) : undefined;
          };
        },
        repair: (machine: MemoryMachine) => {
          machine.disk.interfere = undefined;
        },
      })),
    ),
    {
      name: 'ENOSPC in the middle of a write',
      prepare: (machine) => {
        machine.disk.capacityBytes = machine.disk.usedBytes + 1000;
      },
      repair: (machine) => {
        machine.disk.capacityBytes = Number.MAX_SAFE_INTEGER;
      },
    },
  ];

  for (const { name, prepare, repair } of failures) {
    it(`stops for good on ${name}, and has what it acknowledged when it is opened again`, async () => {
      const machine = new MemoryMachine();
      const store = await machine.open();
      prepare(machine);
      const acknowledged = await writeUntilFailure(machine, store);
      expect((await errorOf(store.failed))?.code).to.equal('INTERNAL');
      // Nothing is tried again: a second sync could succeed over pages that the first one dropped.
      const events = machine.disk.events.length;
      expect(() => store.apply([put('more', 1)]))
        .to.throw(KvError)
        .with.property('code', 'INTERNAL');
      expect(() => store.get(Buffer.from('k0')))
        .to.throw(KvError)
        .with.property('code', 'INTERNAL');
      await machine.time.run(store.close());
      expect(machine.disk.events.length - events).to.be.at.most(2);
      repair(machine);
      const reopened = await machine.open();
      for (const key of acknowledged) expect(reopened.get(Buffer.from(key)), key).not.to.equal(undefined);
    });
  }

  it('stops when the state cannot commit, and recovers from the log', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    machine.stateVolume.failure = new Error('commit failed');
    await machine.time.run(store.apply([put('a', 1)]).durable);
    expect((await machine.time.run(errorOf(store.failed)))?.message).to.match(/commit failed/);
    expect((await errorOf(store.checkpoint()))?.code).to.equal('INTERNAL');
    await machine.time.run(store.close());
    machine.stateVolume.failure = undefined;
    const reopened = await machine.open();
    expect(reopened.get(Buffer.from('a'))).not.to.equal(undefined);
  });

  it('stops when a commit never settles', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    machine.stateVolume.stalled = true;
    const { durable } = store.apply([put('a', 1)]);
    const checkpoint = durable.then(() => errorOf(store.checkpoint()));
    expect((await machine.time.run(errorOf(store.failed)))?.message).to.match(
      /did not commit: no answer within 30000 ms/,
    );
    expect((await checkpoint)?.code).to.equal('INTERNAL');
  });

  it('stops when a sync of the log never ends', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    machine.disk.interfere = (operation) => (operation === 'sync' ? 'stuck' : undefined);
    const { durable } = store.apply([put('a', 1)]);
    expect((await machine.time.run(errorOf(durable)))?.message).to.match(/no answer within 30000 ms/);
    expect((await machine.time.run(errorOf(store.failed)))?.code).to.equal('INTERNAL');
  });

  it('still answers its sizes after it has failed or was closed', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    await machine.time.run(store.apply([put('a', 1)]).durable);
    await machine.time.run(store.checkpoint());
    const sizes = store.statistics();
    expect(sizes.records).to.equal(1);
    await machine.time.run(store.close());
    expect(store.statistics()).to.deep.equal(sizes);
  });

  it('answers DATA_LOSS for a damaged record, for no other, until a peer has replaced it', async () => {
    const machine = new MemoryMachine();
    const store = await machine.open();
    await machine.time.run(store.apply([put('a', 5), put('b', 5)]).durable);
    await machine.time.run(store.checkpoint());
    for (const keys of machine.stateVolume.content.partitions.values()) {
      const bytes = keys.get('a');
      if (bytes !== undefined) bytes[20] = bytes[20]! ^ 1;
    }
    const [a, b] = [Buffer.from('a'), Buffer.from('b')];
    expect(() => store.get(a))
      .to.throw(KvError)
      .with.property('code', 'DATA_LOSS');
    expect(() => store.latest(a))
      .to.throw(KvError)
      .with.property('code', 'DATA_LOSS');
    expect(store.get(b)).not.to.equal(undefined);
    const { outcomes, durable } = store.apply([{ ...put('a', 5), own: false }]);
    expect(outcomes[0]).to.deep.include({ kind: 'applied', previous: undefined });
    await machine.time.run(durable);
    expect(store.get(a)?.version.wallMs).to.equal(5);
  });
});

describe('a store that finds its files damaged', () => {
  /** A store with several segments and a state behind them, as a crash or a clean end leaves it. */
  async function used(end: 'closed' | 'killed'): Promise<MemoryMachine> {
    const machine = new MemoryMachine();
    const store = await machine.open();
    for (let index = 0; index < 60; index += 1)
      await machine.time.run(store.apply([put(`k${index}`, 1, 100)]).durable);
    if (end === 'closed') await machine.time.run(store.close());
    machine.kill();
    return machine;
  }

  async function opening(machine: MemoryMachine): Promise<unknown> {
    try {
      await machine.open();
      return undefined;
    } catch (error) {
      return error;
    }
  }

  it('says so for any flipped bit of the log that it needs, unless that looks like a write that a crash tore', async () => {
    const machine = await used('killed');
    const [name, file] = [...machine.disk.files].at(-1)!;
    const sound = file.content;
    let corrupt = 0;
    let cut = 0;
    for (let bit = 0; bit < sound.length * 8; bit += 97) {
      const flipped = Buffer.from(sound);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      const copy = machine.crashedAt(machine.now, {
        write: () => 'kept',
        name: () => 'kept',
        sector: () => true,
      });
      copy.disk.files.get(name)!.content = flipped;
      const error = await opening(copy);
      if (error === undefined) {
        // Only the last group, which was synced and can no longer be told from one that was not.
        expect(bit >> 3).to.be.greaterThan(sound.length - 300);
        cut += 1;
      } else {
        expect(error).to.be.instanceOf(StoreCorrupt);
        corrupt += 1;
      }
    }
    expect(corrupt).to.be.greaterThan(50);
    expect(cut).to.be.lessThan(corrupt / 3);
  });

  const damages: {
    name: string;
    end: 'closed' | 'killed';
    damage: (machine: MemoryMachine) => void;
    message: RegExp;
  }[] = [
    {
      name: 'the log is gone',
      end: 'closed',
      damage: ({ disk }) => {
        disk.files.clear();
      },
      message: /its log is missing/,
    },
    {
      name: 'the newest segments are gone',
      end: 'killed',
      damage: ({ disk }) => {
        for (const name of [...disk.files.keys()].slice(1)) disk.files.delete(name);
      },
      message: /before the state/,
    },
    {
      name: 'the state is gone',
      end: 'closed',
      damage: ({ stateVolume }) => {
        stateVolume.content = { partitions: new Map(), meta: new Map() };
      },
      message: /its state is missing/,
    },
    {
      name: 'a value of the state is damaged',
      end: 'closed',
      damage: ({ stateVolume }) => {
        const other = stateVolume.content.meta.get('store')!;
        other[3] = other[3]! ^ 1;
      },
      message: /fails its checksum/,
    },
    {
      name: 'the state has lost its place in the log',
      end: 'closed',
      damage: ({ stateVolume }) => {
        stateVolume.content.meta.delete('applied');
      },
      message: /does not say how far/,
    },
    {
      name: 'a segment was exchanged for another',
      end: 'killed',
      damage: ({ disk }) => {
        const [first, second] = [...disk.files.values()];
        second!.content = first!.content;
      },
      message: /copy of segment/,
    },
  ];
  for (const { name, end, damage, message } of damages) {
    it(`is set aside when ${name}`, async () => {
      const machine = await used(end);
      damage(machine);
      expect(await opening(machine))
        .to.be.instanceOf(StoreCorrupt)
        .with.property('message')
        .that.matches(message);
    });
  }

  it('starts over when a crash came while it was created', async () => {
    const machine = new MemoryMachine();
    await machine.open();
    const creation = machine.now;
    for (let at = 0; at <= creation; at += 1) {
      for (const fate of ['kept', 'lost', 'torn'] as const) {
        const crashed = machine.crashedAt(at, {
          write: () => fate,
          name: () => (fate === 'lost' ? 'lost' : 'kept'),
          sector: () => false,
        });
        const store = await crashed.open();
        await crashed.time.run(store.apply([put('a', 1)]).durable);
      }
    }
  });
});
