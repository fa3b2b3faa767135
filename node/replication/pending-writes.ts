import type { Version } from '../../model/version.ts';

/** What a replica said about a write: it holds it, or it holds something newer, of which the version may be unknown. */
export type WriteAnswer = { readonly kind: 'held' } | { readonly kind: 'superseded'; readonly by?: Version };

interface PendingWrite {
  readonly onAnswer: (peer: string, answer: WriteAnswer) => void;
  /** Peers. There are a few: a Set for each write costs more than it saves. */
  readonly answered: string[];
  /** Peers that were not sent it, because they did not hold its partition by the map of that time. */
  skipped: Set<string> | undefined;
}

const HELD: WriteAnswer = { kind: 'held' };

/**
 * The writes of this coordinator that wait for peers, by sequence in the own log.
 *
 * Acknowledgements are cumulative and say "this version or a newer one". Which of the two matters: a write that was
 * beaten by a version it did not know must be minted again (PROTOCOL 3). So an answer is `held` only when the record was
 * sent on the stream that acknowledges it and the peer did not list it as superseded. A peer that was not
 * sent the record acknowledges its sequence all the same, and that says nothing (PROTOCOL 14).
 */
export class PendingWrites {
  /** In order of sequence: sequences only grow. */
  private readonly writes = new Map<number, PendingWrite>();

  /** Waits for answers about the entry with that sequence until `forget`. */
  expect(sequence: number, onAnswer: PendingWrite['onAnswer']): void {
    this.writes.set(sequence, { onAnswer, answered: [], skipped: undefined });
  }

  forget(sequence: number): void {
    this.writes.delete(sequence);
  }

  /** The entry goes to the peer; an earlier stream may have passed over it. */
  sent(peer: string, sequence: number): void {
    this.writes.get(sequence)?.skipped?.delete(peer);
  }

  /** The peer passes over the entry: it does not hold the partition. */
  skipped(peer: string, sequence: number): void {
    const write = this.writes.get(sequence);
    if (write !== undefined) (write.skipped ??= new Set()).add(peer);
  }

  /** The peer acknowledged, on the stream they were sent on, the entries in (after, through]. */
  acknowledged(peer: string, after: number, through: number, superseded: ReadonlyMap<number, Version>): void {
    this.answer(peer, through, (sequence) => {
      if (sequence <= after) return undefined;
      const by = superseded.get(sequence);
      return by === undefined ? HELD : { kind: 'superseded', by };
    });
  }

  /** A new stream began beyond these entries: the peer holds them or newer ones, and what it said about them is lost. */
  passed(peer: string, through: number): void {
    this.answer(peer, through, () => ({ kind: 'superseded' }));
  }

  private answer(peer: string, through: number, judge: (sequence: number) => WriteAnswer | undefined): void {
    for (const [sequence, write] of this.writes) {
      if (sequence > through) return;
      if (write.answered.includes(peer) || write.skipped?.has(peer) === true) continue;
      const answer = judge(sequence);
      if (answer === undefined) continue;
      write.answered.push(peer);
      write.onAnswer(peer, answer);
    }
  }
}
