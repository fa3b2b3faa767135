import { byteString } from '../../common/bytes.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { movingOwners, replicaSets } from '../../model/replica-sets.ts';
import { compareVersions, formatVersion, type Version } from '../../model/version.ts';
import { decodeRecord } from '../../node/storage/record.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import type { PeerFrame } from '../../proto/gen/peer.ts';
import type { Member } from './member.ts';

const LOOK_MS = 50;

/** What of one log has arrived anywhere. */
interface DeliveredLog {
  /** Key and version, by sequence. */
  readonly entries: Map<number, string>;
  /** Everything up to here was sent, or passed over. */
  through: number;
}

export interface ClusterWatchOptions {
  readonly members: () => readonly Member[];
  readonly map: () => ClusterMap | undefined;
  readonly now: () => number;
  readonly violated: (
    invariant: 'a sequence is of one entry' | 'what is collected is known to all',
    what: string,
    key: string | undefined,
  ) => void;
}

/**
 * Watches what no single member can see: that a sequence of a log means the same entry to all who are ever sent it (PROTOCOL
 * 12), and that nobody collects what a replica has yet to hear of (22).
 */
export class ClusterWatch {
  private readonly options: ClusterWatchOptions;
  private readonly logs = new Map<string, DeliveredLog>();
  /** When a member's horizon is looked at next: it is a lot to look at. */
  private readonly lookAgainMs = new Map<string, number>();

  constructor(options: ClusterWatchOptions) {
    this.options = options;
  }

  /** Entries have arrived at a peer. */
  delivered({ header, body }: PeerFrame, from: string): void {
    if (body?.$case !== 'entries' || header === undefined) return;
    const name = nameOf(from, header.senderIncarnation);
    let log = this.logs.get(name);
    if (log === undefined) this.logs.set(name, (log = { entries: new Map<number, string>(), through: 0 }));
    const { entries, through } = body.value;
    for (const { sequence, key, record } of entries) {
      const entry = describe(key, decodeRecord(key, record).version);
      const before = log.entries.get(sequence) ?? entry;
      if (before !== entry) this.usedTwice(from, sequence, `it was of ${before}, and is of ${entry}`);
      log.entries.set(sequence, entry);
    }
    log.through = Math.max(log.through, through);
  }

  /** A member has appended an entry of its own. */
  appended(nodeId: string, sequence: number, key: Buffer, version: Version): void {
    const { through } = this.logs.get(nameOf(nodeId, version.writer)) ?? { through: 0 };
    if (sequence > through) return;
    const what = `it is of ${describe(key, version)}, and peers were sent everything through ${through} before`;
    this.usedTwice(nodeId, sequence, what);
  }

  /** The volume is another one: until others have told it, it takes itself for what it was. */
  forget(nodeId: string): void {
    for (const log of this.logs.keys()) if (log.startsWith(nameOf(nodeId, ''))) this.logs.delete(log);
  }

  /** A member removes a record: one that it gives away, or one that is collected. */
  removed(nodeId: string, partition: number, key: Buffer, record: StoredRecord | undefined): void {
    const map = this.options.map();
    if (map === undefined || record === undefined || movingOwners(map, partition) !== undefined) return;
    if (!record.tombstone && record.expiresAtMs === undefined) return;
    const { holders } = replicaSets(map, partition);
    if (!holders.includes(nodeId)) return;
    for (const other of this.options.members()) {
      if (other.nodeId === nodeId || !holders.includes(other.nodeId)) continue;
      const held = liveAt(other, map, key);
      if (held === undefined || compareVersions(held.version, record.version) >= 0) continue;
      this.options.violated(
        'what is collected is known to all',
        `${nodeId} collects ${formatVersion(record.version)} of ${key.toString()}, and ${other.nodeId} still has it live at ${formatVersion(held.version)}`,
        byteString(key),
      );
    }
  }

  /**
   * A member's horizon has risen: below it every replica that serves holds whatever is newest, or has collected it, and so
   * holds what this one has.
   */
  horizonsRisen(nodeId: string): void {
    const { members, map: mapNow, now } = this.options;
    const map = mapNow();
    const member = members().find((each) => each.nodeId === nodeId);
    if (map === undefined || member?.running?.replica.map?.epoch !== map.epoch) return;
    if (now() < (this.lookAgainMs.get(nodeId) ?? 0)) return;
    this.lookAgainMs.set(nodeId, now() + LOOK_MS);
    const { horizonMs } = member.running.replica.status();
    for (const partition of map.assignment.keys()) {
      const { holders } = replicaSets(map, partition);
      if (!holders.includes(nodeId) || movingOwners(map, partition) !== undefined) continue;
      const others = members().filter(
        (other) => other !== member && holders.includes(other.nodeId) && serves(other, map),
      );
      for (const { key } of member.volume.rows.partitions.get(partition)?.rows.values() ?? []) {
        const record = member.running.store.latest(key);
        if (record === undefined || record.version.wallMs >= horizonMs) continue;
        for (const other of others) this.checkHeld(member, other, key, record);
      }
    }
  }

  private checkHeld(member: Member, other: Member, key: Buffer, record: StoredRecord): void {
    const held = other.running?.store.latest(key);
    const isKnown =
      held === undefined
        ? record.tombstone || record.expiresAtMs !== undefined
        : compareVersions(held.version, record.version) >= 0;
    if (isKnown) return;
    const has = held === undefined ? 'nothing' : formatVersion(held.version);
    this.options.violated(
      'what is collected is known to all',
      `the horizon of ${member.nodeId} covers ${formatVersion(record.version)} of ${key.toString()}, and ${other.nodeId} has ${has}`,
      byteString(key),
    );
  }

  private usedTwice(nodeId: string, sequence: number, how: string): void {
    this.options.violated(
      'a sequence is of one entry',
      `sequence ${sequence} of ${nodeId} is used twice: ${how}`,
      undefined,
    );
  }
}

function nameOf(nodeId: string, incarnation: number | ''): string {
  return `${nodeId} ${incarnation}`;
}

function describe(key: Buffer, version: Version): string {
  return `${key.toString()} at ${formatVersion(version)}`;
}

/** What a member serves that has the map and everything that the map reads from it; undefined: nothing that would come back. */
function liveAt(member: Member, map: ClusterMap, key: Buffer): StoredRecord | undefined {
  if (!serves(member, map)) return undefined;
  const record = member.running?.store.latest(key);
  return record?.tombstone === true || record?.expiresAtMs !== undefined ? undefined : record;
}

function serves({ running }: Member, map: ClusterMap): boolean {
  return running?.replica.notReadyReason === undefined && running?.replica.map?.epoch === map.epoch;
}
