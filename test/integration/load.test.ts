import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { openDriver } from '../bench/load/driver.ts';
import { fill } from '../bench/load/fill.ts';
import { runWork } from '../bench/load/run-work.ts';
import { type Work, work } from '../bench/load/work.ts';
import { NodeHome, NodeProcess } from '../support/node-process.ts';

const KEYS = 500;
const WRITERS = 200;
const ROUNDS = 20;

/** The benchmark's own load on a cluster: that every answer is right, and never how long it took. */
describe('a cluster of three nodes under the load of the benchmark', () => {
  let home: NodeHome;
  let nodes: readonly NodeProcess[];
  const endpoints = (): string[] => nodes.map(({ clientAddress }) => clientAddress);

  before(async () => {
    home = new NodeHome();
    nodes = await NodeProcess.startTogether(home, ['sample-0', 'sample-1', 'sample-2']);
  });

  after(async () => {
    await Promise.all(nodes.map((node) => node.kill('SIGKILL')));
    home[Symbol.dispose]();
  });

  const cells: readonly { readonly title: string; readonly work: Partial<Work> }[] = [
    { title: 'puts, one at a time', work: { inFlight: 1 } },
    { title: 'puts, a thousand in flight', work: { inFlight: 1000 } },
    { title: 'gets from one replica, a thousand in flight', work: { inFlight: 1000, readShare: 1 } },
    { title: 'gets at QUORUM, a hundred in flight', work: { readShare: 1, strongReads: true } },
    { title: 'a zipfian mix', work: { readShare: 0.5, choice: 'zipfian' } },
    {
      title: 'reads of the latest beside inserts',
      work: { readShare: 0.9, insertShare: 0.1, choice: 'latest' },
    },
    { title: 'a mix over twenty clients', work: { readShare: 0.5, clients: 20 } },
    { title: 'lists under a prefix', work: { list: true, inFlight: 4 } },
  ];

  it('fails no operation and misses no value in any kind of work', async () => {
    const drivers = await Promise.all(
      Array.from({ length: 20 }, () => openDriver({ kind: 'kvcluster', endpoints: endpoints() })),
    );
    try {
      const [first] = drivers;
      if (first === undefined) throw new Error('no driver was opened');
      await fill(first, { prefix: 'k', keys: KEYS, valueBytes: 256, inFlight: 100 });
      for (const { title, work: different } of cells) {
        const given = work({ keys: KEYS, durationMs: 400, ...different });
        // How many there were is a matter of time; each of the loops did at least one.
        const { errors, misses, firstError } = await runWork(drivers.slice(0, given.clients), given);
        expect({ title, errors, misses, firstError }).to.deep.equal({
          title,
          errors: 0,
          misses: 0,
          firstError: undefined,
        });
      }
    } finally {
      for (const driver of drivers) await driver.close();
    }
  });

  it('answers every get with what was put last, with hundreds of writers at once', async () => {
    await using client = await KvClient.connect({ endpoints: endpoints(), timeoutMs: 30_000 });
    const wrong: string[] = [];
    const writer = async (index: number): Promise<void> => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const key = `writer-${index}`;
        // Of another size each time: an answer that was mixed up with another one's is seen.
        const value = `${index}.${round}.${'x'.repeat((index * 7 + round * 13) % 300)}`;
        await client.put(key, value);
        for (const options of [{}, { consistency: 'QUORUM' } as const]) {
          const found = (await client.get(key, options))?.value.toString();
          if (found !== value) wrong.push(`${key} is ${found ?? 'missing'} and not ${value}`);
        }
      }
    };
    await Promise.all(Array.from({ length: WRITERS }, (_, index) => writer(index)));
    expect(wrong).to.deep.equal([]);
  });
});
