import type { Disk, DiskSpace } from './disk.ts';
import type { StoreLimits } from './limits.ts';
import { reserveBytes } from './volume.ts';

const NAME = 'reserve';
const STEP = Buffer.alloc(1024 * 1024);

/**
 * A file of nothing, that takes room on the volume while there is enough. A store on a volume that ran full gives it up
 * when it is opened, for without some room it could neither open, nor checkpoint, nor trim its log, and would never have
 * room again.
 */
export class Reserve {
  private readonly disk: Disk;
  private readonly limits: Pick<StoreLimits, 'reserveBytes'>;
  /** It is known to be there. */
  private present = false;

  constructor(disk: Disk, limits: Pick<StoreLimits, 'reserveBytes'>) {
    this.disk = disk;
    this.limits = limits;
  }

  /** Gives the room back; false when there was none. */
  async release(): Promise<boolean> {
    if (!(await this.disk.list()).includes(NAME)) return false;
    await this.disk.remove(NAME);
    await this.disk.syncDir();
    this.present = false;
    return true;
  }

  /** Gives the room back when there is less left than the reserve itself. */
  async releaseWhenLow(): Promise<boolean> {
    const space = await this.disk.space();
    return space.freeBytes < reserveBytes(this.limits, space) && this.release();
  }

  /** Takes the room if it is not taken yet, and `spareBytes` can be spared. */
  async restore(space: DiskSpace, spareBytes: number): Promise<void> {
    const wanted = reserveBytes(this.limits, space);
    if (wanted === 0 || this.present || spareBytes < 2 * wanted) return;
    const found = (await this.disk.list()).includes(NAME);
    // A crash while it was made leaves less of it.
    this.present = found && (await this.disk.size(NAME)) >= wanted;
    if (this.present) return;
    if (found) await this.release();
    await this.create(wanted);
  }

  private async create(bytes: number): Promise<void> {
    const file = await this.disk.create(NAME);
    try {
      for (let left = bytes; left > 0; left -= STEP.length) {
        await file.append([left < STEP.length ? STEP.subarray(0, left) : STEP]);
      }
      await file.sync();
      await this.disk.syncDir();
      this.present = true;
    } catch (error) {
      await file.close();
      await this.release();
      if (!isNoSpace(error)) throw error;
    }
    await file.close();
  }
}

/** Whether an error says that the volume is full. */
export function isNoSpace(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}
