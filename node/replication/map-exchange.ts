import { mapFromProto, mapToProto } from '../../client/cluster-map-codec.ts';
import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import type { ClusterMap as WireMap } from '../../proto/gen/kvstore.ts';
import { Refusal_Reason } from '../../proto/gen/peer.ts';
import type { MapHolder } from '../cluster/map-holder.ts';
import type { PeerLink } from './peer-link.ts';

/** Why a map was not taken over, to be told to who sent it. */
export interface MapProblem {
  readonly reason: Refusal_Reason;
  readonly message: string;
}

/** Passes maps on between peers: whoever has the newer one sends it, and it is taken from anybody. */
export class MapExchange {
  private readonly maps: MapHolder;
  private readonly logger: Logger;
  /** Epoch of the map sent on a link last. */
  private readonly sent = new WeakMap<PeerLink, number>();

  constructor(maps: MapHolder, logger: Logger) {
    this.maps = maps;
    this.logger = logger;
  }

  /** Sends this node's map to a peer whose epoch is older or not known, once per epoch and link. */
  share(link: PeerLink, peerEpoch = -1): void {
    const map = this.maps.current;
    if (map === undefined || peerEpoch >= map.epoch || (this.sent.get(link) ?? 0) >= map.epoch) return;
    this.sent.set(link, map.epoch);
    link.send({ $case: 'map', value: { map: mapToProto(map) } });
  }

  /**
   * Takes a peer's map over when it is newer; never rejects. Answers why the map cannot be one of this cluster, if so: who
   * sends it does not belong here, or is broken.
   */
  async take(wire: WireMap | undefined, from: string): Promise<MapProblem | undefined> {
    if (wire === undefined) return undefined;
    const problem = await this.offer(wire);
    if (problem !== undefined) {
      this.logger.warn({ peer: from, reason: problem.message }, "a peer's map was not taken over");
    }
    return problem;
  }

  private async offer(wire: WireMap): Promise<MapProblem | undefined> {
    let map: ClusterMap;
    try {
      map = mapFromProto(wire);
    } catch (error) {
      return { reason: Refusal_Reason.BAD_FRAME, message: messageOf(error) };
    }
    try {
      const adoption = await this.maps.adopt(map);
      if (adoption.kind === 'adopted' || adoption.kind === 'same' || adoption.kind === 'older')
        return undefined;
      return { reason: REASONS[adoption.kind], message: adoption.message };
    } catch (error) {
      // Not the sender's fault: the store has failed, or is closed.
      this.logger.warn({ error: messageOf(error) }, "a peer's map could not be taken over");
      return undefined;
    }
  }
}

const REASONS = {
  conflict: Refusal_Reason.MAP_CONFLICT,
  foreign: Refusal_Reason.WRONG_CLUSTER,
  refused: Refusal_Reason.BAD_FRAME,
} as const;
