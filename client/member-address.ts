import { isIP } from 'node:net';
import type { ClusterMap, Member } from '../model/cluster-map.ts';

/**
 * Where a member's client port is, as `host:port`. The map names pods by their label within the headless Service, which a
 * pod's resolver completes with the cluster's domain; elsewhere it has addresses.
 */
export function memberAddress({ host, clientPort }: Member, { namespace, name }: ClusterMap): string {
  if (isIP(host) === 6) return `[${host}]:${clientPort}`;
  if (isIP(host) === 4 || host === 'localhost') return `${host}:${clientPort}`;
  return `${host}.${name}-headless.${namespace}.svc:${clientPort}`;
}
