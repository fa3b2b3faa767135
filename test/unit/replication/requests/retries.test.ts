import { expect } from 'chai';
import { KvError } from '../../../../common/errors.ts';
import { compareVersions, type Version } from '../../../../model/version.ts';
import type { Consistency } from '../../../../node/replication/engine.ts';
import { answerLookup } from '../../../../node/replication/requests/lookup.ts';
import type { RequestCounter } from '../../../../node/replication/requests/metrics.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
} from '../../../../node/replication/requests/request-index.ts';
import { Retries, type RetryOutcome } from '../../../../node/replication/requests/retries.ts';
import type { NamedWrite, SentRecord } from '../../../../node/replication/repairs.ts';
import { liveRecord, tombstoneRecord } from '../../../../node/storage/record.ts';
import type { StoredRecord } from '../../../../node/storage/store.ts';
import type { RequestId } from '../../../../proto/gen/kvstore.ts';
import { ManualTime } from '../../../support/manual-time.ts';

const KEY = Buffer.from('key');
const NAMES = ['kv-0', 'kv-1', 'kv-2'];
const at = (wallMs: number, writer = 1): Version => ({ wallMs, counter: 0, writer });
const idOf = (number: number, attempt = 1): RequestId => ({
  clientId: Buffer.alloc(16, 3),
  number,
  clientStartMs: 5,
  attempt,
});

/** What a retry meets on one replica. */
class Replica {
  readonly index: RequestIndex;
  record: StoredRecord | undefined;
  damaged = false;
  readable = true;
  horizonMs = 0;
  repairs = 0;
  answering: 'at once' | 'never' | 'disconnected' = 'at once';

  constructor(time: ManualTime) {
    this.index = new RequestIndex(time.clock(), DEFAULT_REQUEST_INDEX_SETTINGS);
    this.index.complete(-Infinity);
  }

  get sources() {
    return {
      store: {
        latest: (): StoredRecord | undefined => {
          if (this.damaged) throw new KvError('DATA_LOSS', 'damaged');
          return this.record;
        },
      },
      index: this.index,
      topology: { partitionOf: () => 0, holds: () => true },
      isReadable: () => this.readable,
      horizonMs: () => this.horizonMs,
    };
  }

  write(id: RequestId, version: Version): void {
    this.record = liveRecord(KEY, Buffer.from(`v${version.wallMs}`), version);
    this.index.note(id, KEY, version);
  }

  async repair(records: readonly SentRecord[], finished?: NamedWrite): Promise<void> {
    if (this.answering !== 'at once') await new Promise(() => undefined);
    for (const { record } of records) {
      this.repairs += 1;
      if (this.record === undefined || compareVersions(record.version, this.record.version) > 0)
        this.record = record;
    }
    if (finished !== undefined) this.index.note(finished.requestId, finished.key, finished.version);
  }
}

