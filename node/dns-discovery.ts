import { resolveSrv } from 'node:dns/promises';
import { isIP } from 'node:net';
import { fullServiceName } from '../client/members.ts';
import type { ClusterMap } from '../model/cluster-map.ts';
import type { Discovery, PeerAddress } from './replication/transport.ts';

export interface DnsDiscoveryOptions {
  readonly clusterName: string;
  readonly namespace: string;
  /** Such as `cluster.local`. @default from /etc/resolv.conf */
  readonly clusterDomain: string | undefined;
  /** Asks for SRV records. @default the system's resolver */
  readonly resolve?: (name: string) => Promise<readonly { readonly name: string; readonly port: number }[]>;
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
      host: isIP(host) === 0 ? `${host}.${service}` : host,
      port: peerPort,
    }));
  }

  private async candidates(service: string): Promise<readonly PeerAddress[]> {
    const { resolve = resolveSrv } = this.options;
    try {
      const records = await resolve(`_peer._tcp.${service}`);
      // The first label of a pod's name is the pod's name, which is the member's.
      return records.map(({ name, port }) => ({ nodeId: name.split('.')[0] ?? name, host: name, port }));
    } catch (error) {
      if (notYet.has((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    }
  }
}
