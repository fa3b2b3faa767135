import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { helm } from '../support/helm.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { requireKubernetes, sharedCluster } from '../support/kubernetes-cluster.ts';
import { appImage } from '../support/kubernetes-image.ts';
import { podIp } from '../support/kubernetes-faults.ts';
import type { Pod } from '../support/kubernetes-objects.ts';
import {
  createNamespace,
  restrictedContainerSecurity,
  restrictedPodSecurity,
  type TestNamespace,
} from '../support/kubernetes-namespace.ts';
import { reportOnFailure } from '../support/kubernetes-report.ts';
import { endStand } from '../support/kubernetes-stand.ts';
import { measured, secondsBetween } from '../support/measured.ts';
import { installOperator, type OperatorRelease } from '../support/operator-release.ts';

const samplePath = join(import.meta.dirname, '../../deploy/samples/kvcluster.yaml');
const sample = parse(readFileSync(samplePath, 'utf8')) as {
  metadata: { name: string };
  spec: { replicas: number };
};

/**
 * Runs in a pod. Arguments: the client Service, then the name of each node. Puts 1,000 keys through the Service, gets
 * them through each of these, and prints how many were not as they were put, and latencies with one call in flight.
 */
const clientScript = `
  import { KvClient } from '/app/dist/client/kv-client.js';
  const [service, ...nodes] = process.argv.slice(1);
  const keys = Array.from({ length: 1000 }, (_, index) => 'quickstart/' + index);
  const valueOf = (key) => 'the value of ' + key;
  const isAsPut = async (client, key) => (await client.get(key))?.value.toString() === valueOf(key);

  async function inParallel(work) {
    const rest = [...keys];
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let key = rest.pop(); key !== undefined; key = rest.pop()) await work(key);
    }));
  }
  async function latencies(work) {
    const taken = [];
    for (const key of keys.slice(0, 200)) {
      const startedMs = performance.now();
      await work(key);
      taken.push(performance.now() - startedMs);
    }
    taken.sort((a, b) => a - b);
    return { p50Ms: taken[100], p99Ms: taken[198] };
  }

  const lost = {};
  let putLatency, getLatency;
  for (const endpoints of [service, ...nodes]) {
    await using client = await KvClient.connect({ endpoints, timeoutMs: 10000 });
    if (endpoints === service) {
      await inParallel((key) => client.put(key, valueOf(key)));
      putLatency = await latencies((key) => client.put(key, valueOf(key)));
      getLatency = await latencies((key) => client.get(key));
    }
    lost[endpoints] = 0;
    await inParallel(async (key) => { if (!(await isAsPut(client, key))) lost[endpoints] += 1; });
  }
  console.log(JSON.stringify({ lost, putLatency, getLatency }));
`;

interface ClientReport {
  /** Keys that were not as they were put, by the address they were asked for at. */
  readonly lost: Readonly<Record<string, number>>;
  readonly putLatency: Latency;
  readonly getLatency: Latency;
}

interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const text = ({ p50Ms, p99Ms }: Latency): string => `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`;

