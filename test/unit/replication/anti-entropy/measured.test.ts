import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock, systemScheduler } from '../../../../common/clock.ts';
import { systemRandom } from '../../../../common/random.ts';
import { type ClusterMap, sealMap } from '../../../../model/cluster-map.ts';
import type { ComparablePeer } from '../../../../node/replication/anti-entropy/comparable-peer.ts';
import { Comparison, type PartitionOutcome } from '../../../../node/replication/anti-entropy/comparison.ts';
import { DigestAnswers } from '../../../../node/replication/anti-entropy/digest-answers.ts';
import { NO_ANTI_ENTROPY_METRICS } from '../../../../node/replication/anti-entropy/metrics.ts';
import { DEFAULT_ANTI_ENTROPY_SETTINGS } from '../../../../node/replication/anti-entropy/settings.ts';
import type { Surroundings } from '../../../../node/replication/anti-entropy/surroundings.ts';
import { streamRecords } from '../../../../node/replication/record-stream.ts';
import { SAFETY_RULES } from '../../../../node/replication/safety-rules.ts';
import { openStore } from '../../../../node/storage/open-store.ts';
import { liveRecord } from '../../../../node/storage/record.ts';
import type { KeyedRecord, Store } from '../../../../node/storage/store.ts';
import { ReadResult_Outcome } from '../../../../proto/gen/peer.ts';
import { measured } from '../../../support/measured.ts';
import { memberNamed } from '../../../support/member.ts';
import { silentLogger } from '../../../support/memory-store.ts';

const PARTITIONS = 256;
const ALL = Array.from({ length: PARTITIONS }, (_, partition) => partition);
const RECORDS = 200_000;
const VALUE = Buffer.alloc(100, 'v');

const map: ClusterMap = sealMap({
  clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
  namespace: 'default',
  name: 'kv',
  epoch: 1,
  partitions: PARTITIONS,
  replicationFactor: 2,
  initialised: true,
  members: [memberNamed('kv-0'), memberNamed('kv-1')],
  retired: [],
  assignment: ALL.map(() => [0, 1]),
});

function surroundingsOf(nodeId: string, store: Store, readable: boolean): Surroundings {
  return {
    store,
    standing: { isReadable: () => readable, markReadable: () => Promise.resolve() },
    horizons: {
      of: () => 0,
      follow: () => Promise.resolve(),
      inherit: () => Promise.resolve(),
      admits: () => true,
    },
    cluster: { nodeId, map, barrierEpoch: () => 1, label: () => '' },
    onReceived: () => undefined,
    onApplied: () => undefined,
    onDamaged: () => undefined,
    clock: systemClock,
    scheduler: systemScheduler,
    settings: DEFAULT_ANTI_ENTROPY_SETTINGS,
    metrics: NO_ANTI_ENTROPY_METRICS,
    logger: silentLogger,
    rules: SAFETY_RULES,
  };
}

/** The other node of the same process. */
function peerOf(surroundings: Surroundings): ComparablePeer {
  const { store } = surroundings;
  const answers = new DigestAnswers({ ...surroundings, durableHead: () => store.head });
  return {
    nodeId: 'kv-1',
    incarnation: 1,
    mutual: true,
    fellOff: false,
    lag: 0,
    readableAt: () => true,
    digests: (request) => answers.digests(request),
    leaves: (request) => answers.leaves(request),
    fetch: (keys) =>
      Promise.resolve(
        keys.flatMap((key) => {
          const record = store.get(key);
          return record === undefined
            ? []
            : {
                outcome: ReadResult_Outcome.RECORD,
                record: record.bytes,
                horizonMs: 0,
                requestId: undefined,
              };
        }),
      ),
    repair: (records) => store.apply(records.map(({ key, record }) => ({ key, record, own: false }))).durable,
    pull: (partitions, after, signal) =>
      streamRecords(
        {
          store,
          durableHead: () => store.head,
          incarnation: () => 1,
          gives: () => true,
          horizonMs: () => 0,
          chunkBytes: DEFAULT_ANTI_ENTROPY_SETTINGS.batchBytes,
        },
        { after, partitions: [...partitions] },
        signal,
      ),
    promote: () => Promise.resolve(),
  };
}

async function compare(
  surroundings: Surroundings,
  peer: ComparablePeer,
): Promise<readonly PartitionOutcome[]> {
  const comparison = new Comparison(surroundings, {
    peer,
    signal: new AbortController().signal,
    blank: new Set(ALL),
    spend: () => Promise.resolve(),
  });
  const { outcomes, differing } = await comparison.roots(ALL);
  const found = [...outcomes.values()];
  const group = DEFAULT_ANTI_ENTROPY_SETTINGS.groupPartitions;
  for (let at = 0; at < differing.length; at += group) {
    found.push(...(await comparison.resolve(differing.slice(at, at + group))).values());
  }
  return found;
}

describe('comparisons over stores on disk', function () {
  this.timeout(120_000);
  let directory: string;
  const stores: Store[] = [];

  async function open(name: string): Promise<Store> {
    const store = await openStore({
      directory: join(directory, name),
      partitions: PARTITIONS,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger: silentLogger,
    });
    stores.push(store);
    return store;
  }

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kvcluster-compare-'));
  });

  after(async () => {
    for (const store of stores) await store.close();
    await rm(directory, { recursive: true, force: true });
  });

  it(`fill a blank replica with ${RECORDS} records, and then compare it by roots alone`, async () => {
    const [full, blank] = [await open('full'), await open('blank')];
    for (let at = 0; at < RECORDS; at += 10_000)
      await full.load(Array.from({ length: 10_000 }, (_, index) => recordAt(at + index)));
    const loadedMs = performance.now();
    const before = process.cpuUsage();
    const filling = surroundingsOf('kv-0', blank, false);
    const peer = peerOf(surroundingsOf('kv-1', full, true));
    const outcomes = await compare(filling, peer);
    const seconds = (performance.now() - loadedMs) / 1000;
    const { user: userUs, system: systemUs } = process.cpuUsage(before);
    expect(outcomes.every((outcome) => outcome.kind === 'complete' && outcome.equal)).to.equal(true);
    expect(blank.statistics().records).to.equal(RECORDS);
    measured(
      `a blank replica takes in ${RECORDS} records of ${VALUE.length} B in ${seconds.toFixed(1)} s, ` +
        `${Math.round(RECORDS / seconds)} a second; ${Math.round(RECORDS / ((userUs + systemUs) / 1e6))} in a second of CPU`,
    );

    const readable = surroundingsOf('kv-0', blank, true);
    const rounds = 50;
    const cpu = process.cpuUsage();
    for (let round = 0; round < rounds; round += 1) await compare(readable, peer);
    const { user, system } = process.cpuUsage(cpu);
    const perRoundMs = (user + system) / 1000 / rounds;
    measured(
      `comparing the roots of ${PARTITIONS} equal partitions takes both sides ${perRoundMs.toFixed(2)} ms of CPU`,
    );
    expect(perRoundMs).to.be.lessThan(50);
  });
});

function recordAt(index: number): KeyedRecord {
  const key = Buffer.from(`key-${index}`);
  return {
    key,
    record: liveRecord(key, VALUE, { wallMs: 1_700_000_000_000 + index, counter: 0, writer: 1 }),
  };
}
