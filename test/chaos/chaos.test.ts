import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { systemRandom } from '../../common/random.ts';
import { noVolumesReason } from '../support/loop-volume.ts';
import { measured } from '../support/measured.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { ProcessCluster } from '../support/process-cluster.ts';
import { Chaos } from './faults.ts';
import { History, violations } from './history.ts';
import { readBack, Workload } from './workload.ts';

/** `npm run test:chaos -- --minutes 10` */
const MINUTES = process.env['KVCLUSTER_MINUTES'];
const FAULTS_MS = MINUTES === undefined ? 45_000 : Number(MINUTES) * 60_000;
/** `SEED=7 npm run test:chaos` draws the same faults again, at the same times as far as processes have them. */
const SEED = Number(process.env['SEED'] ?? Math.floor(systemRandom.fraction() * 2 ** 31));
const MIB = 1024 * 1024;
/** A machine that does other things too must not fail it. */
const LEAST_ACKNOWLEDGED_PER_SECOND = 5;
/** With more nodes than copies, operations are sent on; by hand, for that takes a machine with more to give. */
const NODES = MINUTES === undefined ? 3 : 5;

describe('processes under a writer, with everything going wrong', function () {
  this.timeout(FAULTS_MS + 180_000);
  const history = new History();
  let cluster: ProcessCluster;

  before(async () => {
    console.log(`    seed ${SEED}: SEED=${SEED} npm run test:chaos`);
    const reason = noVolumesReason();
    if (reason !== undefined) console.log(`    no disk will be full: ${reason}`);
    cluster = await ProcessCluster.start({
      nodes: NODES,
      // Tombstones are collected within the run.
      flags: { 'collection-age-ms': '1000' },
      ...(reason === undefined ? { volumeBytes: 256 * MIB } : {}),
    });
  });

  after(async () => {
    await (cluster as ProcessCluster | undefined)?.[Symbol.asyncDispose]();
  });

  it('lose nothing that was acknowledged, and are equal in the end', async () => {
    const random = seededRandom(SEED);
    const told: string[] = [];
    const chaos = new Chaos(cluster, random, (line) => told.push(line));
    const workload = await Workload.start({ nodes: cluster.addresses, history, random });
    try {
      await chaos.run(FAULTS_MS);
    } finally {
      await workload.stop();
    }
    await untilEqual(told);
    const keys = new Set(history.writes.map(({ key }) => key));
    for (const read of await readBack(cluster.addresses, [...keys])) history.reads.push(read);
    report(chaos, workload);

    expect(violations(history), `violations, after ${told.join('; ')}`).to.deep.equal([]);
    expect(workload.unexpected, 'errors that no fault excuses').to.deep.equal([]);
    expect(history.count('acknowledged')).to.be.greaterThan(
      (LEAST_ACKNOWLEDGED_PER_SECOND * FAULTS_MS) / 1000,
    );
    expect(cluster.mesh.undirectedBytes, 'bytes that no fault could reach').to.equal(0);
    for (const node of cluster.nodes) {
      // Only a disk that is full ends a process by itself.
      if (node !== cluster.nodes.at(-1)) expect(node.unaskedEnds).to.deep.equal([]);
      expect(await node.metric('kv_store_version_conflicts')).to.equal(0);
    }
  });

  it('are caught when one key is deleted behind the back of the history', async () => {
    const settled = history.reads.filter(({ consistency }) => consistency === 'settled');
    const key = settled.find(({ found }) => found !== undefined)?.key ?? '';
    await using client = await KvClient.connect({ endpoints: [...cluster.addresses.values()] });
    await client.delete(key, { consistency: 'ALL' });
    const reads = await readBack(cluster.addresses, [key]);
    const found = violations({ writes: history.writes, reads });
    expect(found).to.have.length(cluster.nodes.length + 1);
    for (const violation of found)
      expect(violation).to.contain(`a read of ${key} at settled`).and.contain('finds nothing');
  });

  async function untilEqual(told: readonly string[]): Promise<void> {
    try {
      await cluster.untilEqual();
    } catch (error) {
      throw new Error(`after ${told.join('; ')}`, { cause: error });
    }
  }

  function report(chaos: Chaos, { errors }: Workload): void {
    const faults = [...chaos.happened].map(([name, count]) => `${name} ${count}`).join(', ');
    const counts = (['acknowledged', 'refused', 'unknown'] as const)
      .map((outcome) => `${history.count(outcome)} ${outcome}`)
      .join(', ');
    measured(`${history.writes.length} writes (${counts}), ${history.reads.length} reads`);
    measured(`longest time without an acknowledgement ${Math.round(history.longestPauseMs)} ms`);
    measured(`faults: ${faults}`);
    measured(`errors: ${[...errors].map(([code, count]) => `${code} ${count}`).join(', ')}`);
  }
});
