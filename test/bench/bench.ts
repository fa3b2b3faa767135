import type { Pace } from './cells/measure.ts';
import type { Results } from './results.ts';

/** What every part of a run is given. */
export interface Bench {
  /** Directory of the compiled nodes. */
  readonly code: string;
  /** For everything that is stored. */
  readonly scratch: string;
  readonly results: Results;
  readonly log: (line: string) => void;
  /** All cells, and not the goal cells only. */
  readonly full: boolean;
  readonly pace: Pace;
  /** Keys that are loaded for the cells of one data set. */
  readonly keys: number;
  /** Whether there is an etcd to compare with. */
  readonly hasEtcd: boolean;
  /** Paths of load generators, undefined for those that are not there. */
  readonly etcdTool: string | undefined;
  readonly ghz: string | undefined;
}

/** Names of contenders; tables, goals and plots find them by these. */
export const CONTENDERS = {
  kv3: 'KVCluster, 3 nodes',
  kv1: 'KVCluster, 1 node',
  etcd3Node: 'etcd, 3 nodes, from Node',
  etcd3Tool: 'etcd, 3 nodes, own tool',
  etcd1Node: 'etcd, 1 node, from Node',
  etcd1Tool: 'etcd, 1 node, own tool',
  kv3Ghz: 'KVCluster, 3 nodes, ghz',
  etcd3Ghz: 'etcd, 3 nodes, ghz',
  kv1Put: 'KVCluster, 1 node, ghz Put',
  kv1Get: 'KVCluster, 1 node, ghz Get',
  echoGhz: 'grpc-js echo, ghz',
  echoNode: 'grpc-js echo, from Node',
  redis: 'Redis, own tool',
  redisPipelined: 'Redis, own tool, pipelines of 16',
  lmdb: 'lmdb alone, in process',
} as const;

export const IN_FLIGHT_OF_GOALS = [1, 100, 1000] as const;
