import { byteString } from '../../common/bytes.ts';
import { compareVersions, formatVersion, type Version } from '../../model/version.ts';
import type { LiveValue, ScannedRecord } from '../../node/replication/engine.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import type { Known, Operation } from './history.ts';
import { type ClockBounds, hasExpired, KeyHistory, newer, NOTHING_KNOWN } from './key-history.ts';
import { belongsTo, operationIdOf } from './values.ts';

/** What must hold whatever happens; each has its sentence in docs. */
export type Invariant =
  | 'no acknowledged write is lost'
  | 'replicas converge'
  | 'a later write has the higher version'
  | 'versions never go down'
  | 'reads never go back'
  | 'every answer is to its own request'
  | 'nothing is absent that is there'
  | 'what was refused was not applied'
  | 'a version is of one write'
  | 'a write is applied once'
  | 'what has expired is not answered'
  | 'a sequence is of one entry'
  | 'what is collected is known to all'
  | 'nodes do not stop by themselves'
  | 'the cluster serves when nothing is wrong';

export interface Violation {
  readonly invariant: Invariant;
  readonly what: string;
  readonly key: string | undefined;
  readonly atMs: number;
}

export interface CheckerOptions {
  readonly now: () => number;
  readonly clocks: () => ClockBounds;
  /** The member whose incarnation this is, while it is known. */
  readonly memberOf: (incarnation: number) => string | undefined;
}

/** A listing under way: what was known of every key when it began. */
export interface ListingBegun {
  readonly startMs: number;
  readonly floors: ReadonlyMap<string, Known>;
}

/** Follows every operation of every client, and says what must not be. */
export class Checker {
  readonly violations: Violation[] = [];
  readonly operations: Operation[] = [];
  private readonly options: CheckerOptions;
  private readonly keys = new Map<string, KeyHistory>();
  /** Newest version at which each put was applied by any store. */
  private readonly applied = new Map<number, Version>();
  /** Writes with an id, by requestName. */
  /** The first read of a write that was not at ONE, by the write's number. */
  private readonly readAtQuorum = new Map<number, Operation>();
  private readonly requests = new Map<string, Operation>();
  /** How often a volume was lost or rolled back. */
  private losses = 0;

  constructor(options: CheckerOptions) {
    this.options = options;
  }

  violated(invariant: Invariant, what: string, key?: string): void {
    this.violations.push({ invariant, what, key, atMs: this.options.now() });
  }

  historyOf(key: string): KeyHistory {
    let history = this.keys.get(key);
    if (history === undefined) this.keys.set(key, (history = new KeyHistory(key)));
    return history;
  }

  /** The value of a put has been applied by some store. */
  noteApplied(operationId: number, version: Version): void {
    const before = this.applied.get(operationId);
    if (before === undefined || compareVersions(version, before) > 0) this.applied.set(operationId, version);
  }

  /** The write is sent with an id. */
  noteRequest(request: string, operation: Operation): void {
    this.requests.set(request, operation);
  }

  /** A coordinator that could have asked others before has given the write a version. */
  noteMinted(request: string, version: Version): void {
    const operation = this.requests.get(request);
    // One replica alone cannot know what another one has acknowledged or shown.
    if (operation === undefined || operation.consistency === 'ONE') return;
    const read = this.readAtQuorum.get(operation.id);
    if (read !== undefined) {
      this.violated(
        'a write is applied once',
        `${name(operation)} was read by ${name(read)}, and later minted at ${formatVersion(version)}`,
        operation.key,
      );
    }
    if (operation.outcome !== 'ok') return;
    // It was lost in a power cut and is given back: that is no other version.
    if (operation.version !== undefined && compareVersions(operation.version, version) === 0) return;
    this.violated(
      'a write is applied once',
      `${name(operation)} was acknowledged at ${formatVersion(operation.version ?? version)}, and later minted at ${formatVersion(version)}`,
      operation.key,
    );
  }

  /** A member's volume is gone, or is an older one: what it alone had acknowledged may be lost. */
  noteLoss(nodeId: string): void {
    this.losses += 1;
    for (const history of this.keys.values()) history.oneFloors.delete(nodeId);
  }

  begin(
    operation: Pick<Operation, 'client' | 'kind' | 'key' | 'node' | 'consistency' | 'ttlMs' | 'minVersion'>,
  ): Operation {
    const history = this.historyOf(operation.key);
    const begun: Operation = {
      ...operation,
      id: this.operations.length + 1,
      startMs: this.options.now(),
      endMs: Infinity,
      outcome: 'open',
      version: undefined,
      attempts: 1,
      served: undefined,
      doneBefore: undefined,
      readFrom: undefined,
      // A replica that was rolled back and does not know it yet may answer with what it has.
      floor: this.floorOf(operation, history, this.losses === 0),
      floorAfterLoss: this.floorOf(operation, history, false),
      lossesBefore: this.losses,
      detail: '',
    };
    this.operations.push(begun);
    if (begun.kind !== 'get') history.writes.push(begun);
    return begun;
  }

