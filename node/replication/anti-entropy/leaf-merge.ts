import { byteString } from '../../../common/bytes.ts';
import { KvError } from '../../../common/errors.ts';
import { compareVersions } from '../../../model/version.ts';
import {
  type LeafItem,
  type LeafReply,
  ReadResult_Outcome,
  type ReadResult,
} from '../../../proto/gen/peer.ts';
import { decodeRecord } from '../../storage/record.ts';
import type { StoredRecord } from '../../storage/store.ts';
import type { SentRecord } from '../repairs.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import type { LeafSet } from './leaf-set.ts';
import { type OwnRecord, OwnRecords } from './own-records.ts';
import { applyReceived, isDataLoss } from './received-records.ts';
import type { Surroundings } from './surroundings.ts';

/** What became of the differences between two replicas. */
export interface MergeCounts {
  /** Newer at the peer, and here by now. */
  readonly pulled: number;
  /** Newer here, and at the peer by now. */
  readonly pushed: number;
  /** Purged at the peer, and gone here by now. */
  readonly removed: number;
  /** Purged here, and therefore not taken. */
  readonly refused: number;
  /** Damaged on one side, or not removed yet. */
  readonly unresolved: number;
}

export interface LeafMergeOptions {
  readonly peer: ComparablePeer;
  readonly partition: number;
  readonly leaves: LeafSet;
  /** @throws when the merge must not go on; asked after everything that was waited for. */
  readonly check: () => void;
  /** Bytes of records were moved. */
  readonly spend: (bytes: number) => Promise<void>;
}

const NOTHING = Buffer.alloc(0);
/** Keys to be removed that are collected for one pass over the partition. */
const MOST_GHOSTS = 10_000;

/**
 * Lists both replicas of some leaves side by side, and resolves every difference: takes what the peer has newer, brings
 * it what is newer here, and removes here what it has purged (PROTOCOL 16, 24). Holds a page of keys and a batch of records.
 */
export class LeafMerge {
  private readonly surroundings: Surroundings;
  private readonly options: LeafMergeOptions;
  private readonly counts = { pulled: 0, pushed: 0, removed: 0, refused: 0, unresolved: 0 };
  private readonly own: OwnRecords;
  private pulls: Buffer[] = [];
  private pushes: SentRecord[] = [];
  private pushBytes = 0;
  private readonly ghosts = new Map<string, number>();

  constructor(surroundings: Surroundings, options: LeafMergeOptions) {
    this.surroundings = surroundings;
    this.options = options;
    this.own = new OwnRecords(surroundings, options.partition, options.leaves);
  }

  /** @throws KvError when the peer's answers make no sense, and what `check` throws. */
  async run(): Promise<MergeCounts> {
    const { peer, partition, leaves, check } = this.options;
    const bits = leaves.toBytes();
    const limit = this.surroundings.settings.pageKeys;
    let after: Buffer | undefined;
    do {
      const page = await peer.leaves({ partition, leaves: bits, startAfter: after ?? NOTHING, limit });
      check();
      checkOrder(page, after, peer.nodeId);
      await this.mergePage(page);
      after = page.through;
    } while (after !== undefined);
    await this.pull();
    await this.push();
    await this.removeGhosts();
    return this.counts;
  }

  private async mergePage({ items, through, horizonMs }: Omit<LeafReply, 'id'>): Promise<void> {
    for (const item of items) {
      await this.ownWhile((key) => Buffer.compare(key, item.key) < 0, horizonMs);
      const own = await this.own.peek();
      if (own?.key.equals(item.key) === true) {
        this.own.take();
        await this.both(item, own);
      } else {
        await this.onlyThere(item);
      }
    }
    // All that belong to this page: what the next one says of the horizon does not count for them.
    await this.ownWhile((key) => through === undefined || Buffer.compare(key, through) <= 0, horizonMs);
  }

  /** Own records that the peer does not have. */
  private async ownWhile(belongs: (key: Buffer) => boolean, horizonMs: number): Promise<void> {
    for (;;) {
      const own = await this.own.peek();
      if (own === undefined || !belongs(own.key)) return;
      this.own.take();
      await this.onlyHere(own, horizonMs);
    }
  }

  private async both(item: LeafItem, { key, record, horizonMs }: OwnRecord): Promise<void> {
    const { version } = item;
    if (record === undefined) {
      // A readable replica may have acknowledged more than this one peer has: that takes more of them (healer.ts).
      const { standing } = this.surroundings;
      if (version === undefined || standing.isReadable(this.options.partition)) this.unresolved();
      else await this.toPull(key);
      return;
    }
    // Equal versions with different contents: the larger checksum wins everywhere (PROTOCOL 2).
    const order =
      version === undefined
        ? -1
        : compareVersions(version, record.version) || item.checksum - record.checksum;
    if (order > 0) await this.toPull(key);
    else if (order < 0) await this.toPush(key, record, horizonMs);
  }

  private async onlyThere({ key, version }: LeafItem): Promise<void> {
    if (version === undefined) this.unresolved();
    else await this.toPull(key);
  }

