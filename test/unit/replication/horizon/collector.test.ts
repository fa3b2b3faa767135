import { expect } from 'chai';
import { sealMap, type ClusterMap } from '../../../../model/cluster-map.ts';
import { partitionOf } from '../../../../model/key-hash.ts';
import { PartitionSet } from '../../../../node/cluster/partition-set.ts';
import {
  Collector,
  type CollectionSettings,
  DEFAULT_COLLECTION_SETTINGS,
} from '../../../../node/replication/horizon/collector.ts';
import { Horizons } from '../../../../node/replication/horizon/horizons.ts';
import type { Label } from '../../../../node/replication/horizon/label.ts';
import type { MemberView } from '../../../../node/replication/horizon/verdict.ts';
import { SAFETY_RULES, type SafetyRules } from '../../../../node/replication/safety-rules.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';
import type { RecordPredicate, StoredRecord } from '../../../../node/storage/store.ts';
import { ManualTime } from '../../../support/manual-time.ts';
import { memberNamed } from '../../../support/member.ts';
import { silentLogger } from '../../../support/memory-store.ts';

const PARTITIONS = 4;
const NAMES = ['kv-0', 'kv-1', 'kv-2'];
const LABEL = Buffer.from('one label of all');
const SECOND = 1000;

/** Records and metadata; removing takes no time, but a turn. */
class Records {
  readonly partitions = PARTITIONS;
  readonly meta = new Map<string, Buffer>();
  readonly records = new Map<string, StoredRecord>();
  readonly passes: number[] = [];
  failing = false;

  readMeta(name: string): Buffer | undefined {
    return this.meta.get(name);
  }

  writeMeta(name: string, value: Buffer): Promise<void> {
    this.meta.set(name, value);
    return Promise.resolve();
  }

  latest(key: Buffer): StoredRecord | undefined {
    return this.records.get(key.toString());
  }

  async removeWhere(partition: number, predicate: RecordPredicate): Promise<number> {
    this.passes.push(partition);
    await Promise.resolve();
    if (this.failing) throw new Error('no disk');
    let removed = 0;
    for (const [name, record] of [...this.records]) {
      const key = Buffer.from(name);
      if (partitionOf(key, PARTITIONS) !== partition || !predicate(key, record)) continue;
      this.records.delete(name);
      removed += 1;
    }
    return removed;
  }
}

