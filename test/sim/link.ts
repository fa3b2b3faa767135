import type { Dice } from './dice.ts';

/** The way from one machine to another; the way back is one of its own. */
export class Link {
  /** While above 0 nothing arrives: what is sent is sent again, as TCP does, until something does. */
  private blocks = 0;
  /** Added to every passage, milliseconds. */
  extraMs = 0;
  /** Added at random, up to this much, so that streams overtake each other. */
  jitterMs: number;
  private readonly baseMs: number;
  private readonly dice: Dice;
  private readonly waiting = new Set<() => void>();

  constructor(dice: Dice, options: { baseMs: number; jitterMs: number }) {
    this.dice = dice;
    this.baseMs = options.baseMs;
    this.jitterMs = options.jitterMs;
  }

  get blocked(): boolean {
    return this.blocks > 0;
  }

  block(): void {
    this.blocks += 1;
  }

  /** Takes one `block` back. */
  open(): void {
    this.blocks -= 1;
    if (this.blocks > 0) return;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const resume of waiting) resume();
  }

  /** Calls back once when the way is open again. */
  whenOpen(resume: () => void): void {
    this.waiting.add(resume);
  }

  /** What one passage takes, milliseconds. */
  passageMs(): number {
    return this.baseMs + this.extraMs + this.dice.fraction() * this.jitterMs;
  }

  /** How long TCP takes to notice that the way is open again, milliseconds. */
  retransmitMs(): number {
    return this.dice.fraction() * 50;
  }
}
