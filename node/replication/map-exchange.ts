import { mapFromProto, mapToProto } from '../../client/cluster-map-codec.ts';
import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { ClusterMap as WireMap } from '../../proto/gen/kvstore.ts';
import type { MapHolder } from '../cluster/map-holder.ts';
import type { PeerLink } from './peer-link.ts';

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

  /** Takes a peer's map over when it is newer; never rejects. */
  async take(wire: WireMap | undefined, from: string): Promise<void> {
    if (wire === undefined) return;
    try {
      const adoption = await this.maps.adopt(mapFromProto(wire));
      if (adoption.kind === 'adopted' || adoption.kind === 'same' || adoption.kind === 'older') return;
      this.logger.warn(
        { peer: from, outcome: adoption.kind, reason: adoption.message },
        "a peer's map was not taken over",
      );
    } catch (error) {
      this.logger.warn({ peer: from, error: messageOf(error) }, "a peer's map could not be taken over");
    }
  }
}
