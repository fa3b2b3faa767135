import { mkdirSync, writeFileSync } from 'node:fs';
import { kubeconfigOf, pki } from './certificates.ts';
import { binaries, containerdSocket, inState, network, nodeName } from './layout.ts';
import { startProcess } from './processes.ts';

const kubeletConfig = (): unknown => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  failCgroupV1: false, // the kubelet would refuse a cgroup v1 host otherwise
  cgroupDriver: 'cgroupfs',
  failSwapOn: false,
  containerRuntimeEndpoint: `unix://${containerdSocket}`,
  clusterDNS: [network.dnsServiceIp],
  clusterDomain: network.domain,
  resolvConf: inState('resolv.conf'),
  podLogsDir: inState('pod-logs'),
  volumePluginDir: inState('volume-plugins'),
  authentication: {
    anonymous: { enabled: false },
    x509: { clientCAFile: pki.ca },
    webhook: { enabled: true },
  },
  authorization: { mode: 'Webhook' },
  tlsCertFile: pki.certificate('kubelet'),
  tlsPrivateKeyFile: pki.key('kubelet'),
  // Images are imported, not pulled: what the kubelet collects it could not get again.
  imageGCHighThresholdPercent: 100,
  evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
});

export interface NodeOptions {
  nodeIp: string;
  /** Value of the node's label topology.kubernetes.io/zone; no label when absent. */
  zone?: string | undefined;
}

/** Starts the kubelet and kube-proxy of this machine's one node. */
export function startNodeAgents({ nodeIp, zone }: NodeOptions): void {
  mkdirSync(inState('kubelet'), { recursive: true });
  // Names outside the cluster are asked for on loopback, where nobody answers: tests use no outside name.
  writeFileSync(inState('resolv.conf'), 'nameserver 127.0.0.1\n');
  writeFileSync(inState('kubelet.json'), JSON.stringify(kubeletConfig()));
  startProcess('kubelet', binaries.kube, [
    'kubelet',
    `--config=${inState('kubelet.json')}`,
    `--kubeconfig=${kubeconfigOf('kubelet')}`,
    `--hostname-override=${nodeName}`,
    `--node-ip=${nodeIp}`,
    `--root-dir=${inState('kubelet')}`,
    ...(zone === undefined ? [] : [`--node-labels=topology.kubernetes.io/zone=${zone}`]),
  ]);
  startProcess('kube-proxy', binaries.kube, [
    'kube-proxy',
    `--kubeconfig=${kubeconfigOf('proxy')}`,
    `--hostname-override=${nodeName}`,
    `--cluster-cidr=${network.clusterCidr}`,
    '--proxy-mode=iptables',
    // 0: leave the kernel's connection tracking as it is; in a container it cannot be set.
    '--conntrack-max-per-core=0',
    '--conntrack-tcp-timeout-established=0',
    '--conntrack-tcp-timeout-close-wait=0',
    '--iptables-localhost-nodeports=false',
  ]);
}
