import { expect } from 'chai';
import { leftovers } from '../cluster/leftovers.ts';
import { clusterUnavailable } from '../cluster/requirements.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { auditEvents, auditMark, describeEvent, isWrite } from '../support/kubernetes-audit.ts';
import {
  endSharedCluster,
  requireKubernetes,
  requireLocalNode,
  sharedCluster,
  type TestCluster,
} from '../support/kubernetes-cluster.ts';
import { killContainer, partition, podIp } from '../support/kubernetes-faults.ts';
import { importBaseImage } from '../support/kubernetes-image.ts';
import {
  createNamespace,
  restrictedContainerSecurity,
  restrictedPodSecurity,
  type TestNamespace,
} from '../support/kubernetes-namespace.ts';
import { isReady, type KubernetesObject, type Pod } from '../support/kubernetes-objects.ts';
import { portForward } from '../support/kubernetes-port-forward.ts';
import { reportOnFailure } from '../support/kubernetes-report.ts';
import { endStand } from '../support/kubernetes-stand.ts';
import { waitFor } from '../support/wait.ts';

interface Volume extends KubernetesObject {
  spec: { claimRef: { namespace: string } };
}

/** Answers every connection with its host name, and ends at once when told to. */
const server = `
  process.on('SIGTERM', () => process.exit(0));
  require('node:net').createServer((socket) => socket.on('error', () => {}).end(require('node:os').hostname())).listen(50051);
`;

/** Prints the targets of a service's SRV records with what answers there. */
const askPeers = `
  const dns = require('node:dns').promises;
  const net = require('node:net');
  const ask = ({ name, port }) => new Promise((resolve, reject) => {
    const socket = net.connect({ host: name, port, timeout: 2000 }, () => {});
    socket.on('data', (text) => resolve([name, String(text)])).on('error', reject);
    socket.on('timeout', () => reject(new Error('timeout')));
  });
  dns.resolveSrv(process.argv[1]).then((records) => Promise.all(records.map(ask)))
    .then((answers) => console.log(JSON.stringify(Object.fromEntries(answers))));
`;

/** Prints whether an address answers within a second. */
const tryAddress = `
  const socket = require('node:net').connect({ host: process.argv[1], port: 50051 });
  const end = (text) => { console.log(text); process.exit(0); };
  socket.on('data', () => end('answered')).on('error', () => end('refused'));
  setTimeout(() => end('silent'), 1000);
`;

const labels = { app: 'store' };

const store = (image: string): object[] => [
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'peers' },
    spec: {
      clusterIP: 'None',
      publishNotReadyAddresses: true,
      selector: labels,
      ports: [{ name: 'client', port: 50051 }],
    },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { name: 'store' },
    spec: {
      serviceName: 'peers',
      replicas: 2,
      podManagementPolicy: 'Parallel',
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          automountServiceAccountToken: false,
          securityContext: restrictedPodSecurity,
          containers: [
            {
              name: 'store',
              image,
              imagePullPolicy: 'Never',
              command: ['node', '--eval', server],
              securityContext: restrictedContainerSecurity,
              readinessProbe: { tcpSocket: { port: 50051 }, periodSeconds: 1, timeoutSeconds: 3 },
              volumeMounts: [{ name: 'data', mountPath: '/data' }],
            },
          ],
        },
      },
      volumeClaimTemplates: [
        {
          metadata: { name: 'data' },
          spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '48Mi' } } },
        },
      ],
    },
  },
];

