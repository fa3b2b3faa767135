import { compareVersions } from '../../model/version.ts';
import type { KeyedRecord } from '../storage/store.ts';
import { comparePositions, type RecordSource } from './record-source.ts';

/** One key of a merge. */
export interface MergedRecord extends KeyedRecord {
  /** Sources that have an older version or none: they miss something that nobody's log may bring them any more. */
  readonly stale: readonly RecordSource[];
}

/** Merges ordered record streams: each key once, with the newest version that any source has. */
export async function* mergeSources(
  sources: readonly RecordSource[],
): AsyncGenerator<MergedRecord, void, undefined> {
  for (;;) {
    const heads = await Promise.all(sources.map(async (source) => ({ source, record: await source.peek() })));
    let first: KeyedRecord | undefined;
    for (const { source, record } of heads) {
      if (record === undefined) continue;
      const before =
        first === undefined || comparePositions(source.positionOf(record), source.positionOf(first)) < 0;
      if (before) first = record;
    }
    if (first === undefined) return;
    const { key } = first;
    let newest = first.record;
    const holders = heads.flatMap(({ source, record }) =>
      record?.key.equals(key) === true ? [{ source, record }] : [],
    );
    for (const { record } of holders) {
      if (compareVersions(record.record.version, newest.version) > 0) newest = record.record;
    }
    const current = new Set(
      holders
        .filter(({ record }) => compareVersions(record.record.version, newest.version) === 0)
        .map(({ source }) => source),
    );
    yield { key, record: newest, stale: sources.filter((source) => !current.has(source)) };
    for (const { source } of holders) source.take();
  }
}
