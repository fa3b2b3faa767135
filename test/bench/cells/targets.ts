import { join } from 'node:path';
import type { GhzTarget } from '../tools/ghz.ts';

const benchDirectory = join(import.meta.dirname, '..');
const kvProto = [join(benchDirectory, '../../proto'), 'kvstore.proto'] as const;
const etcdProto = [benchDirectory, 'etcd.proto'] as const;
const echoProto = [benchDirectory, 'echo.proto'] as const;

/** The unary methods that the generic client calls, on one endpoint each. */
export const ghzTargets = {
  kvPut: (endpoint: string): GhzTarget => ({
    endpoint,
    proto: kvProto,
    method: 'kvstore.KeyValueStore/Put',
    request: (key, value) => ({ key, value }),
  }),
  kvGet: (endpoint: string): GhzTarget => ({
    endpoint,
    proto: kvProto,
    method: 'kvstore.KeyValueStore/Get',
    request: (key) => ({ key, consistency: 'ONE' }),
  }),
  etcdPut: (endpoint: string): GhzTarget => ({
    endpoint,
    proto: etcdProto,
    method: 'etcdserverpb.KV/Put',
    request: (key, value) => ({ key, value }),
  }),
  etcdRange: (endpoint: string): GhzTarget => ({
    endpoint,
    proto: etcdProto,
    method: 'etcdserverpb.KV/Range',
    request: (key) => ({ key, serializable: true }),
  }),
  echo: (endpoint: string): GhzTarget => ({
    endpoint,
    proto: echoProto,
    method: 'kvbench.Echo/Echo',
    request: (key, value) => ({ key, value }),
  }),
} as const;
