import { messageOf } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import { PartitionSet } from '../../cluster/partition-set.ts';
import { readJsonMeta, writeJsonMeta } from '../../cluster/json-meta.ts';
import type { Store } from '../../storage/store.ts';

export interface LogContinuityOptions {
  readonly store: Store;
  /** Whether this node holds everything of a partition that the map reads from it. */
  readonly isComplete: (partition: number) => boolean;
  /** Whether it stands by that now, which begins somewhat after a start. */
  readonly serves: (partition: number) => boolean;
  readonly logger: Logger;
}

const META = 'log-continuity';
const FORMAT = 1;

interface StoredContinuity {
  /** Sequences, each with the partitions of which the log tells everything after it, PartitionSet in hex. */
  readonly since: readonly (readonly [sequence: number, partitions: string])[];
}

/**
 * Since when this node's log tells every change of a partition. A replica that fills takes records past the log, so a
 * watch must not go on in it from a place before it became readable. Durable, because a token outlives a restart.
 *
 * That a partition is not served any more is written before anything else is made of it, so that no crash can leave an
 * older sequence in force: writes to the log keep their order.
 */
export class LogContinuity {
  private readonly options: LogContinuityOptions;
  private readonly sequences: (number | undefined)[];
  private changes = 0;

  /** @throws KvError FAILED_PRECONDITION when a newer version of the software wrote what is stored. */
  constructor(options: LogContinuityOptions) {
    this.options = options;
    const { store } = options;
    this.sequences = new Array<number | undefined>(store.partitions).fill(undefined);
    const stored = readJsonMeta(store, META, FORMAT) as StoredContinuity | undefined;
    for (const [sequence, partitions] of stored?.since ?? []) {
      for (const partition of PartitionSet.fromBytes(Buffer.from(partitions, 'hex'), store.partitions)) {
        this.sequences[partition] = sequence;
      }
    }
  }

  /** Another number whenever `since` may say something else. */
  get generation(): number {
    return this.changes;
  }

  /** The log tells every change after this sequence; undefined: the partition is not served here. */
  since(partition: number): number | undefined {
    return this.options.serves(partition) ? this.sequences[partition] : undefined;
  }

  /** To be called whenever what this node serves may have changed, in the turn in which it changed. */
  update(): void {
    const { store, isComplete, logger } = this.options;
    const { syncedThrough } = store;
    let changed = false;
    for (const [partition, sequence] of this.sequences.entries()) {
      const complete = isComplete(partition);
      if (complete === (sequence !== undefined)) continue;
      this.sequences[partition] = complete ? syncedThrough : undefined;
      changed = true;
    }
    this.changes += 1;
    if (!changed) return;
    writeJsonMeta(store, META, FORMAT, this.stored()).catch((error: unknown) =>
      logger.warn({ error: messageOf(error) }, 'since when the log is complete could not be written'),
    );
  }

  private stored(): StoredContinuity {
    const { partitions } = this.options.store;
    const sets = new Map<number, PartitionSet>();
    for (const [partition, sequence] of this.sequences.entries()) {
      if (sequence === undefined) continue;
      let set = sets.get(sequence);
      if (set === undefined) sets.set(sequence, (set = new PartitionSet(partitions)));
      set.add(partition);
    }
    return { since: [...sets].map(([sequence, set]) => [sequence, set.toBytes().toString('hex')]) };
  }
}