  failed(operation: Operation, outcome: 'refused' | 'unknown', detail: string): void {
    operation.endMs = this.options.now();
    operation.outcome = outcome;
    operation.detail = detail;
  }

  written(operation: Operation, version: Version): void {
    const history = this.historyOf(operation.key);
    const { consistency, floor, id } = operation;
    operation.endMs = this.options.now();
    operation.outcome = 'ok';
    operation.version = version;
    const taken = history.claim(version, id);
    if (taken !== undefined) this.violated('a version is of one write', taken, operation.key);
    if (consistency !== 'ONE' && compareVersions(version, floor.version) <= 0) {
      this.violated(
        'a later write has the higher version',
        `${name(operation)} was acknowledged at ${formatVersion(version)}, and ${describe(floor)} was before it began`,
        operation.key,
      );
    }
    const { doneBefore } = operation;
    if (consistency !== 'ONE' && doneBefore !== undefined && compareVersions(version, doneBefore) !== 0) {
      this.violated(
        'a write is applied once',
        `${name(operation)} was done at ${formatVersion(doneBefore)}, and sent again at ${formatVersion(version)}`,
        operation.key,
      );
    }
    const known = { version, write: operation };
    if (consistency === 'ONE') {
      // The node that was asked may have sent it on to the one that wrote it.
      const holder = this.options.memberOf(version.writer);
      if (holder === undefined) return;
      const before = history.oneFloors.get(holder) ?? NOTHING_KNOWN;
      history.oneFloors.set(holder, newer(before, known));
      return;
    }
    history.quorumFloor = newer(history.quorumFloor, known);
    if (consistency === 'ALL') history.allFloor = newer(history.allFloor, known);
  }

  read(operation: Operation, found: LiveValue | undefined): void {
    const history = this.historyOf(operation.key);
    operation.endMs = this.options.now();
    operation.outcome = 'ok';
    operation.version = found?.version;
    const floor = this.losses === operation.lossesBefore ? operation.floor : operation.floorAfterLoss;
    if (found === undefined) {
      if (history.mayBeAbsent(floor, operation.endMs, this.options.clocks())) return;
      this.violated(
        'nothing is absent that is there',
        `${name(operation)} answered "absent" after ${describe(floor)}`,
        operation.key,
      );
      return;
    }
    const write = this.checkValue(operation, found);
    if (compareVersions(found.version, floor.version) < 0) {
      this.violated(
        'reads never go back',
        `${name(operation)} answered ${formatVersion(found.version)} after ${describe(floor)}`,
        operation.key,
      );
    }
    if (operation.consistency === 'ONE') return;
    history.quorumFloor = newer(history.quorumFloor, { version: found.version, write });
    if (write !== undefined && !this.readAtQuorum.has(write.id)) this.readAtQuorum.set(write.id, operation);
  }

  /** The newest version of each key that a majority has acknowledged, of those that are never collected. */
  acknowledged(): ReadonlyMap<string, Version> {
    const floors = [...this.keys].flatMap(
      ([
        key,
        {
          quorumFloor: { version, write },
        },
      ]) => (write?.kind === 'put' && write.ttlMs === undefined ? [[key, version] as const] : []),
    );
    return new Map(floors);
  }

  beginListing(): ListingBegun {
    const floors = new Map([...this.keys].map(([key, { quorumFloor }]) => [key, quorumFloor]));
    return { startMs: this.options.now(), floors };
  }

  /** A QUORUM page of everything after `startAfter`. */
  listed(begun: ListingBegun, startAfter: string, page: { keys: readonly string[]; more: boolean }): void {
    const { keys, more } = page;
    const untilMs = this.options.now();
    const clocks = this.options.clocks();
    const listed = new Set(keys);
    const end = more ? keys.at(-1) : undefined;
    keys.forEach((key, index) => {
      const before = index === 0 ? startAfter : (keys[index - 1] ?? '');
      if (key <= before)
        this.violated('every answer is to its own request', `a page lists ${key} after ${before}`, key);
      const history = this.keys.get(key);
      if (history?.mayBePresent(begun.floors.get(key) ?? NOTHING_KNOWN, untilMs) === true) return;
      this.violated('reads never go back', `a page lists ${key}, which was deleted before`, key);
    });
    for (const [key, floor] of begun.floors) {
      if (key <= startAfter || (end !== undefined && key > end) || listed.has(key)) continue;
      if (this.historyOf(key).mayBeAbsent(floor, untilMs, clocks)) continue;
      this.violated(
        'nothing is absent that is there',
        `a page does not list ${key} after ${describe(floor)}`,
        key,
      );
    }
  }

  /** A QUORUM scan of everything. */
  scanned(begun: ListingBegun, node: string, records: readonly ScannedRecord[]): void {
    const reader = `a scan at ${node}`;
    const untilMs = this.options.now();
    const found = new Set<string>();
    for (const { key: bytes, value, version } of records) {
      const key = byteString(bytes);
      found.add(key);
      this.checkContent(key, value, version, reader);
      const floor = begun.floors.get(key) ?? NOTHING_KNOWN;
      if (compareVersions(version, floor.version) >= 0) continue;
      this.violated(
        'reads never go back',
        `${reader} answered ${formatVersion(version)} of ${key} after ${describe(floor)}`,
        key,
      );
    }
    for (const [key, floor] of begun.floors) {
      if (found.has(key) || this.historyOf(key).mayBeAbsent(floor, untilMs, this.options.clocks())) continue;
      this.violated(
        'nothing is absent that is there',
        `${reader} did not find ${key} after ${describe(floor)}`,
        key,
      );
    }
  }

