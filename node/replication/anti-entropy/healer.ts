import { abortReason } from '../../../common/clock.ts';
import { byteString } from '../../../common/bytes.ts';
import { quorumOf } from '../../../model/cluster-map.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { holdsPartition, replicaSets } from '../../../model/replica-sets.ts';
import { compareVersions } from '../../../model/version.ts';
import { ReadResult_Outcome, type ReadResult } from '../../../proto/gen/peer.ts';
import { decodeRecord } from '../../storage/record.ts';
import type { SentRecord } from '../repairs.ts';
import { abortablePeer } from './abortable-peer.ts';
import type { ComparablePeer } from './comparable-peer.ts';
import { applyReceived, isDataLoss } from './received-records.ts';
import type { ClusterView, Surroundings } from './surroundings.ts';

export interface HealerOptions extends Omit<Surroundings, 'onDamaged'> {
  readonly peers: () => readonly ComparablePeer[];
}

/** What the replicas that could be asked have of one damaged key. */
interface Found {
  readonly key: Buffer;
  readonly partition: number;
  newest: SentRecord | undefined;
  /** How many replicas that serve the partition have answered, with a record or with none. */
  answers: number;
}

/**
 * Replaces damaged records by the newest that other readable replicas have. As many of them must answer as a replica is
 * filled from (PROTOCOL 32): the damaged record may have been one half of a quorum, and an older one must not take its
 * place.
 */
export class Healer {
  private readonly options: HealerOptions;

  constructor(options: HealerOptions) {
    this.options = options;
  }

  /** Resolves with the keys that are sound again, or are of no concern any more. */
  async heal(keys: readonly Buffer[], signal: AbortSignal): Promise<readonly Buffer[]> {
    const { settings } = this.options;
    const done: Buffer[] = [];
    for (let at = 0; at < keys.length; at += settings.fetchKeys) {
      const some = keys.slice(at, at + settings.fetchKeys);
      const found = some.filter((key) => this.isDamaged(key)).map((key) => this.unanswered(key));
      for (const peer of this.options.peers()) {
        await this.ask(abortablePeer(peer, signal), found);
        if (signal.aborted) throw abortReason(signal);
      }
      const enough = found.filter((entry) => entry.answers >= this.needed(entry.partition));
      await applyReceived(
        this.options,
        enough.flatMap(({ newest }) => newest ?? []),
      );
      await this.remove(enough.filter(({ newest }) => newest === undefined));
      done.push(...some.filter((key) => !this.isDamaged(key)));
    }
    return done;
  }

  private unanswered(key: Buffer): Found {
    const partition = partitionOf(key, this.options.store.partitions);
    return { key, partition, newest: undefined, answers: 0 };
  }

  private async ask(peer: ComparablePeer, keys: readonly Found[]): Promise<void> {
    const wanted = keys.filter(({ partition }) => this.isSource(peer, partition));
    for (let at = 0; at < wanted.length;) {
      const results = await peer.fetch(wanted.slice(at).map(({ key }) => key)).catch(() => []);
      if (results.length === 0) return; // It is gone, or answers nonsense; others are asked as well.
      for (const result of results) {
        const found = wanted[at];
        if (found !== undefined) note(found, result);
        at += 1;
      }
    }
  }

  /** What nobody has anything of was deleted, or never acknowledged by a quorum: nobody needs what is left of it. */
  private async remove(keys: readonly Found[]): Promise<void> {
    for (const partition of new Set(keys.map((found) => found.partition))) {
      const names = new Set(keys.map(({ key }) => byteString(key)));
      await this.options.store.removeWhere(
        partition,
        (key, record) => record === undefined && names.has(byteString(key)),
      );
    }
  }

  private isSource(peer: ComparablePeer, partition: number): boolean {
    const { map } = this.options.cluster;
    const reads = map !== undefined && replicaSets(map, partition).read.includes(peer.nodeId);
    return reads && peer.readableAt(partition);
  }

  private needed(partition: number): number {
    const { map } = this.options.cluster;
    if (map === undefined) return Infinity;
    const { read } = replicaSets(map, partition);
    return read.length - quorumOf(read.length) + 1;
  }

  private isDamaged(key: Buffer): boolean {
    const { store, cluster } = this.options;
    if (!holdsKey(cluster, partitionOf(key, store.partitions))) return false;
    try {
      store.get(key);
      return false;
    } catch (error) {
      if (isDataLoss(error)) return true;
      throw error;
    }
  }
}

function holdsKey({ map, nodeId }: ClusterView, partition: number): boolean {
  return map !== undefined && holdsPartition(map, nodeId, partition);
}

function note(found: Found, { outcome, record, horizonMs }: ReadResult): void {
  if (outcome === ReadResult_Outcome.ABSENT) found.answers += 1;
  if (outcome !== ReadResult_Outcome.RECORD) return;
  try {
    const decoded = decodeRecord(found.key, record);
    found.answers += 1;
    const { newest } = found;
    if (newest !== undefined && compareVersions(decoded.version, newest.record.version) <= 0) return;
    found.newest = { key: found.key, record: decoded, horizonMs };
  } catch (error) {
    if (!isDataLoss(error)) throw error;
  }
}
