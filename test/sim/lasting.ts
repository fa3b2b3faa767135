import type { SimTime } from './time.ts';

/** What undoes a fault when its time is over. */
export type Undo = () => void;

/** Faults that last: each ends when its time is over, or when all of them are to end. */
export class Lasting {
  private readonly time: SimTime;
  private readonly undos = new Set<Undo>();

  constructor(time: SimTime) {
    this.time = time;
  }

  /** Keeps `undo` until what is returned is called, or all faults end. */
  keep(undo: Undo): Undo {
    const once = (): void => {
      if (this.undos.delete(once)) undo();
    };
    this.undos.add(once);
    return once;
  }

  /** Undoes after a while. */
  later(forMs: number, undo: Undo): void {
    this.time.after(forMs, this.keep(undo));
  }

  endAll(): void {
    for (const undo of [...this.undos]) undo();
  }
}