describe('the test cluster', () => {
  let cluster: TestCluster;
  let namespace: TestNamespace;
  let kubectl: Kubectl;
  let image: string;

  const shell = (pod: string, script: string): Promise<string> => kubectl.exec(pod, ['sh', '-c', script]);
  const readyPod = (name: string): Promise<Pod> =>
    waitFor({ what: `pod ${name} to be Ready`, timeoutMs: 40_000 }, async (see) => {
      const pod = await kubectl.get<Pod>('pod', name);
      see(JSON.stringify(pod.status.containerStatuses));
      return isReady(pod) && pod;
    });

  before(async function () {
    // Kubernetes itself may have to be built first.
    this.timeout(40 * 60_000);
    requireKubernetes(this);
    cluster = await sharedCluster();
    requireLocalNode(this, cluster);
    // What others share in this Kubernetes must go before the last test takes it down.
    await endStand();
    image = await importBaseImage();
    namespace = await createNamespace(cluster.kubectl, 'ground');
    kubectl = namespace.kubectl;
    await kubectl.apply(store(image));
    await Promise.all([readyPod('store-0'), readyPod('store-1')]);
  });

  afterEach(async function () {
    await reportOnFailure(this, kubectl);
  });

  it('gives each pod a volume of its own that it may write to and that ends at the asked size', async () => {
    const fill = 'head -c 60000000 /dev/zero > /data/full; stat -c %s /data/full; rm /data/full';
    const written = Number(await shell('store-0', `${fill} 2>/dev/null`));
    expect(written).to.be.within(30_000_000, 48 * 1024 * 1024);
    await shell('store-0', 'echo mine > /data/name');
    expect(await shell('store-1', 'ls /data')).not.to.include('name');
  });

  it('lets pods find each other by the SRV records of a headless service', async () => {
    const domain = `peers.${namespace.name}.svc.cluster.local`;
    const answers = await waitFor(
      { what: 'both pods in the SRV records', timeoutMs: 15_000 },
      async (see) => {
        const text = await kubectl.exec('store-0', ['node', '--eval', askPeers, `_client._tcp.${domain}`]);
        see(text);
        const found = JSON.parse(text) as Record<string, string>;
        return Object.keys(found).length === 2 && found;
      },
    );
    expect(answers).to.deep.equal({ [`store-0.${domain}`]: 'store-0', [`store-1.${domain}`]: 'store-1' });
  });

  it('forwards a port of this machine to a pod', async () => {
    await using forward = await portForward(kubectl, 'pod/store-1', 50051);
    const { connect } = await import('node:net');
    const name = await new Promise((resolve, reject) => {
      connect(forward.port, '127.0.0.1')
        .on('data', (text) => resolve(text.toString()))
        .on('error', reject);
    });
    expect(name).to.equal('store-1');
  });

  it('refuses a pod below the restricted standard', async () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'careless' },
      spec: { containers: [{ name: 'careless', image }] },
    };
    const refusal = await kubectl.apply([pod]).then(
      () => 'accepted',
      (error: unknown) => String(error),
    );
    expect(refusal).to.match(/violates PodSecurity "restricted:latest"/);
  });

  it('logs every write with its user, and what it was done to', async () => {
    const mark = auditMark();
    await kubectl.run(['create', 'configmap', 'noted', '--from-literal=a=b']);
    const written = (await auditEvents(mark)).filter(
      (event) => isWrite(event) && event.objectRef?.resource === 'configmaps',
    );
    expect(written.map(describeEvent)).to.deep.equal([
      `admin create configmaps ${namespace.name}/noted (201)`,
    ]);
  });

  it('cuts pods off from each other, in one direction or both, and joins them again', async () => {
    const [a, b] = await Promise.all([podIp(kubectl, 'store-0'), podIp(kubectl, 'store-1')]);
    const ask = async (pod: string, address: string): Promise<string> =>
      (await kubectl.exec(pod, ['node', '--eval', tryAddress, address])).trim();
    // Connections that were asked for and whose answer was not confirmed: state 03 is SYN_RECV.
    const halfOpen = async (pod: string): Promise<number> =>
      Number(await shell(pod, 'awk \'$4 == "03"\' /proc/net/tcp /proc/net/tcp6 | wc -l'));

    expect(await ask('store-0', b)).to.equal('answered');
    const cut = await partition(a, b);
    expect(await ask('store-0', b)).to.equal('silent');
    expect(await ask('store-1', a)).to.equal('silent');
    expect(await halfOpen('store-0'), 'requests that came through').to.equal(0);
    await cut.heal();
    expect(await ask('store-1', a)).to.equal('answered');

    await using oneWay = await partition(a, b, { oneWay: true });
    expect(await ask('store-1', a), 'the answer is dropped').to.equal('silent');
    expect(await halfOpen('store-0'), 'requests that came through').to.equal(1);
    await oneWay.heal();
    expect(await ask('store-0', b)).to.equal('answered');
  });

  it('restarts a container whose process was killed from the host, with its volume', async () => {
    const [before] = (await readyPod('store-0')).status.containerStatuses ?? [];
    await shell('store-0', 'echo kept > /data/name');
    await killContainer(kubectl, 'store-0');
    await waitFor({ what: 'the container to be restarted', timeoutMs: 30_000 }, async (see) => {
      const pod = await kubectl.get<Pod>('pod', 'store-0');
      const [now] = pod.status.containerStatuses ?? [];
      see(JSON.stringify(now));
      return isReady(pod) && now?.restartCount === (before?.restartCount ?? 0) + 1;
    });
    expect(await shell('store-0', 'cat /data/name')).to.equal('kept\n');
  });

  it('wipes a volume once its claim is gone, and makes an empty one for a new claim of the same name', async () => {
    await kubectl.run(['delete', 'pod/store-1', 'persistentvolumeclaim/data-store-1', '--wait=false']);
    await waitFor({ what: 'store-1 on another volume', timeoutMs: 40_000 }, async (see) => {
      const pod = await kubectl.find<Pod>('pod', 'store-1');
      see(pod === undefined ? 'no pod' : JSON.stringify(pod.status.conditions));
      return pod !== undefined && isReady(pod);
    });
    expect((await shell('store-1', 'ls /data')).trim()).to.equal('lost+found');
    await waitFor({ what: 'the old volume to be gone', timeoutMs: 20_000 }, async (see) => {
      const all = await cluster.kubectl.list<Volume>('persistentvolumes');
      const volumes = all.filter(({ spec }) => spec.claimRef.namespace === namespace.name);
      see(volumes.map((volume) => volume.metadata.name).join(' '));
      return volumes.length === 2;
    });
  });

  it('leaves nothing behind when it goes', async function () {
    if (!cluster.owned) this.skip();
    await endSharedCluster();
    expect(await leftovers()).to.deep.equal([]);
    expect(clusterUnavailable()).to.equal(undefined);
  });
});
