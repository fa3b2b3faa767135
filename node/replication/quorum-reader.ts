import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { compareVersions, NO_VERSION, type Version } from '../../model/version.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
import { type Settled, settleBy } from './deadline.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { RepairReason, Repairs } from './repairs.ts';
import type { RemoteRecord, RemoteRequests } from './remote-requests.ts';
import { isDataLoss } from './request-handler.ts';

/** Reads that may be asked of the other replicas of a key, best first. */
export interface RemoteReplica {
  readonly nodeId: string;
  readonly remote: Pick<RemoteRequests, 'read' | 'repair'>;
}

export interface QuorumReaderOptions {
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly readHedgeMs: number;
  /** This node's horizon of the key's partition (PROTOCOL 24). */
  readonly horizonMs: (key: Buffer) => number;
  readonly repairs: Pick<Repairs, 'apply'>;
  /** A record of this node goes into a quorum read: the request id of a write that is not acknowledged. */
  readonly onShown: (record: StoredRecord) => RequestId | undefined;
  readonly metrics: ReplicationMetrics;
}

export interface QuorumRead {
  readonly key: Buffer;
  /** R. */
  readonly required: number;
  readonly deadlineMs: number;
  /** Readable replicas besides this node, which is one itself. */
  readonly others: readonly RemoteReplica[];
}

/** A record and the horizon it was found under. */
interface Found {
  readonly record: StoredRecord;
  readonly horizonMs: number;
  readonly requestId: RequestId | undefined;
}

interface Answer extends RemoteRecord {
  readonly replica: Replica;
}

/** How a read stands when enough replicas have answered. */
interface ReadState {
  readonly answers: readonly Answer[];
  /** Those that have the newest version. */
  readonly holders: readonly Answer[];
  /** All that may be asked. */
  readonly replicas: readonly Replica[];
}

interface Replica {
  readonly nodeId: string;
  read(key: Buffer): Promise<RemoteRecord>;
  repair(key: Buffer, found: Found): Promise<void>;
}

/**
 * Reads from R replicas, this one first; the newest version wins and is written back to the R replicas before the
 * answer when they differ, so that a later read does not go back (PROTOCOL 19).
 */
export class QuorumReader {
  private readonly options: QuorumReaderOptions;
  private readonly self: Replica;

  constructor(options: QuorumReaderOptions) {
    this.options = options;
    const { store, nodeId, horizonMs, repairs, onShown } = options;
    this.self = {
      nodeId,
      // Not async: a store error must arrive like that of a peer.
      read: (key) =>
        new Promise((resolve) => {
          const record = store.get(key);
          const requestId = record === undefined ? undefined : onShown(record);
          resolve({ record, horizonMs: horizonMs(key), requestId });
        }),
      repair: (key, found) => repairs.apply([{ key, ...found }], reasonOf(key, found)),
    };
  }

  /**
   * The newest record among R replicas, tombstones and expired ones included; undefined when none of them has any.
   *
   * @throws KvError UNAVAILABLE when fewer than R answer, DEADLINE_EXCEEDED when time is up, DATA_LOSS when damaged records
   *   are why.
   */
  async read(read: QuorumRead): Promise<StoredRecord | undefined> {
    const { clock, scheduler } = this.options;
    const replicas = [this.self, ...read.others.map((other) => asReplica(other))];
    const settled = settleBy<readonly Answer[]>({ clock, scheduler }, read.deadlineMs, () =>
      timeUp(read.required),
    );
    const asking = new Asking(this.options, read, replicas, settled);
    asking.begin();
    let answers: readonly Answer[];
    try {
      answers = await settled.promise;
    } finally {
      asking.end();
    }
    const newest = newestOf(answers);
    if (newest !== undefined) {
      this.mend(read.key, newest, asking.damaged);
      const { version } = newest.record;
      const holders = answers.filter(({ record }) => compareVersions(versionOf(record), version) >= 0);
      if (holders.length < read.required) await this.writeBack(read, newest, { answers, holders, replicas });
    }
    return newest?.record;
  }

  /** Replaces damaged copies (PROTOCOL 35); the answer does not depend on it. */
  private mend(key: Buffer, newest: Found, damaged: readonly Replica[]): void {
    for (const replica of damaged) {
      replica.repair(key, newest).then(
        () => this.options.metrics.count('repaired_records'),
        () => undefined, // The next read of the key tries again.
      );
    }
  }