describe('a retry', () => {
  let time: ManualTime;
  let replicas: [Replica, Replica, Replica];
  let counts: Map<RequestCounter, number>;
  let newcomers: Set<string>;
  /** The versions that kv-2 was asked about. */
  let asked: (number | undefined)[];

  const of = (index: number): Replica => replicas[index] ?? replicas[0];
  const retries = (self = 0): Retries => {
    const replica = of(self);
    return new Retries({
      ...replica.sources,
      topology: {
        ...replica.sources.topology,
        nodeId: NAMES[self] ?? '',
        setsOf: () => ({ write: [NAMES], read: NAMES, holders: NAMES }),
        isReadable: (nodeId) => of(NAMES.indexOf(nodeId)).readable,
      },
      repairs: { apply: (records, reason) => replica.repair(records, reason?.finished) },
      replica: (nodeId) => {
        const other = of(NAMES.indexOf(nodeId));
        if (other.answering === 'disconnected') return undefined;
        return {
          lookup: (request) => {
            if (other === of(2)) asked.push(request.version?.wallMs);
            return other.answering === 'never'
              ? new Promise(() => undefined)
              : Promise.resolve(answerLookup(other.sources, { id: 1, ...request }));
          },
          repair: (records, { finished }) => other.repair(records, finished),
        };
      },
      newcomers: { has: (nodeId) => newcomers.has(nodeId) },
      memberOf: (incarnation) => NAMES[incarnation],
      clock: time.clock(),
      scheduler: time.scheduler(),
      metrics: { count: (name) => void counts.set(name, (counts.get(name) ?? 0) + 1) },
    });
  };
  const resolve = (
    options: {
      self?: number;
      id?: RequestId | undefined;
      version?: Version;
      consistency?: Consistency;
      signal?: AbortSignal;
    } = {},
  ): Promise<RetryOutcome> =>
    time.run(
      retries(options.self).resolve({
        key: KEY,
        requestId: 'id' in options ? options.id : idOf(1),
        version: options.version,
        consistency: options.consistency ?? 'QUORUM',
        deadlineMs: time.monotonicMs + 5000,
        signal: options.signal,
      }),
    );
  const failureOf = async (promise: Promise<unknown>): Promise<KvError> => {
    try {
      await promise;
    } catch (error) {
      return error as KvError;
    }
    throw new Error('it succeeded');
  };
  const versions = (): (number | undefined)[] => replicas.map(({ record }) => record?.version.wallMs);

  beforeEach(() => {
    time = new ManualTime();
    counts = new Map();
    newcomers = new Set();
    asked = [];
    replicas = [new Replica(time), new Replica(time), new Replica(time)];
  });

  it('is looked into, and a first attempt only when it was overtaken by a retry', () => {
    expect(retries().concerns(undefined, KEY)).to.equal(false);
    expect(retries().concerns(idOf(1, 0), KEY)).to.equal(false);
    expect(retries().concerns(idOf(1, 1), KEY)).to.equal(true);
    of(0).write(idOf(1), at(50));
    expect(retries().concerns(idOf(1, 0), KEY)).to.equal(true);
    expect(retries().concerns(idOf(1, 0), Buffer.from('another key'))).to.equal(false);
  });

  it('is written when no quorum has held it, above what is stored', async () => {
    of(1).record = tombstoneRecord(KEY, at(70));
    expect(await resolve()).to.deep.equal({ kind: 'write', above: at(70) });
    expect(counts.get('retries_written')).to.equal(1);
    expect(versions()).to.deep.equal([undefined, 70, undefined]);
  });

  it('is finished where it was applied: brought to a quorum, and answered with its version', async () => {
    of(1).write(idOf(1), at(50, 1));
    expect(await resolve()).to.deep.equal({ kind: 'done', version: at(50, 1), replaced: undefined });
    expect(versions()).to.deep.equal([50, 50, 50]);
    expect(counts.get('retries_finished')).to.equal(1);
  });

  it('is not done again above a later write', async () => {
    of(1).write(idOf(1), at(50, 1));
    of(2).write(idOf(1), at(50, 1));
    for (const replica of replicas) replica.record = liveRecord(KEY, Buffer.from('later'), at(80, 2));
    expect(await resolve()).to.deep.include({ kind: 'done', version: at(50, 1) });
    expect(versions()).to.deep.equal([80, 80, 80]);
  });

  it('is written again when a quorum held something newer before it came', async () => {
    of(0).write(idOf(1), at(50, 0));
    of(1).record = liveRecord(KEY, Buffer.from('earlier'), at(90, 1));
    of(2).record = liveRecord(KEY, Buffer.from('earlier'), at(80, 1));
    expect(await resolve()).to.deep.equal({ kind: 'write', above: at(90, 1) });
  });

  it('needs no answer of its first coordinator when another replica has it', async () => {
    of(1).write(idOf(1), at(50, 2));
    of(2).answering = 'disconnected';
    expect(await resolve()).to.deep.include({ kind: 'done', version: at(50, 2) });
    expect(versions()).to.deep.equal([50, 50, undefined]);
  });

  it('is not decided by one that has become a replica since', async () => {
    for (const at of [0, 2]) of(at).write(idOf(1), { wallMs: 5, counter: 0, writer: 0 });
    of(1).readable = false;
    expect((await resolve({ self: 2 })).kind).to.equal('done');
    newcomers.add('kv-2');
    expect((await failureOf(resolve({ self: 2 }))).code).to.equal('UNAVAILABLE');
  });

  it('does not wait for a slow replica when the others tell', async () => {
    of(1).write(idOf(1), at(50, 1));
    of(2).answering = 'never';
    const before = time.monotonicMs;
    await resolve();
    expect(time.monotonicMs - before).to.equal(0);
  });

  it('at ONE is finished where it is found, with nobody else in reach', async () => {
    of(0).write(idOf(1), at(50, 0));
    for (const other of [1, 2]) of(other).answering = 'disconnected';
    expect(await resolve({ consistency: 'ONE' })).to.deep.include({ kind: 'done', version: at(50, 0) });
  });

  it('is UNAVAILABLE while fewer than a quorum can tell, for nothing was applied by it', async () => {
    of(1).answering = 'disconnected';
    of(2).readable = false;
    const error = await failureOf(resolve());
    expect(error).to.include({ code: 'UNAVAILABLE', retryable: true });
    expect(error.message).to.match(/1 of 3 replicas can say; nothing was applied by this attempt/);
    expect(counts.get('retries_undecided')).to.equal(1);
  });

  it('is UNAVAILABLE at its deadline when too many replicas are slow', async () => {
    of(1).answering = 'never';
    of(2).answering = 'never';
    expect(await failureOf(resolve())).to.include({ code: 'UNAVAILABLE', retryable: true });
    expect(time.monotonicMs).to.equal(5000);
    expect(counts.get('retries_undecided')).to.equal(1);
  });

  it('has an unknown outcome when it was found and cannot be brought to enough replicas', async () => {
    of(0).write(idOf(1), at(50, 2));
    for (const other of [1, 2]) of(other).answering = 'disconnected';
    const error = await failureOf(resolve({ consistency: 'ALL' }));
    expect(error.code).to.equal('DEADLINE_EXCEEDED');
    expect(error.message).to.match(/applied on 1 of 3 replicas, 3 needed/);
  });

  it('ends when nobody waits for it any more', async () => {
    of(1).answering = 'never';
    of(2).answering = 'never';
    const controller = new AbortController();
    const outcome = failureOf(resolve({ signal: controller.signal }));
    controller.abort();
    expect((await outcome).code).to.equal('UNAVAILABLE');
    expect(time.monotonicMs).to.be.below(1000);
  });

  it('is refused when it is older than what is remembered, saying that its outcome is unknown', async () => {
    of(0).write(idOf(9), at(50));
    await time.advance(120_000);
    const error = await failureOf(resolve({ id: idOf(8) }));
    expect(error).to.include({ code: 'FAILED_PRECONDITION', retryable: false });
    expect(error.message).to.match(/more than 60 s ago.*not remembered.*new request id/);
    expect(counts.get('retries_refused')).to.equal(1);
    expect(await resolve({ id: idOf(10) }), 'begun later').to.deep.include({ kind: 'write' });
  });

  it('takes no word of a replica whose record is damaged or that has lost its data', async () => {
    of(1).damaged = true;
    of(2).readable = false;
    expect((await failureOf(resolve())).code).to.equal('UNAVAILABLE');
    of(2).readable = true;
    expect(await resolve()).to.deep.include({ kind: 'write' });
  });

  it('is answered with what it replaced by the node that coordinated it, and by no other', async () => {
    const value = { value: Buffer.from('old'), version: at(40), remainingTtlMs: undefined };
    for (const replica of replicas) replica.write(idOf(1), at(50, 1));
    const fresh = new Replica(time);
    fresh.record = of(1).record;
    fresh.index.note(idOf(1), KEY, at(50, 1), { value });
    replicas[1] = fresh;
    expect(await resolve({ self: 1 })).to.deep.include({ replaced: { value } });
    expect(await resolve({ self: 0 })).to.deep.include({ replaced: undefined });
  });

  it('is done when it was a delete that has been collected since', async () => {
    for (const replica of replicas) {
      replica.index.note(idOf(1), KEY, at(50, 1));
      replica.horizonMs = 60;
    }
    expect(await resolve()).to.deep.include({ kind: 'done', version: at(50, 1) });
  });

  describe('that was beaten at those that know its request id', () => {
    /** Written by kv-1, and brought to kv-2 by a repair that did not say of which request it is. */
    const repairedAt = (version: Version): void => {
      of(1).write(idOf(1), version);
      of(2).index.noteVersion(version);
      of(0).record = liveRecord(KEY, Buffer.from('earlier'), at(80, 0));
      for (const other of [1, 2]) of(other).record = liveRecord(KEY, Buffer.from('later'), at(90, 0));
    };

    it('is looked for once more, by its version, and finished where a repair has brought it', async () => {
      repairedAt(at(50, 1));
      expect(await resolve()).to.deep.include({ kind: 'done', version: at(50, 1) });
      expect(versions()).to.deep.equal([90, 90, 90]);
      expect(counts.get('retries_written')).to.equal(undefined);
    });

    it('is written again when nobody knows that version either, after one more question', async () => {
      of(1).write(idOf(1), at(50, 1));
      for (const other of [0, 2]) of(other).record = liveRecord(KEY, Buffer.from('earlier'), at(90, 2));
      expect(await resolve()).to.deep.equal({ kind: 'write', above: at(90, 2) });
      expect(asked).to.deep.equal([undefined, 50]);
    });

    it('is not asked for twice when its version was known from the start', async () => {
      of(0).write(idOf(1), at(50, 0));
      for (const other of [1, 2]) of(other).record = liveRecord(KEY, Buffer.from('earlier'), at(90, 2));
      expect(await resolve({ version: at(50, 0) })).to.deep.equal({ kind: 'write', above: at(90, 2) });
      expect(asked).to.deep.equal([50]);
    });
  });

  it('is found by its version alone when it has no request id', async () => {
    of(1).record = liveRecord(KEY, Buffer.from('later'), at(90, 2));
    of(2).record = of(1).record;
    of(1).index.noteVersion(at(50, 0));
    const outcome = await resolve({ id: undefined, version: at(50, 0) });
    expect(outcome).to.deep.equal({ kind: 'done', version: at(50, 0), replaced: undefined });
    expect(versions()).to.deep.equal([90, 90, 90]);
  });

  it('lets all replicas know the request when it is finished, also where something newer has overwritten it', async () => {
    of(1).write(idOf(1), at(50, 1));
    for (const other of [1, 2]) of(other).record = liveRecord(KEY, Buffer.from('later'), at(80, 2));
    expect(await resolve()).to.deep.include({ kind: 'done', version: at(50, 1) });
    for (const { index } of replicas) expect(index.versionOf(idOf(1), KEY)).to.deep.equal(at(50, 1));
    expect(versions()).to.deep.equal([80, 80, 80]);
  });

  describe('of a write that this node has been at ever since', () => {
    beforeEach(() => {
      of(0).write(idOf(1), at(50, 0));
      of(1).record = liveRecord(KEY, Buffer.from('earlier'), at(90, 1));
      of(2).answering = 'disconnected';
    });

    it('is written again when another was beaten and the third is away', async () => {
      expect(await resolve({ version: at(50, 0) })).to.deep.equal({ kind: 'write', above: at(90, 1) });
    });

    it('waits for the third when a read was shown it here, or somebody else has finished it', async () => {
      of(0).index.noteVersion(at(50, 0));
      expect((await failureOf(resolve({ version: at(50, 0) }))).code).to.equal('UNAVAILABLE');
    });

    it('waits for the third when its client has sent it again', async () => {
      expect((await failureOf(resolve())).code).to.equal('UNAVAILABLE');
    });
  });
});