describe('the quick start', function () {
  this.timeout(300_000);
  const { name } = sample.metadata;
  let namespace: TestNamespace;
  let kubectl: Kubectl;
  let image: string;
  let operator: OperatorRelease | undefined;

  before(async function () {
    this.timeout(40 * 60_000);
    requireKubernetes(this);
    const cluster = await sharedCluster();
    // This operator watches all namespaces; no other may watch one of them.
    await endStand();
    image = await appImage(cluster);
    namespace = await createNamespace(cluster.kubectl, 'quickstart');
    kubectl = namespace.kubectl;
  });

  afterEach(async function () {
    await reportOnFailure(this, kubectl);
  });

  after(async () => {
    await operator?.uninstall();
    await (namespace as TestNamespace | undefined)?.delete();
  });

  it('installs with helm, and the sample becomes Ready', async () => {
    operator = await installOperator(kubectl, { image, watchNamespaces: [] });
    const startedMs = performance.now();
    await kubectl.run(['apply', `--filename=${samplePath}`]);
    await kubectl.run(['wait', '--for=condition=Ready', '--timeout=120s', `kvcluster/${name}`], {
      timeoutMs: 130_000,
    });
    measured(`apply of ${sample.spec.replicas} nodes to Ready: ${seconds(startedMs)} s`);
  });

  it('puts and gets a key by helm test', async () => {
    const startedMs = performance.now();
    const output = await helm(['test', 'kvcluster', '--logs', '--timeout=240s'], {
      kubectl,
      timeoutMs: 250_000,
    });
    expect(output).to.match(/Phase:\s+Succeeded/);
    measured(`helm test: ${seconds(startedMs)} s`);
  });

  it('gives a pod 1,000 keys back, through the client Service and through the name of each node', async () => {
    const service = `${name}.${namespace.name}.svc:50051`;
    const nodes = Array.from(
      { length: sample.spec.replicas },
      (_, ordinal) => `${name}-${ordinal}.${name}-headless.${namespace.name}.svc:50051`,
    );
    await kubectl.apply([clientPod(image, [service, ...nodes])]);
    const finished = '--for=jsonpath={.status.phase}=Succeeded';
    await kubectl.run(['wait', finished, '--timeout=240s', 'pod/client'], { timeoutMs: 250_000 });
    const { lost, putLatency, getLatency } = JSON.parse(await kubectl.logs('client')) as ClientReport;
    expect(lost).to.deep.equal(Object.fromEntries([service, ...nodes].map((address) => [address, 0])));
    measured(`Put through the Service, one in flight: ${text(putLatency)}`);
    measured(`Get through the Service, one in flight: ${text(getLatency)}`);
  });

  it('keeps node and operator small', async () => {
    const pods = await kubectl.list<Pod>(
      'pods',
      '--selector=app.kubernetes.io/name in (kvcluster,kvcluster-operator)',
    );
    const running = pods
      .filter(({ status }) => status.phase === 'Running')
      .map(({ metadata }) => metadata.name);
    expect(running).to.have.length(sample.spec.replicas + 1);
    for (const pod of running) {
      const memoryMiB = await residentMiB(kubectl, pod);
      measured(`resident memory of ${pod}: ${memoryMiB.toFixed(0)} MiB`);
      expect(memoryMiB).to.be.within(1, 256);
    }
  });

  it('says how to go on after the installation, with names that exist', async () => {
    const notes = await helm(['get', 'notes', 'kvcluster'], { kubectl });
    const commands = notes.split('\n').filter((line) => line.startsWith('  kubectl exec'));
    expect(commands).to.have.length(2);
    const answers: string[] = [];
    for (const command of commands) {
      const [, ...args] = command.trim().split(' ');
      answers.push((await kubectl.run(args)).trim());
    }
    expect(answers.at(-1)).to.equal('hello');
  });
});

function clientPod(image: string, endpoints: readonly string[]): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'client' },
    spec: {
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: restrictedPodSecurity,
      containers: [
        {
          name: 'client',
          image,
          imagePullPolicy: 'IfNotPresent',
          command: ['node', '--input-type=module', '--eval', clientScript, ...endpoints],
          securityContext: restrictedContainerSecurity,
        },
      ],
    },
  };
}

const seconds = (sinceMs: number): string => secondsBetween(sinceMs, performance.now());

/** Resident memory of a pod's process, by its own metrics. */
async function residentMiB(kubectl: Kubectl, pod: string): Promise<number> {
  const response = await fetch(`http://${await podIp(kubectl, pod)}:9090/metrics`);
  const [, bytes] = /^process_resident_memory_bytes (\d+)/m.exec(await response.text()) ?? [];
  return Number(bytes) / 2 ** 20;
}
