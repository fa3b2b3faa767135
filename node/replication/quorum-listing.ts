import { compareVersions } from '../../model/version.ts';
import type { ListedPage, ListedRecord } from './local-listing.ts';

/** What pages of several replicas say together. */
export interface MergedPage {
  /** Newest record of each key, in byte order. */
  readonly keys: readonly ListedRecord[];
  /** The pages speak of every key up to here, inclusive; undefined: of all that follow. */
  readonly through: Buffer | undefined;
}

/**
 * Merges pages that begin at the same place. A page that was cut says nothing beyond its last key, so the merged one
 * speaks only up to the smallest last key of the cut ones: beyond it a replica with the newer version may be silent.
 */
export function mergePages(pages: readonly ListedPage[]): MergedPage {
  const ends = pages.flatMap((page) => (page.more ? (page.keys.at(-1)?.key ?? []) : []));
  const through = ends.length === 0 ? undefined : ends.reduce((a, b) => (Buffer.compare(a, b) <= 0 ? a : b));
  const newest = new Map<string, ListedRecord>();
  for (const page of pages) {
    for (const record of page.keys) {
      if (through !== undefined && Buffer.compare(record.key, through) > 0) break;
      const name = record.key.toString('latin1');
      const known = newest.get(name);
      if (known === undefined || compareVersions(record.version, known.version) > 0) newest.set(name, record);
    }
  }
  return { keys: [...newest.values()].sort((a, b) => Buffer.compare(a.key, b.key)), through };
}
