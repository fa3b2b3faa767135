import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { KvError, messageOf } from '../common/errors.ts';
import type { Member } from '../model/cluster-map.ts';
import { MAX_WORKERS, workerOf } from '../model/workers.ts';

/** Default data directory of the one-machine runner. */
export const LOCAL_DATA_DIR = '.kvcluster';
/** Where the runner keeps the cluster's secret, within its data directory. */
export const LOCAL_SECRET_FILE = 'internal.key';
/** Where the runner says what it runs, within its data directory. */
export const LOCAL_CLUSTER_FILE = 'cluster.json';

/** Which nodes a person wants, within the data directory; the runner sees to it. */
export const LOCAL_WANTED_FILE = 'wanted.json';

const address = z.string().regex(/^\S+:\d+$/);
const schema = z.strictObject({
  format: z.literal(1),
  namespace: z.string(),
  name: z.string(),
  nodes: z
    .array(
      z.strictObject({
        nodeId: z.string(),
        /** The node that it is a worker of, where it has another name. */
        pod: z.string().optional(),
        client: address,
        peer: address,
        http: address,
      }),
    )
    .min(1),
});

/** What the one-machine runner runs: a node's addresses are `host:port`. */
export type LocalCluster = z.infer<typeof schema>;

/** The text of the file. */
export function encodeLocalCluster(cluster: LocalCluster): string {
  return `${JSON.stringify(cluster, undefined, 2)}\n`;
}

/**
 * Reads what the runner of a data directory runs.
 *
 * @throws KvError FAILED_PRECONDITION when there is none or the file is damaged.
 */
export function readLocalCluster(dataDir: string): LocalCluster {
  const path = join(dataDir, LOCAL_CLUSTER_FILE);
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    throw new KvError(
      'FAILED_PRECONDITION',
      `no local cluster in ${dataDir} (${why}); start one with \`npm start\``,
      {
        cause: error,
      },
    );
  }
}

const wantedSchema = z.strictObject({
  format: z.literal(1),
  nodes: z.array(z.string()).min(1),
  replicationFactor: z.int().min(1).max(7),
  workersPerPod: z.int().min(1).max(MAX_WORKERS).default(1),
});

/** What a local cluster shall be: what `replicas`, `replicationFactor` and `workersPerPod` are on Kubernetes. */
export interface WantedCluster {
  /** Names of the nodes, `<cluster>-<ordinal>`. */
  readonly nodes: readonly string[];
  readonly replicationFactor: number;
  /** Members of each node. */
  readonly workersPerPod: number;
}

/** Whether a member is one of those that are wanted. */
export function isWantedMember(wanted: WantedCluster, member: Pick<Member, 'nodeId' | 'pod'>): boolean {
  return wanted.nodes.includes(member.pod) && workerOf(member) < wanted.workersPerPod;
}

/**
 * What is wanted of the cluster in a data directory; undefined when nobody has said anything but its manifest.
 *
 * @throws KvError FAILED_PRECONDITION when the file is damaged.
 */
export function readWantedCluster(dataDir: string): WantedCluster | undefined {
  const path = join(dataDir, LOCAL_WANTED_FILE);
  if (!existsSync(path)) return undefined;
  try {
    return wantedSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    throw new KvError('FAILED_PRECONDITION', `${path} is damaged (${why}); remove it`, { cause: error });
  }
}

/** Says what is wanted of the cluster in a data directory. */
export function writeWantedCluster(dataDir: string, wanted: WantedCluster): void {
  const path = join(dataDir, LOCAL_WANTED_FILE);
  writeFileSync(`${path}.new`, `${JSON.stringify({ format: 1, ...wanted }, undefined, 2)}\n`);
  renameSync(`${path}.new`, path);
}
