import { holdsPartition } from '../../../model/replica-sets.ts';
import type {
  DigestReply,
  DigestRequest,
  LeafItem,
  LeafReply,
  LeafRequest,
  PartitionDigest,
} from '../../../proto/gen/peer.ts';
import { encodeLeaves, LeafSet } from './leaf-set.ts';
import { isInLeaves } from './own-records.ts';
import { PartitionPages, type StoredRow } from './partition-pages.ts';
import { followHorizon, nextTurn, type Surroundings } from './surroundings.ts';

export interface DigestAnswersOptions extends Surroundings {
  /** Own entries are synced, and therefore in the digests, through this sequence. */
  readonly durableHead: () => number;
}

const NOTHING = Buffer.alloc(0);
/** Leaves of more partitions than this are not given in one reply. */
const MOST_WITH_LEAVES = 256;

/**
 * Answers what comparing peers ask: digests without looking at the disk, and pages of keys by scanning a partition.
 * Horizons are those before anything was read.
 */
export class DigestAnswers {
  private readonly options: DigestAnswersOptions;

  constructor(options: DigestAnswersOptions) {
    this.options = options;
  }

  /** Partitions that this node does not keep, or that it gives no leaves of, are answered as such. */
  async digests(request: Omit<DigestRequest, 'id'>): Promise<Omit<DigestReply, 'id'>> {
    const { withLeaves, horizonsMs } = request;
    const partitions = request.partitions.slice(0, this.options.store.partitions);
    if (withLeaves) {
      await Promise.all(
        partitions.map(async (partition, index) => {
          if (this.holds(partition)) await followHorizon(this.options, partition, horizonsMs[index] ?? 0);
        }),
      );
    }
    // Taken before the digests: everything up to it is in them.
    const durableHead = this.options.durableHead();
    const digests = partitions.map((partition, index) =>
      this.digestOf(partition, withLeaves && index < MOST_WITH_LEAVES),
    );
    return { durableHead, digests };
  }

  /** A damaged record is listed without a version: it is neither missing nor known. */
  async leaves(request: Omit<LeafRequest, 'id'>): Promise<Omit<LeafReply, 'id'>> {
    const { partition } = request;
    // Its asker finds out by the newer map; nothing is concluded from a horizon of 0.
    if (!this.holds(partition)) return { items: [], through: undefined, horizonMs: 0 };
    const { store, horizons, settings, scheduler } = this.options;
    const horizonMs = horizons.of(partition);
    const leaves = LeafSet.fromBytes(request.leaves);
    const after = request.startAfter.length === 0 ? undefined : request.startAfter;
    const pages = new PartitionPages(store, partition, { after, pageBytes: settings.batchBytes });
    const limit = Math.max(1, Math.min(request.limit, settings.pageKeys));
    const items: LeafItem[] = [];
    let scanned = 0;
    let through: Buffer | undefined;
    for (;;) {
      const rows = await pages.next();
      if (rows === undefined) return { items, through: undefined, horizonMs };
      for (const row of rows) {
        if (isInLeaves(row.key, leaves)) items.push(this.itemOf(row));
        scanned += 1;
        through = row.key;
        if (items.length >= limit || scanned >= settings.pageScans) return { items, through, horizonMs };
      }
      await nextTurn(scheduler);
    }
  }

  private digestOf(partition: number, withLeaves: boolean): PartitionDigest {
    if (!this.holds(partition)) {
      return { partition, root: 0, leaves: NOTHING, horizonMs: 0, readable: false, wrongReplica: true };
    }
    const { store, horizons, standing } = this.options;
    const { root, leaves } = store.digest(partition);
    return {
      partition,
      root,
      leaves: withLeaves ? encodeLeaves(leaves) : NOTHING,
      horizonMs: horizons.of(partition),
      readable: standing.isReadable(partition),
      wrongReplica: false,
    };
  }

  private itemOf({ key, record }: StoredRow): LeafItem {
    if (record !== undefined) return { key, version: record.version, checksum: record.checksum };
    this.options.onDamaged(key);
    return { key, version: undefined, checksum: 0 };
  }

  private holds(partition: number): boolean {
    const { store, cluster } = this.options;
    const { map, nodeId } = cluster;
    return partition < store.partitions && map !== undefined && holdsPartition(map, nodeId, partition);
  }
}
