import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { Store } from '../storage/store.ts';
import type { Topology } from './topology.ts';

export interface ResidueOptions {
  readonly store: Store;
  readonly topology: Topology;
  /** How far all other members that are not down have durably acknowledged this node's log. */
  readonly acknowledged: () => number;
  readonly logger: Logger;
}

/**
 * Partitions that are stored here although the map has given them to others. They serve nothing, but this node may have
 * minted something of them that the new owners do not have yet: they stay until its log is acknowledged up to where it
 * was when the map changed (PROTOCOL 31).
 */
export class Residue {
  private readonly options: ResidueOptions;
  /** Partition to the head of the own log when it was given away. */
  private readonly waiting = new Map<number, number>();
  private removing = false;

  constructor(options: ResidueOptions) {
    this.options = options;
  }

  /** How many partitions there are. */
  get size(): number {
    return this.waiting.size;
  }

  /** Looks what the map held now leaves behind; call after it changed and at start. */
  look(): void {
    const { store, topology } = this.options;
    for (const partition of [...this.waiting.keys()]) {
      if (topology.holds(partition)) this.waiting.delete(partition);
    }
    for (let partition = 0; partition < store.partitions; partition += 1) {
      if (topology.holds(partition) || this.waiting.has(partition)) continue;
      if (!isEmpty(store, partition)) this.waiting.set(partition, store.head);
    }
    this.wake();
  }

  /** Removes what may go; call now and then. */
  wake(): void {
    if (this.removing) return;
    const acknowledged = this.options.acknowledged();
    const due = [...this.waiting].flatMap(([partition, head]) => (head <= acknowledged ? partition : []));
    if (due.length === 0) return;
    this.removing = true;
    this.discard(due)
      .catch((error: unknown) =>
        this.options.logger.error(
          { error: messageOf(error) },
          'partitions given to others could not be removed',
        ),
      )
      .finally(() => {
        this.removing = false;
      });
  }

  /** Removes everything that is stored of some partitions; resolves when it is gone for good. */
  async discard(partitions: readonly number[]): Promise<void> {
    const { store, logger } = this.options;
    let records = 0;
    for (const partition of partitions) {
      if (!isEmpty(store, partition)) records += await store.removeWhere(partition, () => true);
      this.waiting.delete(partition);
    }
    if (records > 0) logger.info({ partitions: partitions.length, records }, 'partitions were removed');
  }
}

function isEmpty(store: Store, partition: number): boolean {
  return store.digest(partition).leaves.every((sum) => sum === 0);
}
