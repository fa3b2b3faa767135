import type { Clock } from '../../../common/clock.ts';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { oldOwners } from '../../../model/replica-sets.ts';
import type { Version } from '../../../model/version.ts';
import { readJsonMeta, writeJsonMeta } from '../../cluster/json-meta.ts';
import type { Store } from '../../storage/store.ts';

const META = 'newcomers';
const FORMAT = 1;

export interface NewcomersOptions {
  readonly store: Pick<Store, 'readMeta' | 'writeMeta'>;
  readonly clock: Clock;
  /** How long what became of a write is asked for, milliseconds. */
  readonly windowMs: number;
  /** Most that the clocks of members differ, milliseconds. */
  readonly skewBoundMs: number;
}

/** Replicas that a move gave to a partition. */
interface Arrival {
  /** Wall clock: a write with an earlier version may have been minted before. */
  readonly untilMs: number;
  readonly nodeIds: ReadonlySet<string>;
}

/**
 * The replicas that were none when a write began. That such a one holds nothing newer says nothing about what others read
 * then: the read quorums of that time did not include it (seed 44480 of the simulation).
 */
export class Newcomers {
  private readonly options: NewcomersOptions;
  private readonly arrivals = new Map<number, Arrival[]>();
  /** Up to this time of minting, wall clock, it is not known who was a replica. */
  private unknownUntilMs: number;

  constructor(options: NewcomersOptions) {
    this.options = options;
    const stored = readJsonMeta(options.store, META, FORMAT) as { untilMs: number } | undefined;
    this.unknownUntilMs = stored?.untilMs ?? -Infinity;
  }

  /** Before a map counts. A replica is one when its move has ended: until then both sides are asked. */
  async prepare(current: ClusterMap | undefined, next: ClusterMap): Promise<void> {
    const { clock, windowMs, skewBoundMs, store } = this.options;
    const untilMs = clock.wallMs() + skewBoundMs;
    let changed = false;
    if (current === undefined) {
      if (!next.initialised) return;
      this.unknownUntilMs = untilMs;
      changed = true;
    } else {
      for (let partition = 0; partition < next.partitions; partition += 1) {
        const before = oldOwners(current, partition);
        const added = oldOwners(next, partition).filter((nodeId) => !before.includes(nodeId));
        if (added.length === 0) continue;
        changed = true;
        const recent = (this.arrivals.get(partition) ?? []).filter(
          (other) => other.untilMs > untilMs - 2 * windowMs,
        );
        this.arrivals.set(partition, [...recent, { untilMs, nodeIds: new Set(added) }]);
      }
    }
    // After a restart it is not known any more which ones they were.
    if (changed) await writeJsonMeta(store, META, FORMAT, { untilMs });
  }

  /** Whether a member may not have been a replica of the partition yet when a version was minted. */
  has(nodeId: string, partition: number, { wallMs }: Version): boolean {
    if (wallMs <= this.unknownUntilMs) return true;
    const arrivals = this.arrivals.get(partition);
    return arrivals?.some(({ untilMs, nodeIds }) => wallMs <= untilMs && nodeIds.has(nodeId)) === true;
  }
}
