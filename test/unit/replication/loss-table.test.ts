import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { Consistency } from '../../../node/replication/engine.ts';
import { ReplicaCluster } from '../../support/replica-cluster.ts';

const KEY = 'k';
const VALUE = 'acknowledged';

/** Whom the coordinator, kv-0, reaches during the write: as few as the consistency allows. */
const REACHED: Readonly<Record<Consistency, readonly number[]>> = { ONE: [], QUORUM: [1], ALL: [1, 2] };

async function inReach(cluster: ReplicaCluster, consistency: Consistency): Promise<void> {
  for (const other of [1, 2]) {
    if (!REACHED[consistency].includes(other)) cluster.network.isolate(`kv-${other}`, cluster.names);
  }
  await cluster.time.advance(3000);
}

/** Acknowledged at that consistency, and held by nobody else yet. */
async function acknowledged(cluster: ReplicaCluster, consistency: Consistency): Promise<void> {
  await inReach(cluster, consistency);
  await cluster.put(0, KEY, VALUE, { consistency });
}

async function loseDisks(cluster: ReplicaCluster, indexes: readonly number[]): Promise<void> {
  for (const index of indexes) {
    cluster.kill(index);
    cluster.wipe(index);
  }
  cluster.network.heal();
  for (const index of indexes) await cluster.start(index);
}

/** What the cluster answers in the end; what waits for disks that do not come back is made readable by force. */
async function inTheEnd(cluster: ReplicaCluster): Promise<string | undefined> {
  await cluster.time.advance(15_000);
  for (const replica of cluster.runningReplicas()) {
    if (replica.notReadyReason !== undefined) await cluster.time.run(replica.forceActivate(false));
  }
  await cluster.time.advance(15_000);
  await cluster.inSync();
  const answers = new Set<string | undefined>();
  for (const index of cluster.nodes.keys()) answers.add(await cluster.get(index, KEY));
  expect(answers.size, 'all nodes agree').to.equal(1);
  return [...answers][0];
}

type Cell = 'safe' | 'may lose' | 'UNAVAILABLE' | 'accepts, merges later';
type Fault =
  'one disk lost' | 'two disks lost (RF 3)' | 'volume rolled back' | 'minority side' | 'all restart';

const FAULTS: Readonly<Record<Fault, (cluster: ReplicaCluster, at: Consistency) => Promise<Cell>>> = {
  'one disk lost': async (cluster, at) => {
    await acknowledged(cluster, at);
    await loseDisks(cluster, [0]);
    return (await inTheEnd(cluster)) === VALUE ? 'safe' : 'may lose';
  },
  'two disks lost (RF 3)': async (cluster, at) => {
    await acknowledged(cluster, at);
    await loseDisks(cluster, [0, 1]);
    return (await inTheEnd(cluster)) === VALUE ? 'safe' : 'may lose';
  },
  'volume rolled back': async (cluster, at) => {
    const old = cluster.copyOfVolumes(0);
    await acknowledged(cluster, at);
    cluster.kill(0);
    cluster.network.heal();
    await cluster.start(0, old);
    return (await inTheEnd(cluster)) === VALUE ? 'safe' : 'may lose';
  },
  'minority side': async (cluster, at) => {
    cluster.network.isolate('kv-0', cluster.names);
    await cluster.time.advance(3000);
    try {
      await cluster.put(0, KEY, VALUE, { consistency: at });
    } catch (error) {
      expect(error).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
      cluster.network.heal();
      expect(await inTheEnd(cluster), 'nothing was applied').to.equal(undefined);
      return 'UNAVAILABLE';
    }
    cluster.network.heal();
    return (await inTheEnd(cluster)) === VALUE ? 'accepts, merges later' : 'may lose';
  },
  'all restart': async (cluster, at) => {
    await acknowledged(cluster, at);
    // The power fails: what was not synced is gone.
    for (const index of cluster.nodes.keys()) {
      cluster.kill(index, { write: () => 'lost', name: () => 'lost', sector: () => false });
    }
    cluster.network.heal();
    for (const index of cluster.nodes.keys()) await cluster.start(index);
    return (await inTheEnd(cluster)) === VALUE ? 'safe' : 'may lose';
  },
};

/** PROTOCOL.md's table, as docs/operations.md has it. */
const TABLE: Readonly<Record<Consistency, Readonly<Record<Fault, Cell>>>> = {
  ONE: {
    'one disk lost': 'may lose',
    'two disks lost (RF 3)': 'may lose',
    'volume rolled back': 'may lose',
    'minority side': 'accepts, merges later',
    'all restart': 'safe',
  },
  QUORUM: {
    'one disk lost': 'safe',
    'two disks lost (RF 3)': 'may lose',
    'volume rolled back': 'safe',
    'minority side': 'UNAVAILABLE',
    'all restart': 'safe',
  },
  ALL: {
    'one disk lost': 'safe',
    'two disks lost (RF 3)': 'safe',
    'volume rolled back': 'safe',
    'minority side': 'UNAVAILABLE',
    'all restart': 'safe',
  },
};

describe('what a fault costs', () => {
  let cluster: ReplicaCluster;

  afterEach(() => {
    cluster.end();
  });

  for (const [consistency, cells] of Object.entries(TABLE) as [Consistency, Record<Fault, Cell>][]) {
    for (const [fault, cell] of Object.entries(cells) as [Fault, Cell][]) {
      it(`is "${cell}" for what was acknowledged at ${consistency} when the fault is: ${fault}`, async () => {
        cluster = new ReplicaCluster(3);
        await cluster.begin();
        expect(await FAULTS[fault](cluster, consistency)).to.equal(cell);
      });
    }
  }

  it('is printed in docs/operations.md as it is shown here', () => {
    cluster = new ReplicaCluster(1);
    const text = readFileSync(join(import.meta.dirname, '../../../docs/operations.md'), 'utf8');
    const rows = text
      .split('\n')
      .filter((line) => /^\| (ONE|QUORUM|ALL) /.test(line))
      .map((line) =>
        line
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    expect(rows).to.deep.equal(
      Object.entries(TABLE).map(([consistency, cells]) => [consistency, ...Object.values(cells)]),
    );
  });
});
