import { readFile, rename, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  LOCAL_CLUSTER_FILE,
  LOCAL_SECRET_FILE,
  type LocalCluster,
  encodeLocalCluster,
  readLocalCluster,
} from '../../client/local-cluster.ts';
import { KvError } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';
import { SECRET_BYTES, readSharedSecret } from '../../common/shared-secret.ts';
import { writeSynced } from '../../common/synced-files.ts';
import { workerOf } from '../../model/workers.ts';
import type { KVCluster } from '../../model/kvcluster.ts';

/** Path of the cluster's secret, which is made when there is none: mode 0600. */
export async function ensureSecret(
  dataDir: string,
  random: Random,
): Promise<{ path: string; secret: Buffer }> {
  const path = join(dataDir, LOCAL_SECRET_FILE);
  if (!existsSync(path)) {
    // A crash between the two leaves no half-written secret.
    const fresh = `${path}.new`;
    await writeSynced(fresh, random.bytes(SECRET_BYTES), { mode: 0o600 });
    await rename(fresh, path);
  }
  return { path, secret: await readSharedSecret(path) };
}

/**
 * Checks that the directory's cluster, if it has one, is the one to run, and notes the addresses of this run for kvctl.
 *
 * @throws KvError FAILED_PRECONDITION naming what differs.
 */
export async function noteCluster(dataDir: string, cluster: KVCluster, layout: LocalCluster): Promise<void> {
  const path = join(dataDir, LOCAL_CLUSTER_FILE);
  if (existsSync(path)) {
    const held = readLocalCluster(dataDir);
    if (held.namespace !== cluster.namespace || held.name !== cluster.name) {
      throw otherCluster(
        dataDir,
        `${held.namespace}/${held.name}, not ${cluster.namespace}/${cluster.name}`,
        'choose another --data-dir',
      );
    }
  }
  const text = encodeLocalCluster(layout);
  if (existsSync(path) && (await readFile(path, 'utf8')) === text) return;
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

/** What the directory's cluster had when it was last run: names of its nodes, none in a new one, and workers of each. */
export function knownNodes(dataDir: string): { readonly names: readonly string[]; readonly workers: number } {
  if (!existsSync(join(dataDir, LOCAL_CLUSTER_FILE))) return { names: [], workers: 1 };
  const members = readLocalCluster(dataDir).nodes.map(({ nodeId, pod = nodeId }) => ({ nodeId, pod }));
  return {
    names: [...new Set(members.map(({ pod }) => pod))],
    workers: Math.max(...members.map((member) => workerOf(member) + 1)),
  };
}

function otherCluster(dataDir: string, what: string, advice: string): KvError {
  return new KvError('FAILED_PRECONDITION', `${dataDir} holds a cluster of ${what}; ${advice}`);
}
