import type { Scheduler, Timer } from '../../common/clock.ts';

export interface ProbationOptions {
  /** Members that share a partition with this node and that the map does not mark down. */
  readonly judges: () => readonly string[];
  /** For how long judges that are away are waited for, milliseconds. */
  readonly limitMs: number;
  readonly scheduler: Scheduler;
  /** This node has been judged, or has waited long enough. */
  readonly onOver: () => void;
}

/**
 * After a start a node serves nothing until every member that shares a partition with it has accepted its volume, or has
 * been away for the time of a failure detection. One that still takes a predecessor for this node is not away. A volume that was rolled back looks sound to whoever was away when it
 * acknowledged what it lacks; the one who knows better may be the last to connect.
 */
export class Probation {
  private readonly options: ProbationOptions;
  private readonly judgedBy = new Set<string>();
  private timer: Timer | undefined;
  private isOver = false;

  constructor(options: ProbationOptions) {
    this.options = options;
  }

  get over(): boolean {
    return this.isOver;
  }

  /** From now on others can connect. */
  begin(): void {
    const { scheduler, limitMs } = this.options;
    this.timer = scheduler.after(limitMs, () => this.end());
    this.look();
  }

  /** A member is there, and cannot judge before it has noticed that this node's predecessor is gone. */
  postpone(): void {
    if (this.isOver || this.timer === undefined) return;
    const { scheduler, limitMs } = this.options;
    this.timer.cancel();
    this.timer = scheduler.after(limitMs, () => this.end());
  }

  /** A member has accepted this volume, and this node has found nothing wrong in what the member remembers of it. */
  judged(nodeId: string): void {
    this.judgedBy.add(nodeId);
    this.look();
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }

  private look(): void {
    if (this.isOver || this.timer === undefined) return;
    if (this.options.judges().every((nodeId) => this.judgedBy.has(nodeId))) this.end();
  }

  private end(): void {
    this.timer?.cancel();
    if (this.isOver) return;
    this.isOver = true;
    this.options.onOver();
  }
}
