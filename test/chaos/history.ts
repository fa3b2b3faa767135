import { compareVersions, formatVersion, type Version } from '../../model/version.ts';

/** How many replicas a call asked for. */
export type AskedFor = 'ONE' | 'QUORUM' | 'ALL';

/**
 * What became of a write. `refused`: its answer said that nothing was applied; `unknown`: no answer, or one that leaves it
 * open.
 */
export type Outcome = 'under way' | 'acknowledged' | 'refused' | 'unknown';

/** A put or delete, noted before it is sent. Times are those of one monotonic clock, milliseconds. */
export interface Write {
  /** No other write has it; a put carries it in its value. */
  readonly number: number;
  readonly key: string;
  readonly kind: 'put' | 'delete';
  readonly consistency: AskedFor;
  readonly startedMs: number;
  outcome: Outcome;
  /** When the client knew; while it is under way: never. */
  endedMs: number;
  /** As it was acknowledged. */
  version: Version | undefined;
}

/** A read that was answered. */
export interface Read {
  readonly key: string;
  /** `settled`: at one node, when all nodes had become equal. */
  readonly consistency: AskedFor | 'settled';
  /** Whom it asked, for messages. */
  readonly where: string;
  readonly startedMs: number;
  readonly endedMs: number;
  /** Undefined: the key is absent. */
  readonly found: { readonly value: string; readonly version: Version } | undefined;
}

/**
 * A write without an answer may still be applied, with a version of that moment: the node that has it may be stopped, or
 * the bytes may wait somewhere. Not for longer than this after the client gave it up, milliseconds: longer than any fault
 * lasts, and then a node's own deadline.
 */
export const UNKNOWN_MAY_COME_MS = 20_000;

/** Everything that clients did and saw, in the order of its beginning; `violations` judges it. */
export class History {
  readonly writes: Write[] = [];
  readonly reads: Read[] = [];

  /** Notes a write that is about to be sent. */
  begin(write: Pick<Write, 'key' | 'kind' | 'consistency' | 'startedMs'>): Write {
    const begun: Write = {
      ...write,
      number: this.writes.length + 1,
      outcome: 'under way',
      endedMs: Number.POSITIVE_INFINITY,
      version: undefined,
    };
    this.writes.push(begun);
    return begun;
  }

  count(outcome: Outcome): number {
    return this.writes.filter((write) => write.outcome === outcome).length;
  }

  /** Longest time without an acknowledgement between the first and the last one, milliseconds. */
  get longestPauseMs(): number {
    const ends = this.writes
      .filter(({ outcome }) => outcome === 'acknowledged')
      .map(({ endedMs }) => endedMs)
      .sort((a, b) => a - b);
    return ends.reduce((longest, end, index) => Math.max(longest, end - (ends[index - 1] ?? end)), 0);
  }
}

/** The value of a put: it tells whose it is, and is long enough to be cut or mixed up. */
export function valueOf(write: { readonly key: string; readonly number: number }): string {
  return `${write.key}#${write.number}#${'.'.repeat((write.number * 37) % 900)}`;
}

/**
 * What a history shows that must never be, one sentence each:
 * a value that nobody wrote to this key, or whose write was refused; an acknowledged write that got no higher version than
 * one acknowledged at QUORUM before it began; a read at QUORUM that finds less than was acknowledged at QUORUM, or read at
 * QUORUM, before it began, so that also a deleted key stays deleted and a written one is found; a read at ONE that finds
 * less than was acknowledged at ALL.
 */
export function violations({
  writes,
  reads,
}: {
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
}): readonly string[] {
  const writesOf = Map.groupBy(writes, ({ key }) => key);
  const readsOf = Map.groupBy(reads, ({ key }) => key);
  return [...new Set([...writesOf.keys(), ...readsOf.keys()])].flatMap((key) => [
    ...new KeyJudge(writesOf.get(key) ?? [], readsOf.get(key) ?? []).violations(),
  ]);
}

/** Something from whose end on no lower version may be found. */
interface Floor {
  readonly version: Version;
  /** When its version was minted at the earliest. */
  readonly startedMs: number;
  readonly endedMs: number;
  readonly what: string;
}

class KeyJudge {
  private readonly writes: readonly Write[];
  private readonly reads: readonly Read[];
  private readonly byValue: ReadonlyMap<string, Write>;
  private readonly deletes: readonly Write[];

  constructor(writes: readonly Write[], reads: readonly Read[]) {
    this.writes = writes;
    this.reads = reads;
    const puts = writes.filter(({ kind }) => kind === 'put');
    this.byValue = new Map(puts.map((put) => [valueOf(put), put]));
    this.deletes = writes.filter(({ kind, outcome }) => kind === 'delete' && outcome !== 'refused');
  }

