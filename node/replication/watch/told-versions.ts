import { byteString } from '../../../common/bytes.ts';
import type { StoredRecord } from '../../storage/store.ts';
import { supersedes } from '../../storage/supersedes.ts';

type ToldRecord = Pick<StoredRecord, 'version' | 'checksum'>;

/**
 * What one stream has told of each key, so that a replica that takes over and is behind in a key does not take it back.
 * Needed of versions at or above the low-water mark only: what is below it, every replica has. Bounded: what is dropped
 * for room is remembered as a whole, and then nobody can take over below it.
 */
export class ToldVersions {
  private readonly most: number;
  /** Oldest told first. */
  private readonly told = new Map<string, ToldRecord>();
  private droppedMs = -1;

  constructor(most: number) {
    this.most = most;
  }

  get size(): number {
    return this.told.size;
  }

  /** Whether a record is news: newer than what has been told of its key. It counts as told from then on. */
  admit(key: Buffer, { version, checksum }: ToldRecord): boolean {
    const name = byteString(key);
    const known = this.told.get(name);
    if (known !== undefined && !supersedes({ version, checksum }, known)) return false;
    this.told.delete(name);
    this.told.set(name, { version, checksum });
    if (this.told.size > this.most) this.dropOldest();
    return true;
  }

  /** Lets go of what nobody can take back any more. */
  forgetBelow(markMs: number): void {
    for (const [name, { version }] of this.told) {
      // Those told later are seldom older, and one that stays for a while does no harm.
      if (version.wallMs >= markMs) return;
      this.told.delete(name);
    }
  }

  /** Whether everything told with a version at or above the mark is known here. */
  reachesDownTo(markMs: number): boolean {
    return this.droppedMs < markMs;
  }

  private dropOldest(): void {
    const [oldest] = this.told;
    if (oldest === undefined) return;
    const [name, { version }] = oldest;
    this.told.delete(name);
    this.droppedMs = Math.max(this.droppedMs, version.wallMs);
  }
}
