import type { Clock, Scheduler, Timer } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { compareVersions, NO_VERSION, type Version } from '../../model/version.ts';
import type { Mutation, Store, StoredRecord } from '../storage/store.ts';
import { type Settled, settleBy } from './deadline.ts';
import type { ReplicationMetrics } from './metrics.ts';
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
  /** Whether a record from outside the live log may be applied here, by the sender's horizon. */
  readonly mayApply: (key: Buffer, mutation: Mutation, senderHorizonMs: number) => boolean;
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
}

interface Answer extends RemoteRecord {
  readonly replica: Replica;
}

interface Replica {
  readonly nodeId: string;
  read(key: Buffer): Promise<RemoteRecord>;
  repair(key: Buffer, record: StoredRecord, horizonMs: number): Promise<void>;
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
    const { store, nodeId, horizonMs, mayApply } = options;
    this.self = {
      nodeId,
      // Not async: a store error must arrive like that of a peer.
      read: (key) => new Promise((resolve) => resolve({ record: store.get(key), horizonMs: horizonMs(key) })),
      repair: async (key, record, senderHorizonMs) => {
        const mutation = { key, record, own: false };
        await store.apply(mayApply(key, mutation, senderHorizonMs) ? [mutation] : []).durable;
      },
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
    const answers = await settled.promise.finally(() => asking.end());
    const newest = newestOf(answers);
    if (newest !== undefined) {
      this.mend(read.key, newest, asking.damaged);
      await this.writeBack(read, newest, answers, replicas);
    }
    return newest?.record;
  }

  /** Replaces damaged copies (PROTOCOL 35); the answer does not depend on it. */
  private mend(key: Buffer, { record, horizonMs }: Found, damaged: readonly Replica[]): void {
    for (const replica of damaged) {
      replica.repair(key, record, horizonMs).then(
        () => this.options.metrics.count('repaired_records'),
        () => undefined, // The next read of the key tries again.
      );
    }
  }

  /** Brings enough replicas to the newest record; ones that were not asked stand in for ones that fail or are slow. */
  private async writeBack(
    read: QuorumRead,
    newest: Found,
    answers: readonly Answer[],
    replicas: readonly Replica[],
  ): Promise<void> {
    const holders = answers.filter(
      ({ record }) => compareVersions(versionOf(record), newest.record.version) >= 0,
    );
    let missing = read.required - holders.length;
    if (missing <= 0) return;
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
      replica.repair(read.key, newest.record, newest.horizonMs).then(
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
        if (this.answers.length === this.read.required) this.settled.resolve([...this.answers]);
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
    repair: (key, record, horizonMs) => remote.repair([{ key, record, horizonMs }]),
  };
}

function versionOf(record: StoredRecord | undefined): Version {
  return record?.version ?? NO_VERSION;
}

function newestOf(answers: readonly Answer[]): Found | undefined {
  let newest: Found | undefined;
  for (const { record, horizonMs } of answers) {
    if (record === undefined) continue;
    if (newest === undefined || compareVersions(record.version, newest.record.version) > 0) {
      newest = { record, horizonMs };
    }
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
