import { homedir } from 'node:os';
import { join } from 'node:path';

/** What is built and started; a new version is built beside the old one in the cache. */
export const versions = { kubernetes: 'v1.37.2', coredns: 'v1.14.7', helm: 'v4.3.1' } as const;

/** Everything of the running cluster: keys, logs, container and volume data. Exists only while it is up. */
export const stateDir = process.env.KVCLUSTER_KUBE_STATE ?? '/var/lib/kvcluster-kube';

/** What takes long to make and is kept between runs. */
export const cacheDir = process.env.KVCLUSTER_CACHE ?? join(homedir(), '.cache/kvcluster-kube');

export const inState = (...parts: string[]): string => join(stateDir, ...parts);
export const inCache = (...parts: string[]): string => join(cacheDir, ...parts);
export const source = (...parts: string[]): string => join(import.meta.dirname, ...parts);

export const binaries = {
  kube: inCache(`kube-${versions.kubernetes}`),
  coredns: inCache(`coredns-${versions.coredns}`),
  helm: inCache(`helm-${versions.helm}`),
  pause: inCache('pause'),
};

/** A directory to put first in PATH: `kubectl` and `helm` of the versions above. */
export const toolsDir = inCache(`bin-${versions.kubernetes}-helm-${versions.helm}`);
export const kubectlPath = join(toolsDir, 'kubectl');
export const helmPath = join(toolsDir, 'helm');

export const adminKubeconfig = inState('admin.kubeconfig');
export const auditLogPath = inState('log/audit.json');
export const containerdSocket = inState('run/containerd.sock');

export const nodeName = 'node1';
export const network = {
  podCidr: '10.244.0.0/24',
  clusterCidr: '10.244.0.0/16',
  podGateway: '10.244.0.1',
  serviceCidr: '10.96.0.0/16',
  apiServiceIp: '10.96.0.1',
  dnsServiceIp: '10.96.0.10',
  domain: 'cluster.local',
  /** Name of the container network: the prefix of what its plugins leave in /var/lib/cni. */
  name: 'kvcluster-pods',
} as const;

/** Fixed ports of the components on this machine, by who listens. */
export const ports = {
  'kube-apiserver': 6443,
  'etcd clients': 12379,
  'etcd peers': 12380,
  'kubelet healthz': 10248,
  'kube-proxy metrics': 10249,
  kubelet: 10250,
  'kube-proxy healthz': 10256,
  'kube-controller-manager': 10257,
  'kube-scheduler': 10259,
} as const;
