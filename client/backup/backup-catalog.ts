import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type BackupManifest, MANIFEST_NAME, decodeManifest } from '../../common/backup-format.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import { type ClusterKey, clusterDirectory, isBackupId } from './backup-path.ts';
import { namesIn } from './backup-writer.ts';

/** A backup found under a target. */
export interface BackupEntry {
  readonly id: string;
  readonly cluster: ClusterKey;
  readonly directory: string;
  /** Undefined when it cannot be read. */
  readonly manifest: BackupManifest | undefined;
  /** Why not, for a person. */
  readonly problem: string | undefined;
}

/**
 * Every backup under `<target>/<namespace>/<name>/<clusterId>`, by cluster, then oldest first; unfinished ones are left
 * out.
 *
 * @throws KvError FAILED_PRECONDITION when the target cannot be read, as when its name is mistyped: that is not the same
 * as having no backups.
 */
export async function listBackups(target: string): Promise<readonly BackupEntry[]> {
  await requireDirectory(target);
  const entries: BackupEntry[] = [];
  for (const namespace of await namesIn(target)) {
    for (const name of await namesIn(join(target, namespace))) {
      for (const clusterId of await namesIn(join(target, namespace, name))) {
        const cluster = { namespace, name, clusterId };
        const directory = clusterDirectory(target, cluster);
        const ids = (await namesIn(directory)).filter(isBackupId);
        for (const id of ids) entries.push(await readEntry(id, cluster, join(directory, id)));
      }
    }
  }
  return entries;
}

async function requireDirectory(target: string): Promise<void> {
  try {
    await readdir(target);
  } catch (error) {
    const message = `cannot read the directory of backups: ${messageOf(error)}`;
    throw new KvError('FAILED_PRECONDITION', message, { cause: error });
  }
}

async function readEntry(id: string, cluster: ClusterKey, directory: string): Promise<BackupEntry> {
  try {
    const manifest = decodeManifest(await readFile(join(directory, MANIFEST_NAME), 'utf8'));
    return { id, cluster, directory, manifest, problem: undefined };
  } catch (error) {
    return { id, cluster, directory, manifest: undefined, problem: `${MANIFEST_NAME}: ${messageOf(error)}` };
  }
}
