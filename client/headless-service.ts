import { resolveSrv } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';

/** A pod of the headless Service, Ready or not. */
export interface ServiceMember {
  /** The pod's name, which is the member's. */
  readonly nodeId: string;
  /** Full DNS name. */
  readonly host: string;
  /** Peer port. */
  readonly port: number;
}

/** Asks for the SRV records of a full name. */
export type ResolveSrv = (
  name: string,
) => Promise<readonly { readonly name: string; readonly port: number }[]>;

/** Name of the headless Service's port in its SRV records. */
const PEER_PORT_NAME = '_peer._tcp';

/**
 * The full name of a Service given as `name.namespace`; a name that ends in a dot is full already. The resolver of SRV
 * records ignores the search list (nodejs/node #17850), so the cluster's domain is taken from it here.
 *
 * @param clusterDomain such as `cluster.local`. @default from /etc/resolv.conf
 */
export async function fullServiceName(service: string, clusterDomain?: string): Promise<string> {
  if (service.endsWith('.')) return service.slice(0, -1);
  if (/\.svc\./.test(service)) return service;
  const domain = clusterDomain ?? clusterDomainOf(await readFile('/etc/resolv.conf', 'utf8'));
  return `${service}.svc.${domain}`;
}

/** The cluster's domain by the search list of a pod, `cluster.local` when it has none. */
export function clusterDomainOf(resolvConf: string): string {
  const searches = [...resolvConf.matchAll(/^search\s+(.*)$/gm)].flatMap(([, list = '']) =>
    list.trim().split(/\s+/),
  );
  const own = searches.find((entry) => entry.startsWith('svc.'));
  return own === undefined ? 'cluster.local' : own.slice('svc.'.length).replace(/\.$/, '');
}

/**
 * The pods that a headless Service names, before any map does.
 *
 * @param resolve @default the system's resolver
 * @throws the resolver's error, ENOTFOUND or ENODATA while there are none.
 */
export async function membersOfService(
  service: string,
  resolve: ResolveSrv = resolveSrv,
): Promise<readonly ServiceMember[]> {
  const records = await resolve(`${PEER_PORT_NAME}.${service}`);
  return records.map(({ name, port }) => ({ nodeId: name.split('.')[0] ?? name, host: name, port }));
}

/** Where a map's host is: a name stands within the Service, an address for itself. */
export function hostInService(host: string, service: string): string {
  return isIP(host) === 0 ? `${host}.${service}` : host;
}
