import type { ClusterMap } from '../model/cluster-map.ts';
import type { StaticPeer } from './config.ts';
import type { Discovery, PeerAddress } from './replication/transport.ts';

/** Peers from a fixed list. With a map, members that the list does not name are looked for where the map says. */
export class StaticDiscovery implements Discovery {
  private readonly peers: readonly StaticPeer[];

  constructor(peers: readonly StaticPeer[]) {
    this.peers = peers;
  }

  locate(map: ClusterMap | undefined): Promise<readonly PeerAddress[]> {
    if (map === undefined) return Promise.resolve(this.peers);
    const listed = new Map(this.peers.map((peer) => [peer.nodeId, peer]));
    return Promise.resolve(
      map.members.map(({ nodeId, host, peerPort }) => listed.get(nodeId) ?? { nodeId, host, port: peerPort }),
    );
  }
}