  *violations(): Generator<string, void, undefined> {
    const atQuorum = new Floors([
      ...this.acknowledgedAt('QUORUM', 'ALL'),
      ...this.reads.flatMap((read) => this.floorOfRead(read)),
    ]);
    const atAll = new Floors(this.acknowledgedAt('ALL'));
    for (const write of this.writes) yield* this.judgeWrite(write, atQuorum);
    for (const read of this.reads)
      yield* this.judgeRead(read, (read.consistency === 'ONE' ? atAll : atQuorum).before(read.startedMs));
  }

  private *judgeWrite(write: Write, floors: Floors): Generator<string, void, undefined> {
    const floor = floors.before(write.startedMs);
    if (write.version === undefined || write.consistency === 'ONE' || floor === undefined) return;
    if (compareVersions(write.version, floor.version) > 0) return;
    yield `${describe(write)} got version ${formatVersion(write.version)}, not above that of ${floor.what}`;
  }

  private *judgeRead(read: Read, floor: Floor | undefined): Generator<string, void, undefined> {
    const what = describeRead(read);
    if (read.found === undefined) {
      if (floor !== undefined && !this.deletes.some((one) => mayHide(one, read, floor))) {
        yield `${what} finds nothing, after ${floor.what}`;
      }
      return;
    }
    const { value, version } = read.found;
    const put = this.byValue.get(value);
    if (put === undefined) yield `${what} finds a value that nobody wrote to it: ${value.slice(0, 80)}`;
    else if (put.outcome === 'refused')
      yield `${what} finds the value of ${describe(put)}, which was refused`;
    else if (put.startedMs > read.endedMs)
      yield `${what} finds the value of ${describe(put)} before it began`;
    else {
      const buried = this.buriedBy(put, version);
      if (buried !== undefined)
        yield `${what} finds ${describe(put)} again, at version ${formatVersion(version)}, over ${describe(buried)}`;
    }
    if (floor !== undefined && compareVersions(version, floor.version) < 0)
      yield `${what} finds ${put === undefined ? 'something' : describe(put)} at version ${formatVersion(version)}, after ${floor.what}`;
  }

  /**
   * A write that began when this put was acknowledged, was acknowledged itself, and is covered up by the put all the same.
   * A put may be stored with a higher version than it was acknowledged with: a client that hears nothing sends it again to
   * another node, and both may be at it at the same time. But it must not come back over what was written later.
   */
  private buriedBy(put: Write, found: Version): Write | undefined {
    if (put.version === undefined || compareVersions(found, put.version) <= 0) return undefined;
    return this.writes.find(
      ({ version, consistency, startedMs }) =>
        consistency !== 'ONE' &&
        startedMs > put.endedMs &&
        version !== undefined &&
        compareVersions(version, found) < 0,
    );
  }

  private acknowledgedAt(...consistencies: readonly AskedFor[]): Floor[] {
    return this.writes.flatMap((write) => {
      const { version, startedMs, endedMs, consistency } = write;
      if (version === undefined || !consistencies.includes(consistency)) return [];
      const what = `${describe(write)} was acknowledged at ${consistency} with version ${formatVersion(version)}`;
      return [{ version, startedMs, endedMs, what }];
    });
  }

  /** What a read at QUORUM found is on a majority from then on. */
  private floorOfRead(read: Read): Floor[] {
    if (read.consistency === 'ONE' || read.found === undefined) return [];
    const { version, value } = read.found;
    const startedMs = this.byValue.get(value)?.startedMs ?? read.startedMs;
    const what = `${describeRead(read)} found version ${formatVersion(version)}`;
    return [{ version, startedMs, endedMs: read.endedMs, what }];
  }
}

/** The highest of the floors that were there at a time. */
class Floors {
  private readonly ends: readonly number[];
  private readonly highest: readonly Floor[];

  constructor(floors: readonly Floor[]) {
    const sorted = floors.toSorted((a, b) => a.endedMs - b.endedMs);
    this.ends = sorted.map(({ endedMs }) => endedMs);
    const highest: Floor[] = [];
    for (const floor of sorted) {
      const last = highest.at(-1);
      highest.push(last !== undefined && compareVersions(last.version, floor.version) > 0 ? last : floor);
    }
    this.highest = highest;
  }

  before(timeMs: number): Floor | undefined {
    let [low, high] = [0, this.ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.ends[middle] ?? 0) < timeMs) low = middle + 1;
      else high = middle;
    }
    return this.highest[low - 1];
  }
}

/** Whether this delete may be why the read finds nothing although the floor was there. */
function mayHide(deletion: Write, read: Read, floor: Floor): boolean {
  if (deletion.startedMs > read.endedMs) return false;
  if (deletion.version !== undefined) return compareVersions(deletion.version, floor.version) >= 0;
  return deletion.endedMs + UNKNOWN_MAY_COME_MS > floor.startedMs;
}

function describe(write: Write): string {
  return `${write.kind} ${write.number} of ${write.key}`;
}

function describeRead(read: Read): string {
  return `a read of ${read.key} at ${read.consistency} from ${read.where}`;
}
