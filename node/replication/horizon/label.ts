import { createHash } from 'node:crypto';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { SAFETY_RULES, type SafetyRules } from '../safety-rules.ts';

/** What a member's Hello says of its volume. */
export interface VolumeNote {
  readonly incarnation: number;
  /** Boot counter of its last start after an unclean end; 0: never. */
  readonly uncleanBoot: number;
}

export type Label =
  | { readonly kind: 'known'; readonly bytes: Buffer }
  /** `member` is in the way, `why` in words that follow its name. */
  | { readonly kind: 'unknown'; readonly member: string; readonly why: string };

const LABEL_BYTES = 16;

/**
 * Whatever has happened to the members that may have lost or brought versions beside the live log: a change of the
 * map, a new incarnation, an unclean start. Two members with the same label know of the same events, so that a
 * comparison begun under it has settled all of them (PROTOCOL 23).
 */
export class Disturbances {
  private readonly self: {
    readonly nodeId: string;
    readonly volume: () => VolumeNote;
    readonly rules?: Pick<SafetyRules, 'freezeAfterUncleanStart'>;
  };
  /** Of other members, heard by this process: what was remembered over a restart could be out of date. */
  private readonly heardOf = new Map<string, VolumeNote>();

  constructor(self: Disturbances['self']) {
    this.self = self;
  }

  /**
   * A stream with the member begins. Everything that came on earlier streams must be synced by then: comparisons look at
   * synced state only.
   */
  heard(nodeId: string, volume: VolumeNote): void {
    this.heardOf.set(nodeId, { incarnation: volume.incarnation, uncleanBoot: volume.uncleanBoot });
  }

  /** The member that minted with this incarnation, if it is one that it has now. */
  memberOf(incarnation: number): string | undefined {
    if (this.self.volume().incarnation === incarnation) return this.self.nodeId;
    for (const [nodeId, volume] of this.heardOf) if (volume.incarnation === incarnation) return nodeId;
    return undefined;
  }

  /**
   * The label of now: unknown until every member has been heard of since this node's start, and until every one that
   * the map does not mark down has announced the map's epoch.
   *
   * @param announced the newest epoch that a member has shown to have.
   */
  label(map: ClusterMap, announced: (nodeId: string) => number | undefined): Label {
    const { rules = SAFETY_RULES } = this.self;
    const hash = createHash('sha256').update(`${map.epoch} ${map.hash}`);
    for (const { nodeId, state } of map.members) {
      const self = nodeId === this.self.nodeId;
      const volume = self ? this.self.volume() : this.heardOf.get(nodeId);
      if (volume === undefined) {
        return { kind: 'unknown', member: nodeId, why: 'has not been heard of since this node started' };
      }
      if (!self && state !== 'down' && (announced(nodeId) ?? 0) < map.epoch) {
        return { kind: 'unknown', member: nodeId, why: `has yet to adopt epoch ${map.epoch} of the map` };
      }
      const unclean = rules.freezeAfterUncleanStart ? volume.uncleanBoot : 0;
      hash.update(`\n${nodeId} ${volume.incarnation} ${unclean}`);
    }
    return { kind: 'known', bytes: hash.digest().subarray(0, LABEL_BYTES) };
  }
}