describe('collection', () => {
  let time: ManualTime;
  let records: Records;
  let map: ClusterMap | undefined;
  let members: Map<string, MemberView>;
  let label: Label;
  let readable: boolean;
  let horizons: Horizons;
  let collector: Collector;
  let gauges: Map<string, number>;
  let collected: number;

  const wallMs = (): number => time.clock().wallMs();
  const says = (
    name: string,
    report: { lowWaterMs?: number; label?: Buffer; settled?: readonly number[] } = {},
  ): void => {
    members.set(name, {
      kind: 'heard',
      report: {
        lowWaterMs: report.lowWaterMs ?? wallMs(),
        label: report.label ?? LABEL,
        settled: PartitionSet.of(report.settled ?? [0, 1, 2, 3], PARTITIONS),
      },
    });
  };
  const open = (settings: Partial<CollectionSettings> = {}, rules: SafetyRules = SAFETY_RULES): void => {
    horizons = new Horizons({ store: records, isReadable: () => readable, rules });
    collector = new Collector({
      nodeId: 'kv-0',
      store: records,
      horizons,
      map: () => map,
      label: () => label,
      member: (nodeId) => members.get(nodeId) ?? { kind: 'silent', sinceMs: undefined },
      isReadable: () => readable,
      latestWallMs: () => time.clock().wallMs(),
      clock: time.clock(),
      scheduler: time.scheduler(),
      settings: { ...DEFAULT_COLLECTION_SETTINGS, ...settings },
      rules,
      metrics: {
        count: (_name, amount = 1) => void (collected += amount),
        gauge: (name, value) => void gauges.set(name, value),
      },
      logger: silentLogger,
    });
  };
  /** Heartbeats of everybody for a while; those named keep silent. */
  const pass = async (delayMs: number, silent: readonly string[] = []): Promise<void> => {
    for (let passed = 0; passed < delayMs; passed += 500) {
      await time.advance(500);
      for (const name of NAMES) {
        const member = members.get(name);
        if (member?.kind !== 'heard' || silent.includes(name)) continue;
        members.set(name, { ...member, report: { ...member.report, lowWaterMs: wallMs() } });
      }
      collector.beat();
    }
    await time.advance(5 * SECOND);
  };
  const store = (name: string, record: StoredRecord): void => {
    records.records.set(name, record);
    collector.note(partitionOf(Buffer.from(name), PARTITIONS), record);
  };
  const deleted = (name: string): StoredRecord =>
    tombstoneRecord(Buffer.from(name), { wallMs: wallMs(), counter: 0, writer: 1 });
  const put = (name: string, ttlMs?: number): StoredRecord =>
    liveRecord(
      Buffer.from(name),
      Buffer.from('v'),
      { wallMs: wallMs(), counter: 0, writer: 1 },
      ttlMs === undefined ? undefined : wallMs() + ttlMs,
    );

  const mapWith = (change: Partial<ClusterMap> = {}): ClusterMap =>
    sealMap({
      clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
      namespace: 'default',
      name: 'kv',
      epoch: 3,
      partitions: PARTITIONS,
      replicationFactor: 3,
      initialised: true,
      members: NAMES.map(memberNamed),
      retired: [],
      assignment: Array.from({ length: PARTITIONS }, () => [0, 1, 2]),
      ...change,
    });

  beforeEach(() => {
    time = new ManualTime();
    records = new Records();
    members = new Map();
    gauges = new Map();
    collected = 0;
    readable = true;
    label = { kind: 'known', bytes: LABEL };
    map = mapWith();
    for (const name of NAMES) says(name);
    open();
  });

  afterEach(() => collector.stop());

  it('removes tombstones and expired records when all members are past them, and keeps the rest', async () => {
    store('gone', deleted('gone'));
    store('short', put('short', 5 * SECOND));
    store('long', put('long', 3600 * SECOND));
    store('kept', put('kept'));
    await pass(50 * SECOND);
    expect([...records.records.keys()], 'too young').to.have.length(4);
    await pass(70 * SECOND);
    expect([...records.records.keys()].sort()).to.deep.equal(['kept', 'long']);
    expect(collected).to.equal(2);
    expect(collector.frozenReason).to.equal('');
    expect(gauges.get('horizon_age_ms')).to.be.within(60_000, 100_000);
  });

  it('raises horizons in steps, never beyond the lowest mark of all members less the age', async () => {
    const lowWaterMs = wallMs();
    says('kv-1', { lowWaterMs });
    await pass(300 * SECOND, ['kv-1']);
    expect(collector.lowestMs % 30_000).to.equal(0);
    expect(collector.lowestMs).to.be.within(lowWaterMs - 90_000, lowWaterMs - 60_000);
    expect(collector.frozenReason).to.match(/what kv-1 wrote since 2027-01-15T08:00:00/);
  });

  it('does nothing without a map', () => {
    map = undefined;
    collector.beat();
    expect(collector.lowestMs).to.equal(0);
    expect(gauges.size).to.equal(0);
  });

  const freezes: [string, () => void, RegExp, string][] = [
    [
      'a member is not connected',
      () => members.set('kv-2', { kind: 'silent', sinceMs: 1_800_000_000_000 }),
      /^kv-2 is not connected since 2027-01-15T08:00:00\.000Z/,
      'disconnected',
    ],
    [
      'a member does not know how far it is',
      () => says('kv-1', { lowWaterMs: 0 }),
      /not every replica has acknowledged what kv-1 wrote since its start/,
      'unacknowledged',
    ],
    [
      'a replica has yet to compare',
      () => says('kv-2', { settled: [] }),
      /kv-2 has yet to compare it with all other replicas/,
      'unsettled',
    ],
    [
      'this node has yet to compare',
      () => {
        says('kv-0', { settled: [] });
        says('kv-2', { settled: [] });
      },
      /kv-0 has yet to compare/,
      'unsettled',
    ],
    [
      'a replica knows of other changes',
      () => says('kv-1', { label: Buffer.from('another label') }),
      /kv-1 does not know the same map and volumes/,
      'unsettled',
    ],
    [
      'not all members have been heard of',
      () => {
        label = { kind: 'unknown', member: 'kv-1', why: 'has yet to adopt epoch 3 of the map' };
      },
      /kv-1 has yet to adopt epoch 3/,
      'unknown',
    ],
  ];
  for (const [what, arrange, reason, kind] of freezes) {
    it(`stands still, and says why, while ${what}`, async () => {
      store('gone', deleted('gone'));
      await pass(30 * SECOND);
      arrange();
      await pass(200 * SECOND, kind === 'unacknowledged' ? ['kv-1'] : []);
      expect(records.records.size).to.equal(1);
      expect(collector.lowestMs).to.be.below(1_800_000_000_000);
      expect(collector.frozenReason).to.match(reason);
      expect(collector.frozenReason).to.contain('(1 tombstones and expiring records wait)');
      expect(gauges.get(`collection_frozen_${kind}`)).to.equal(PARTITIONS);
      for (const name of NAMES) says(name);
      label = { kind: 'known', bytes: LABEL };
      await pass(40 * SECOND);
      expect(records.records.size).to.equal(0);
      expect(gauges.get(`collection_frozen_${kind}`)).to.equal(0);
    });
  }

  it('goes on for the partitions that do not move', async () => {
    map = mapWith({
      moving: { phase: 1, partitions: [{ partition: 2, oldReplicas: [0, 1, 2], newReplicas: [0, 1, 2] }] },
    });
    await pass(150 * SECOND);
    expect(horizons.storedMs(1)).to.be.greaterThan(1_800_000_000_000);
    expect(horizons.storedMs(2)).to.equal(0);
    expect(collector.frozenReason).to.equal('1 of 4 partitions: the partition moves');
  });

  it('does not raise the horizon of what is not readable here', async () => {
    readable = false;
    await pass(200 * SECOND);
    expect(horizons.storedMs(0)).to.equal(0);
  });

  it('waits for no comparison when freezeAfterNewIncarnation is switched off', async () => {
    open({}, { ...SAFETY_RULES, freezeAfterNewIncarnation: false });
    says('kv-2', { settled: [], label: Buffer.alloc(0) });
    await pass(200 * SECOND);
    expect(horizons.storedMs(0)).to.be.greaterThan(1_800_000_000_000);
  });

  it('takes over a larger horizon before a comparison, and removes what it covers at once', async () => {
    store('gone', deleted('gone'));
    const partition = partitionOf(Buffer.from('gone'), PARTITIONS);
    await collector.raise(partition, wallMs() + 1);
    expect(horizons.effectiveMs(partition)).to.equal(wallMs() + 1);
    expect(records.records.size).to.equal(0);
  });

  it('takes over no horizon while somebody who could tell of a rollback has not been heard of', async () => {
    label = { kind: 'unknown', member: 'kv-1', why: 'has not been heard of since this node started' };
    await collector.raise(0, wallMs());
    expect(horizons.storedMs(0)).to.equal(0);
    readable = false;
    await collector.raise(0, wallMs());
    expect(horizons.storedMs(0), 'filled from others').to.equal(wallMs());
  });

  it('looks into partitions only when something in them is due', async () => {
    await pass(120 * SECOND);
    records.passes.length = 0;
    await pass(120 * SECOND);
    expect(records.passes).to.deep.equal([]);
    store('gone', deleted('gone'));
    await pass(150 * SECOND);
    expect(records.records.size).to.equal(0);
    expect([...new Set(records.passes)]).to.deep.equal([partitionOf(Buffer.from('gone'), PARTITIONS)]);
    expect(records.passes.length).to.be.at.most(2);
  });

  it('finds in the end what nobody told it of', async () => {
    await pass(120 * SECOND);
    records.records.set('gone', deleted('gone'));
    await pass(800 * SECOND);
    expect(records.records.size).to.equal(0);
  });

  it('looks at no more records than it may in a second', async () => {
    for (let number = 0; number < 400; number += 1) store(`key-${number}`, put(`key-${number}`, SECOND));
    open({ recordsPerSecond: 10 });
    for (const name of records.records.keys()) {
      const record = records.records.get(name);
      if (record !== undefined) collector.note(partitionOf(Buffer.from(name), PARTITIONS), record);
    }
    await pass(55 * SECOND);
    // A hundred records in a partition.
    expect(records.passes.length).to.be.within(4, 8);
    await pass(100 * SECOND);
    expect(records.records.size).to.equal(0);
  });

  it('tries again when removing failed', async () => {
    store('gone', deleted('gone'));
    records.failing = true;
    await pass(150 * SECOND);
    records.failing = false;
    await pass(10 * SECOND);
    expect(records.records.size).to.equal(0);
  });

  it('does nothing more once it is stopped', async () => {
    store('gone', deleted('gone'));
    collector.stop();
    await pass(200 * SECOND);
    expect(records.records.size).to.equal(1);
    expect(horizons.storedMs(0)).to.equal(0);
  });
});
