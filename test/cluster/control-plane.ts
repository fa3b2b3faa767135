import { writeFileSync } from 'node:fs';
import { ApiClient } from './api-client.ts';
import { kubeconfigOf, pki } from './certificates.ts';
import { auditLogPath, binaries, inState, network, ports } from './layout.ts';
import { startProcess, untilUp } from './processes.ts';

/**
 * Every write by anybody is logged with user, verb and resource, except the node's heartbeats; reads are logged for
 * service accounts outside kube-system, so that what the operator uses can be compared with what its Role grants.
 * The first matching rule counts.
 */
const auditPolicy = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived'],
  rules: [
    { level: 'None', nonResourceURLs: ['*'] },
    {
      level: 'None',
      userGroups: ['system:nodes'],
      resources: [{ group: 'coordination.k8s.io', resources: ['leases'] }],
    },
    {
      level: 'None',
      verbs: ['get', 'list', 'watch'],
      users: [
        'admin',
        'volume-provisioner',
        'system:apiserver',
        'system:kube-controller-manager',
        'system:kube-scheduler',
        'system:kube-proxy',
      ],
    },
    {
      level: 'None',
      verbs: ['get', 'list', 'watch'],
      userGroups: ['system:nodes', 'system:serviceaccounts:kube-system'],
    },
    { level: 'Metadata' },
  ],
};

/** Starts etcd and the API server, and once that is ready the controller manager and the scheduler. */
export async function startControlPlane(nodeIp: string): Promise<void> {
  startEtcd();
  startApiServer(nodeIp);
  const api = new ApiClient('admin');
  const ready = (): Promise<boolean> =>
    api.request('GET', '/readyz').then(
      (answer) => answer === 'ok',
      () => false,
    );
  await untilUp('kube-apiserver', ready, 90_000);
  startControllers();
}

function startEtcd(): void {
  const clients = `http://127.0.0.1:${ports['etcd clients']}`;
  const peers = `http://127.0.0.1:${ports['etcd peers']}`;
  startProcess('etcd', binaries.kube, [
    'etcd',
    '--name=local',
    `--data-dir=${inState('etcd')}`,
    '--unsafe-no-fsync', // it holds the test ground's objects only, and dies with them
    `--listen-client-urls=${clients}`,
    `--advertise-client-urls=${clients}`,
    `--listen-peer-urls=${peers}`,
    `--initial-advertise-peer-urls=${peers}`,
    `--initial-cluster=local=${peers}`,
  ]);
}

function startApiServer(nodeIp: string): void {
  const policyPath = inState('audit-policy.json');
  writeFileSync(policyPath, JSON.stringify(auditPolicy));
  startProcess('kube-apiserver', binaries.kube, [
    'kube-apiserver',
    `--etcd-servers=http://127.0.0.1:${ports['etcd clients']}`,
    `--secure-port=${ports['kube-apiserver']}`,
    `--advertise-address=${nodeIp}`,
    `--service-cluster-ip-range=${network.serviceCidr}`,
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    `--tls-cert-file=${pki.certificate('apiserver')}`,
    `--tls-private-key-file=${pki.key('apiserver')}`,
    `--client-ca-file=${pki.ca}`,
    `--kubelet-client-certificate=${pki.certificate('admin')}`,
    `--kubelet-client-key=${pki.key('admin')}`,
    '--kubelet-preferred-address-types=InternalIP', // logs and exec: the node's name is in no DNS
    `--audit-policy-file=${policyPath}`,
    `--audit-log-path=${auditLogPath}`,
    '--audit-log-maxsize=4096', // never rotated: tests read it from one file
    `--service-account-key-file=${pki.serviceAccountPublicKey}`,
    `--service-account-signing-key-file=${pki.serviceAccountKey}`,
    `--service-account-issuer=https://kubernetes.default.svc.${network.domain}`,
  ]);
}

function startControllers(): void {
  startProcess('kube-controller-manager', binaries.kube, [
    'kube-controller-manager',
    `--kubeconfig=${kubeconfigOf('controllers')}`,
    '--leader-elect=false',
    '--use-service-account-credentials',
    `--service-account-private-key-file=${pki.serviceAccountKey}`,
    `--root-ca-file=${pki.ca}`,
    `--cluster-signing-cert-file=${pki.ca}`,
    `--cluster-signing-key-file=${pki.caKey}`,
    '--allocate-node-cidrs=true',
    `--cluster-cidr=${network.clusterCidr}`,
    `--flex-volume-plugin-dir=${inState('volume-plugins')}`,
  ]);
  startProcess('kube-scheduler', binaries.kube, [
    'kube-scheduler',
    `--kubeconfig=${kubeconfigOf('scheduler')}`,
    '--leader-elect=false',
  ]);
}