  /** In the end, when every replica holds the same: `held` is what one of them has for each key. */
  settled(held: ReadonlyMap<string, StoredRecord>): void {
    for (const [key, history] of this.keys) {
      const record = held.get(key);
      const floor = history.anyFloor;
      const lost =
        record === undefined
          ? !history.mayBeAbsent(floor, this.options.now(), this.options.clocks())
          : compareVersions(record.version, floor.version) < 0;
      if (lost) {
        this.violated(
          'no acknowledged write is lost',
          `${key} ends ${record === undefined ? 'absent' : `at ${formatVersion(record.version)}`}, and ${describe(floor)}`,
          key,
        );
      }
      if (record === undefined) continue;
      const writer = history.writes.find(
        ({ version }) => version !== undefined && compareVersions(version, record.version) === 0,
      );
      if (writer !== undefined && (writer.kind === 'delete') !== record.tombstone) {
        this.violated(
          'a version is of one write',
          `${key} ends as something else than ${name(writer)} wrote`,
          key,
        );
      }
      if (!record.tombstone) this.checkContent(key, record.value, record.version, `${key} in the end`);
    }
    for (const key of held.keys()) {
      if (!this.keys.has(key))
        this.violated('every answer is to its own request', `nobody ever wrote ${key}`, key);
    }
    for (const operation of this.operations) {
      const newest = this.applied.get(operation.id);
      if (operation.kind !== 'put' || newest === undefined) continue;
      // A retry that was not found on a majority is a new write, beside what the first attempt may have left on a minority.
      const once = operation.version !== undefined && operation.attempts === 1;
      if (once && operation.version !== undefined && compareVersions(newest, operation.version) > 0) {
        this.violated(
          'a write is applied once',
          `${name(operation)} was acknowledged at ${formatVersion(operation.version)} and applied at ${formatVersion(newest)}`,
          operation.key,
        );
      }
      if (operation.outcome === 'refused')
        this.violated(
          'what was refused was not applied',
          `${name(operation)} was refused (${operation.detail}) and has been applied`,
          operation.key,
        );
    }
  }

  private floorOf(
    { kind, consistency, minVersion }: Pick<Operation, 'kind' | 'consistency' | 'minVersion'>,
    history: KeyHistory,
    nothingLost: boolean,
  ): Known {
    if (kind !== 'get') return history.quorumFloor;
    const known = {
      ONE: nothingLost ? history.allFloor : NOTHING_KNOWN,
      QUORUM: history.quorumFloor,
      ALL: nothingLost ? history.anyFloor : history.quorumFloor,
    }[consistency];
    if (minVersion === undefined) return known;
    const write = history.writes.find(
      ({ version }) => version !== undefined && compareVersions(version, minVersion) === 0,
    );
    return newer(known, { version: minVersion, write });
  }

  /** The write that a value read is of. */
  private checkValue(operation: Operation, { value, version }: LiveValue): Operation | undefined {
    const write = this.checkContent(operation.key, value, version, name(operation));
    operation.readFrom = write?.id;
    if (write !== undefined && hasExpired(write, operation.startMs, this.options.clocks())) {
      this.violated(
        'what has expired is not answered',
        `${name(operation)} read ${name(write)}`,
        operation.key,
      );
    }
    return write;
  }

  private checkContent(key: string, value: Buffer, version: Version, reader: string): Operation | undefined {
    const id = operationIdOf(value);
    const write = this.operations[id - 1];
    if (write?.kind !== 'put' || write.key !== key || !belongsTo(value, key)) {
      this.violated(
        'every answer is to its own request',
        `${reader} has a value that nobody wrote to ${key}`,
        key,
      );
      return undefined;
    }
    if (write.outcome === 'refused') {
      this.violated(
        'what was refused was not applied',
        `${reader} has the value of ${name(write)}, which was refused: ${write.detail}`,
        key,
      );
    }
    if (write.attempts === 1 && write.version !== undefined && compareVersions(version, write.version) > 0) {
      this.violated(
        'a version is of one write',
        `${reader} has the value of ${name(write)} at ${formatVersion(version)}, acknowledged at ${formatVersion(write.version)}`,
        key,
      );
    }
    const taken = this.historyOf(key).claim(version, id);
    if (taken !== undefined) this.violated('a version is of one write', taken, key);
    return write;
  }
}

function name({ id, kind, consistency, node }: Operation): string {
  return `${kind} #${id} (${consistency} at ${node})`;
}

function describe({ version, write }: Known): string {
  const what = formatVersion(version);
  return write === undefined ? `${what} was known` : `${name(write)} at ${what} was known`;
}
