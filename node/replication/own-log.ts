import type { ApplyResult, Mutation, Store } from '../storage/store.ts';

/** To be told of every own entry, in the turn in which its version was minted. */
export type OnOwnEntry = (sequence: number, mutation: Mutation) => void;

/** Appends what this node mints, and knows how far that is on disk: what peers are told of the log's safe end. */
export class OwnLog {
  private readonly store: Store;
  private readonly onOwnEntry: OnOwnEntry;
  private durable: number;

  constructor(store: Store, onOwnEntry: OnOwnEntry = () => undefined) {
    this.store = store;
    this.onOwnEntry = onOwnEntry;
    this.durable = store.head;
  }

  /** Own entries are synced through this sequence. */
  get durableHead(): number {
    return this.durable;
  }

  /** `Store.apply` for own mutations. */
  append(mutations: readonly Mutation[]): ApplyResult {
    const result = this.store.apply(mutations);
    for (const [index, mutation] of mutations.entries()) {
      const outcome = result.outcomes[index];
      if (outcome?.kind === 'applied') this.onOwnEntry(outcome.sequence, mutation);
    }
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
