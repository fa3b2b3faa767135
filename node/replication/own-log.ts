import type { ApplyResult, Mutation, Store } from '../storage/store.ts';

/** Appends what this node mints, and knows how far that is on disk: what peers are told of the log's safe end. */
export class OwnLog {
  private readonly store: Store;
  private durable: number;

  constructor(store: Store) {
    this.store = store;
    this.durable = store.head;
  }

  /** Own entries are synced through this sequence. */
  get durableHead(): number {
    return this.durable;
  }

  /** `Store.apply` for own mutations. */
  append(mutations: readonly Mutation[]): ApplyResult {
    const result = this.store.apply(mutations);
    const last = result.outcomes.findLast((outcome) => outcome.kind === 'applied');
    if (last !== undefined) {
      result.durable.then(
        () => (this.durable = Math.max(this.durable, last.sequence)),
        () => undefined, // The caller sees the rejection, and the store's `failed` ends the node.
      );
    }
    return result;
  }
}
