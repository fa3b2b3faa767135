import type { Disk } from './disk.ts';
import type { Segment } from './apply-log.ts';
import type { StoredLeaves } from './digests.ts';
import { entrySeed, type CeilingValues } from './entry.ts';
import { discardUnfinished, findSegments } from './find-segments.ts';
import type { Layer } from './overlay.ts';
import { Replay } from './replay.ts';
import { segmentName } from './segment.ts';
import { highest, scanSegment } from './segment-scan.ts';
import type { IndexedState } from './state.ts';
import type { StorageRules } from './storage-rules.ts';
import {
  APPLIED_NAME,
  decodeApplied,
  decodeCursor,
  decodeDigest,
  decodeIdentity,
  nameOfUser,
  STORE_NAME,
  unsealMeta,
  type Applied,
  type StoreIdentity,
} from './state-meta.ts';
import type { LogCursor } from './store.ts';
import { StoreCorrupt, StoreUnsupported } from './store-errors.ts';

/** What a store begins with. */
export interface Recovered {
  /** Undefined: the directory is blank, and a store is to be created. */
  readonly identity: StoreIdentity | undefined;
  /** Oldest first. */
  readonly segments: readonly Segment[];
  /** What the log holds beyond the state, oldest first. */
  readonly layers: readonly Layer[];
  /** The state holds everything up to this sequence. */
  readonly appliedThrough: number;
  /** Sequence of the newest own record that the state holds. */
  readonly appliedHead: number;
  /** Sequence of the newest entry. */
  readonly lastSequence: number;
  /** The last run ended with `close`; also true where there was none. */
  readonly cleanStart: boolean;
  /** The next sequence is the one after this: behind the last entry when the end was clean, else behind the ceiling. */
  readonly startAfter: number;
  /** Sequence of the newest own record. */
  readonly head: number;
  readonly ceilings: CeilingValues;
  readonly cursors: Map<string, LogCursor>;
  readonly meta: Map<string, Buffer>;
  /** Of the state's partitions. */
  readonly digests: ReadonlyMap<number, StoredLeaves>;
}

const NOTHING: Recovered = {
  identity: undefined,
  segments: [],
  layers: [],
  appliedThrough: 0,
  appliedHead: 0,
  lastSequence: 0,
  cleanStart: true,
  startAfter: 0,
  head: 0,
  ceilings: { sequence: 0, clockMs: 0 },
  cursors: new Map(),
  meta: new Map(),
  digests: new Map(),
};

/**
 * Brings state and log together after whatever end the last run had (PROTOCOL 9, 11, 12): the state is the log up to its
 * applied sequence, so everything after that is read from the log again. A write that a crash tore is cut off, durably,
 * before anything else is written.
 *
 * @throws StoreCorrupt when synced data is damaged or missing; StoreUnsupported for a newer format.
 */
export async function recover(disk: Disk, state: IndexedState, options: RecoveryOptions): Promise<Recovered> {
  const stateMeta = new Map([...state.readAllMeta()].map(([name, bytes]) => [name, unsealMeta(name, bytes)]));
  const identityBytes = stateMeta.get(STORE_NAME);
  if (identityBytes === undefined) {
    if (stateMeta.size > 0) throw new StoreCorrupt('the state has values and no identity');
    await discardUnfinished(disk);
    return { ...NOTHING, cursors: new Map(), meta: new Map() };
  }
  const identity = decodeIdentity(identityBytes);
  const appliedBytes = stateMeta.get(APPLIED_NAME);
  if (appliedBytes === undefined) throw new StoreCorrupt('the state does not say how far it is');
  const applied = decodeApplied(appliedBytes);
  const { segments, mayBeTorn } = await findSegments(disk, identity.storeId);
  return replay(disk, { state, identity, applied, segments, mayBeTorn, stateMeta, ...options });
}

export interface RecoveryOptions {
  /** Records of a layer. */
  readonly layerRecords: number;
  readonly rules: StorageRules;
}