  /**
   * A record that a filling replica kept from an earlier life, and that its readable source once had and has no more,
   * was deleted or expired, and the tombstone is purged: it must not go back to the others.
   */
  private async onlyHere({ key, record, horizonMs: ownMs }: OwnRecord, horizonMs: number): Promise<void> {
    if (record === undefined) return;
    const { standing, rules } = this.surroundings;
    const ghost = !standing.isReadable(this.options.partition) && record.version.wallMs < horizonMs;
    if (!ghost || !rules.judgeByHorizon) {
      await this.toPush(key, record, ownMs);
      return;
    }
    this.ghosts.set(byteString(key), horizonMs);
    if (this.ghosts.size >= MOST_GHOSTS) await this.removeGhosts();
  }

  private async toPull(key: Buffer): Promise<void> {
    this.pulls.push(key);
    if (this.pulls.length >= this.surroundings.settings.fetchKeys) await this.pull();
  }

  private async toPush(key: Buffer, record: StoredRecord, horizonMs: number): Promise<void> {
    const { batchBytes, fetchKeys } = this.surroundings.settings;
    const bytes = key.length + record.bytes.length;
    if (this.pushes.length > 0 && this.pushBytes + bytes > batchBytes) await this.push();
    this.pushes.push({ key, record, horizonMs });
    this.pushBytes += bytes;
    if (this.pushes.length >= fetchKeys) await this.push();
  }

  private async pull(): Promise<void> {
    const { peer, check, spend } = this.options;
    const keys = this.pulls;
    this.pulls = [];
    for (let at = 0; at < keys.length;) {
      const results = await peer.fetch(keys.slice(at));
      check();
      if (results.length === 0) throw nonsense(peer.nodeId, 'none of the records it was asked for');
      const records = results.flatMap((result, index) => this.received(keys[at + index], result));
      at += results.length;
      const applied = await applyReceived(this.surroundings, records);
      this.counts.pulled += applied;
      this.counts.refused += records.length - applied;
      this.surroundings.metrics.count('pulled_records', applied);
      await spend(records.reduce((sum, { key, record }) => sum + key.length + record.bytes.length, 0));
      check();
    }
  }

  private received(key: Buffer | undefined, { outcome, record, horizonMs }: ReadResult): SentRecord[] {
    const { nodeId } = this.options.peer;
    if (key === undefined) throw nonsense(nodeId, 'more records than it was asked for');
    switch (outcome) {
      case ReadResult_Outcome.RECORD:
        try {
          return [{ key, record: decodeRecord(key, record), horizonMs }];
        } catch (error) {
          if (!isDataLoss(error)) throw error;
          this.unresolved();
          return [];
        }
      case ReadResult_Outcome.ABSENT:
        return []; // It has been purged since it was listed.
      case ReadResult_Outcome.DATA_LOSS:
        this.unresolved();
        return [];
      case ReadResult_Outcome.WRONG_REPLICA:
      case ReadResult_Outcome.OUTCOME_UNSPECIFIED:
      case ReadResult_Outcome.UNRECOGNIZED:
        throw new KvError('ABORTED', `${nodeId} does not keep the partition any more`);
    }
  }

  private async push(): Promise<void> {
    const { peer, check, spend } = this.options;
    const records = this.pushes;
    const bytes = this.pushBytes;
    if (records.length === 0) return;
    this.pushes = [];
    this.pushBytes = 0;
    await peer.repair(records);
    this.counts.pushed += records.length;
    this.surroundings.metrics.count('pushed_records', records.length);
    check();
    await spend(bytes);
    check();
  }

  private async removeGhosts(): Promise<void> {
    if (this.ghosts.size === 0) return;
    const { store, standing, metrics } = this.surroundings;
    const { partition, check } = this.options;
    const removed = await store.removeWhere(partition, (key, record) => {
      const horizonMs = this.ghosts.get(byteString(key));
      // Looked at again: it may have been written anew, or the partition may have become readable.
      return (
        horizonMs !== undefined &&
        record !== undefined &&
        record.version.wallMs < horizonMs &&
        !standing.isReadable(partition)
      );
    });
    this.counts.removed += removed;
    metrics.count('removed_ghosts', removed);
    // What the store had to pass over is for the next comparison.
    for (const [keyString, horizonMs] of this.ghosts) {
      const left = store.latest(Buffer.from(keyString, 'latin1'));
      if (left !== undefined && left.version.wallMs < horizonMs) this.unresolved();
    }
    this.ghosts.clear();
    check();
  }

  private unresolved(): void {
    this.counts.unresolved += 1;
    this.surroundings.metrics.count('unresolved_records');
  }
}

/** A page in another order would make records look missing that are not. */
function checkOrder(
  { items, through }: Omit<LeafReply, 'id'>,
  after: Buffer | undefined,
  peer: string,
): void {
  let last = after;
  for (const { key } of items) {
    if (last !== undefined && Buffer.compare(key, last) <= 0) throw nonsense(peer, 'keys out of order');
    last = key;
  }
  if (through === undefined) return;
  const beforeLast = last !== undefined && Buffer.compare(through, last) < 0;
  const stuck = after !== undefined && Buffer.compare(through, after) <= 0;
  if (beforeLast || stuck) throw nonsense(peer, 'a page that ends before its last key');
}

function nonsense(peer: string, what: string): KvError {
  return new KvError('INTERNAL', `${peer} answered a comparison with ${what}`);
}
