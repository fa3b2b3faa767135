import { join } from 'node:path';
import { KvError } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';

/** Which cluster's backups; the id keeps apart clusters that had the same name one after another. */
export interface ClusterKey {
  readonly namespace: string;
  readonly name: string;
  readonly clusterId: string;
}

/** Backups in the making; a crash leaves one behind. */
export const PARTIAL_PREFIX = '.partial-';

/** Directory of a cluster's backups: `<target>/<namespace>/<name>/<clusterId>`. */
export function clusterDirectory(target: string, cluster: ClusterKey): string {
  return join(target, cluster.namespace, cluster.name, cluster.clusterId);
}

/** A new backup's id: its start in UTC, then four random digits; ids sort by time. */
export function newBackupId(startedAtMs: number, random: Random): string {
  const stamp = new Date(startedAtMs)
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(/[-:]/g, '');
  return `${stamp.toLowerCase()}-${random.bytes(2).toString('hex')}`;
}

/** Whether a directory's name is that of a finished backup. */
export function isBackupId(name: string): boolean {
  return /^\d{8}t\d{6}z-[0-9a-f]{4}$/.test(name);
}

/**
 * Checks an id given by a person before it becomes part of a path.
 *
 * @throws KvError INVALID_ARGUMENT.
 */
export function requireBackupId(id: string): string {
  if (isBackupId(id)) return id;
  throw new KvError(
    'INVALID_ARGUMENT',
    `"${id}" is not the id of a backup; \`kvctl backup list\` shows them`,
  );
}
