import { byteString } from '../../common/bytes.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { movingOwners, replicaSets } from '../../model/replica-sets.ts';
import { compareVersions, formatVersion } from '../../model/version.ts';
import { decodeRecord } from '../../node/storage/record.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import type { PeerFrame } from '../../proto/gen/peer.ts';
import type { Member } from './member.ts';

export interface ClusterWatchOptions {
  readonly members: () => readonly Member[];
  readonly map: () => ClusterMap | undefined;
  readonly violated: (
    invariant: 'a sequence is of one entry' | 'what is collected is known to all',
    what: string,
    key: string,
  ) => void;
}

/**
 * Watches what no single member can see: that a sequence of a log means the same entry to all who are ever sent it (PROTOCOL
 * 12), and that nobody collects what a replica has yet to hear of (22).
 */
export class ClusterWatch {
  private readonly options: ClusterWatchOptions;
  /** Key and version of each entry that was ever delivered, by its log and its sequence there. */
  private readonly logs = new Map<string, Map<number, string>>();

  constructor(options: ClusterWatchOptions) {
    this.options = options;
  }

  delivered({ header, body }: PeerFrame, from: string): void {
    if (body?.$case !== 'entries' || header === undefined) return;
    const log = `${from} ${header.senderIncarnation}`;
    let known = this.logs.get(log);
    if (known === undefined) this.logs.set(log, (known = new Map<number, string>()));
    for (const { sequence, key, record, written } of body.value.entries) {
      const version = written ?? decodeRecord(key, record).version;
      const entry = `${key.toString()} at ${formatVersion(version)}`;
      const before = known.get(sequence);
      known.set(sequence, entry);
      if (before === undefined || before === entry) continue;
      const what = `sequence ${sequence} of ${from} is of ${before}, and of ${entry}`;
      this.options.violated('a sequence is of one entry', what, byteString(key));
    }
  }

  /** The volume is another one: until others have told it, it takes itself for what it was. */
  forget(nodeId: string): void {
    for (const log of this.logs.keys()) if (log.startsWith(`${nodeId} `)) this.logs.delete(log);
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
}

/** What a member serves that has the map and everything that the map reads from it; undefined: nothing that would come back. */
function liveAt({ running }: Member, map: ClusterMap, key: Buffer): StoredRecord | undefined {
  if (running === undefined || running.replica.notReadyReason !== undefined) return undefined;
  if (running.replica.map?.epoch !== map.epoch) return undefined;
  const record = running.store.latest(key);
  return record?.tombstone === true || record?.expiresAtMs !== undefined ? undefined : record;
}
