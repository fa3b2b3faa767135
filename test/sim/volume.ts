import type { Dice } from './dice.ts';
import { SimFiles } from './disk.ts';
import { SimRows } from './state.ts';

/** Everything a member has on disk. */
export class Volume {
  readonly files: SimFiles;
  readonly rows: SimRows;

  constructor(files = new SimFiles(), rows = new SimRows()) {
    this.files = files;
    this.rows = rows;
  }

  /** A process died: files are as it saw them, synced or not; a transaction under way may have made it. */
  afterKill(dice: Dice): this {
    this.settleTransaction(dice);
    return this;
  }

  /** Power was lost. */
  afterPowerCut(dice: Dice): Volume {
    this.settleTransaction(dice);
    return new Volume(this.files.afterPowerCut(dice), this.rows);
  }

  /** What a snapshot of the running volume would restore: the same as a power cut now would leave. */
  snapshot(dice: Dice): Volume {
    return new Volume(this.files.afterPowerCut(dice), this.rows.copy());
  }

  copy(): Volume {
    return new Volume(this.files.copy(), this.rows.copy());
  }

  private settleTransaction(dice: Dice): void {
    const { underWay } = this.rows;
    this.rows.underWay = undefined;
    if (underWay !== undefined && dice.chance(0.5)) this.rows.apply(underWay);
  }
}
