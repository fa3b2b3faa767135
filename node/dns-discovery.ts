import {
  type ResolveSrv,
  fullServiceName,
  hostInService,
  membersOfService,
} from '../client/headless-service.ts';
import type { ClusterMap } from '../model/cluster-map.ts';
import type { Discovery, PeerAddress } from './replication/transport.ts';

export interface DnsDiscoveryOptions {
  readonly clusterName: string;
  readonly namespace: string;
  /** Such as `cluster.local`. @default from /etc/resolv.conf */
  readonly clusterDomain: string | undefined;
  /** Asks for SRV records. @default the system's resolver */
  readonly resolve?: ResolveSrv;
}

/** Answers that mean "no such name yet": the Service, or the first pod behind it, is still to come. */
const notYet = new Set(['ENOTFOUND', 'ENODATA']);

/**
 * Peers by the headless Service `<cluster>-headless`: its SRV records name every pod, Ready or not, before there is a
 * map; with a map, members are where the map says, and a name that does not resolve yet is dialled again later.
 */
export class DnsDiscovery implements Discovery {
  private readonly options: DnsDiscoveryOptions;
  private service: Promise<string> | undefined;

  constructor(options: DnsDiscoveryOptions) {
    this.options = options;
  }

  async locate(map: ClusterMap | undefined): Promise<readonly PeerAddress[]> {
    const { clusterName, namespace, clusterDomain } = this.options;
    this.service ??= fullServiceName(`${clusterName}-headless.${namespace}`, clusterDomain);
    const service = await this.service;
    if (map === undefined) return this.candidates(service);
    return map.members.map(({ nodeId, host, peerPort }) => ({
      nodeId,
      host: hostInService(host, service),
      port: peerPort,
    }));
  }

  private async candidates(service: string): Promise<readonly PeerAddress[]> {
    try {
      return await membersOfService(service, this.options.resolve);
    } catch (error) {
      if (notYet.has((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    }
  }
}
