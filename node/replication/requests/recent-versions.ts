import { compareVersions, NO_VERSION, newestVersion, type Version } from '../../../model/version.ts';

/** Versions remembered; of each it takes some 100 bytes. */
export const DEFAULT_RECENT_VERSIONS = 50_000;
/** What is older than the newest by this much is part of no write that is still under way. */
const RECENT_MS = 60_000;

/**
 * Versions of writes that were applied here and came without a request id: unnamed ones, and those that repairs brought.
 * A version is of one write, so that it says enough.
 */
export class RecentVersions {
  private readonly capacity: number;
  /** Oldest first. */
  private readonly noted = new Set<string>();
  private readonly order: Version[] = [];
  private newestMs = 0;
  /** Nothing is said of versions up to this one that are not found. */
  private forgotten: Version = NO_VERSION;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** A write was applied here, with nothing newer there when it came. */
  note(version: Version): void {
    this.newestMs = Math.max(this.newestMs, version.wallMs);
    if (version.wallMs < this.newestMs - RECENT_MS) {
      this.forgotten = newestVersion(this.forgotten, version);
      return;
    }
    const name = nameOf(version);
    if (this.noted.has(name)) return;
    this.noted.add(name);
    this.order.push(version);
    if (this.order.length >= 2 * this.capacity) this.forgetHalf();
  }

  has(version: Version): boolean {
    return this.noted.has(nameOf(version));
  }

  /** Whether it may have been noted and be forgotten. */
  mayHaveForgotten(version: Version): boolean {
    return !this.has(version) && compareVersions(version, this.forgotten) <= 0;
  }

  private forgetHalf(): void {
    for (const version of this.order.splice(0, this.capacity)) {
      this.noted.delete(nameOf(version));
      this.forgotten = newestVersion(this.forgotten, version);
    }
  }
}

function nameOf({ wallMs, counter, writer }: Version): string {
  return `${wallMs}.${counter}.${writer}`;
}