interface ReplayInput extends RecoveryOptions {
  readonly state: IndexedState;
  readonly identity: StoreIdentity;
  readonly applied: Applied;
  readonly segments: readonly Segment[];
  readonly mayBeTorn: boolean;
  readonly stateMeta: ReadonlyMap<string, Buffer>;
}

async function replay(disk: Disk, input: ReplayInput): Promise<Recovered> {
  const { identity, applied, segments, stateMeta, layerRecords, rules } = input;
  const seed = entrySeed(identity.storeId);
  const first = segments[0];
  if (first === undefined) throw new StoreCorrupt('there is a state, and its log is missing');
  if (first.firstSequence > applied.sequence + 1) {
    throw new StoreCorrupt(
      `the log begins at ${first.firstSequence}, and the state ends at ${applied.sequence}`,
    );
  }
  const replayed = new Replay({ state: input.state, head: applied.head, layerRecords });
  let ceilings = applied.ceilings;
  let lastSequence = 0;
  let cleanEnd: number | undefined;
  for (const [index, segment] of segments.entries()) {
    const following = segments[index + 1];
    if (following !== undefined && following.firstSequence <= applied.sequence + 1) continue;
    const bytes = await disk.read(segmentName(segment.number));
    const scan = scanSegment(bytes, {
      number: segment.number,
      seed,
      last: following === undefined && input.mayBeTorn,
      after: applied.sequence,
      onEntry: (entry) => replayed.add(entry),
    });
    if (following === undefined) await settleTail(disk, segment, scan.end);
    if (scan.ceilings !== undefined) ceilings = highest(ceilings, scan.ceilings);
    lastSequence = Math.max(lastSequence, scan.lastSequence ?? 0);
    cleanEnd = scan.end < bytes.length ? undefined : scan.cleanEnd;
  }
  if (
    lastSequence < applied.sequence &&
    !segments.some((segment) => segment.firstSequence > applied.sequence)
  ) {
    throw new StoreCorrupt(
      `the log ends at ${lastSequence}, before the state, which ends at ${applied.sequence}`,
    );
  }
  lastSequence = Math.max(lastSequence, applied.sequence);
  const { cursors, meta, digests } = readStateMeta(stateMeta);
  replayed.applyTo(cursors, meta);
  return {
    identity,
    segments,
    layers: replayed.layers,
    appliedThrough: applied.sequence,
    appliedHead: applied.head,
    lastSequence,
    cleanStart: cleanEnd !== undefined,
    startAfter: Math.max(lastSequence, cleanEnd ?? (rules.sequencesBehindCeiling ? ceilings.sequence : 0)),
    head: replayed.head,
    ceilings,
    cursors,
    meta,
    digests,
  };
}

/**
 * Makes what counts of the newest segment durable, and cuts the rest. A process that was killed leaves what it had written
 * in the page cache, synced or not: it counts from now on, others build upon it, and so it must survive a power cut.
 */
async function settleTail(disk: Disk, segment: Segment, end: number): Promise<void> {
  const file = await disk.open(segmentName(segment.number));
  try {
    if (end < segment.bytes) await file.truncate(end);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.syncDir();
  segment.bytes = end;
}

function readStateMeta(
  stateMeta: ReadonlyMap<string, Buffer>,
): Pick<Recovered, 'cursors' | 'meta' | 'digests'> {
  const cursors = new Map<string, LogCursor>();
  const meta = new Map<string, Buffer>();
  const digests = new Map<number, StoredLeaves>();
  for (const [name, value] of stateMeta) {
    const cursor = decodeCursor(name, value);
    const digest = decodeDigest(name, value);
    const userName = nameOfUser(name);
    if (cursor !== undefined) cursors.set(name, cursor);
    else if (digest !== undefined) digests.set(digest.partition, digest);
    else if (userName !== undefined) meta.set(userName, value);
    else if (name !== STORE_NAME && name !== APPLIED_NAME) {
      throw new StoreUnsupported(`state value ${name} was written by a newer version: use that version`);
    }
  }
  return { cursors, meta, digests };
}
