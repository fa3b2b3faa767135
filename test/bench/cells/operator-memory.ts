import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import { ApiServer } from '../systems/api-server.ts';
import { anonymousBytes, ServerProcess } from '../systems/server-process.ts';

const root = join(import.meta.dirname, '../../..');
const SETTLE_MS = 5000;
const MIB = 1024 * 1024;

/** Memory of the operator that has reconciled one cluster, against a real API server in which no pod runs. */
export async function operatorMemory(bench: Bench): Promise<void> {
  if (!bench.hasEtcd) return;
  bench.log('starting an API server and the operator');
  await using api = await ApiServer.start(join(bench.scratch, 'api-server'));
  await api.kubectl('apply', '--server-side', '--filename', join(root, 'deploy/crd'));
  await api.kubectl('wait', '--for=condition=Established', 'crd/kvclusters.kvcluster.io', '--timeout=30s');
  await api.kubectl('apply', '--server-side', '--filename', join(root, 'deploy/samples/kvcluster.yaml'));
  const flags = ['--default-image=kvcluster', '--http-port=0', '--cluster-domain=cluster.local'];
  await using operator = new ServerProcess(
    'operator',
    [process.execPath, join(bench.code, 'operator/main.js'), ...flags, '--log-level=error'],
    { KUBECONFIG: api.kubeconfig, NODE_ENV: 'production' },
  );
  // What it makes of the sample says that it has taken the Lease and reconciled.
  const made = ['get', 'statefulset', '--output=jsonpath={.items[*].spec.replicas}'];
  await operator.until(async () => (await api.kubectl(...made)) === '3');
  await delay(SETTLE_MS);
  bench.results.addFigure({
    id: 'operator-memory',
    title: 'resident memory of the operator with one cluster, without mapped pages',
    value: anonymousBytes(operator.pid) / MIB,
    unit: 'MiB',
  });
}