  /** Brings enough replicas to the newest record; ones that were not asked stand in for ones that fail or are slow. */
  private async writeBack(
    read: QuorumRead,
    newest: Found,
    { answers, holders, replicas }: ReadState,
  ): Promise<void> {
    let missing = read.required - holders.length;
    const { clock, scheduler, metrics, readHedgeMs } = this.options;
    const asked = new Set(answers.map(({ replica }) => replica));
    const stale = answers.filter((answer) => !holders.includes(answer)).map(({ replica }) => replica);
    const spare = replicas.filter((replica) => !asked.has(replica));
    const { promise, resolve, reject } = settleBy<undefined>({ clock, scheduler }, read.deadlineMs, () =>
      timeUp(read.required),
    );
    const candidates = [...stale, ...spare];
    let open = 0;
    const repairNext = (): void => {
      const replica = candidates.shift();
      if (replica === undefined) {
        if (open < missing)
          reject(tooFew(read.required, 'the newest version could not be written back to them'));
        return;
      }
      open += 1;
      replica.repair(read.key, newest).then(
        () => {
          open -= 1;
          missing -= 1;
          metrics.count('repaired_records');
          if (missing === 0) resolve(undefined);
        },
        () => {
          open -= 1;
          repairNext();
        },
      );
    };
    for (let count = missing; count > 0; count -= 1) repairNext();
    let hedge: Timer;
    // A replica whose disk is slow answers reads at once and repairs late.
    const hedgeLater = (): void => {
      hedge = scheduler.after(readHedgeMs, () => {
        if (candidates.length === 0) return;
        repairNext();
        hedgeLater();
      });
    };
    hedgeLater();
    await promise.finally(() => hedge.cancel());
  }
}

/** Asks replicas until R have answered: as many as needed, one more for each that fails or is slow. */
class Asking {
  private readonly options: QuorumReaderOptions;
  private readonly read: QuorumRead;
  private readonly waiting: Replica[];
  private readonly settled: Settled<readonly Answer[]>;
  private readonly answers: Answer[] = [];
  private readonly failures: string[] = [];
  private open = 0;
  /** Replicas whose copy fails its checksum. */
  readonly damaged: Replica[] = [];
  private hedge: Timer | undefined;
  private ended = false;

  constructor(
    options: QuorumReaderOptions,
    read: QuorumRead,
    replicas: readonly Replica[],
    settled: Settled<readonly Answer[]>,
  ) {
    this.options = options;
    this.read = read;
    this.waiting = [...replicas];
    this.settled = settled;
  }

  begin(): void {
    for (let count = 0; count < this.read.required; count += 1) this.ask();
    this.hedgeLater();
  }

  end(): void {
    this.ended = true;
    this.hedge?.cancel();
  }

  private hedgeLater(): void {
    this.hedge = this.options.scheduler.after(this.options.readHedgeMs, () => {
      if (this.ended || this.waiting.length === 0) return;
      this.ask();
      this.hedgeLater();
    });
  }

  private ask(): void {
    if (this.ended) return;
    const replica = this.waiting.shift();
    if (replica === undefined) {
      if (this.answers.length + this.open < this.read.required) this.fail();
      return;
    }
    this.open += 1;
    replica.read(this.read.key).then(
      (found) => {
        this.open -= 1;
        this.answers.push({ replica, ...found });
        // Whatever comes later is for nobody.
        if (this.answers.length === this.read.required) this.settled.resolve(this.answers.slice());
      },
      (error: unknown) => {
        this.open -= 1;
        if (isDataLoss(error)) this.damaged.push(replica);
        this.failures.push(`${replica.nodeId}: ${messageOf(error)}`);
        this.ask();
      },
    );
  }

  private fail(): void {
    this.settled.reject(
      this.damaged.length > 0
        ? new KvError('DATA_LOSS', `too few sound copies of the record (${this.failures.join('; ')})`)
        : tooFew(this.read.required, this.failures.join('; ') || 'too few are connected and readable'),
    );
  }
}

function asReplica({ nodeId, remote }: RemoteReplica): Replica {
  return {
    nodeId,
    read: (key) => remote.read(key),
    repair: (key, found) => remote.repair([{ key, ...found }], reasonOf(key, found)),
  };
}

/** A write that is read stands from then on, whatever its coordinator hears of it. */
function reasonOf(key: Buffer, { record, requestId }: Found): RepairReason {
  const finished = requestId === undefined ? undefined : { requestId, key, version: record.version };
  return { forRead: true, finished };
}

function versionOf(record: StoredRecord | undefined): Version {
  return record?.version ?? NO_VERSION;
}

function newestOf(answers: readonly Answer[]): Found | undefined {
  let newest: Found | undefined;
  for (const { record, horizonMs, requestId } of answers) {
    if (record === undefined) continue;
    const order = newest === undefined ? 1 : compareVersions(record.version, newest.record.version);
    // Of several that have it, its coordinator knows what it is.
    if (order > 0 || (order === 0 && requestId !== undefined)) newest = { record, horizonMs, requestId };
  }
  return newest;
}

function timeUp(required: number): KvError {
  return new KvError(
    'DEADLINE_EXCEEDED',
    `the deadline passed before ${required} replicas had answered the read`,
    {
      retryable: true,
    },
  );
}

function tooFew(required: number, why: string): KvError {
  return new KvError('UNAVAILABLE', `the read needs ${required} replicas: ${why}`);
}
