import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { run } from './command.ts';
import { inState, network, nodeName, ports } from './layout.ts';

interface Identity {
  /** X.509 subject; Kubernetes reads CN as the user and O as its group. */
  subject: string;
  /** subjectAltName entries. */
  names: string[];
}

const identities = (nodeIp: string): Record<string, Identity> => ({
  apiserver: {
    subject: '/CN=kube-apiserver',
    names: [
      'DNS:kubernetes',
      'DNS:kubernetes.default',
      'DNS:kubernetes.default.svc',
      `DNS:kubernetes.default.svc.${network.domain}`,
      'DNS:localhost',
      'IP:127.0.0.1',
      `IP:${network.apiServiceIp}`,
      `IP:${nodeIp}`,
    ],
  },
  admin: { subject: '/O=system:masters/CN=admin', names: ['DNS:admin'] },
  controllers: { subject: '/CN=system:kube-controller-manager', names: ['DNS:controllers'] },
  scheduler: { subject: '/CN=system:kube-scheduler', names: ['DNS:scheduler'] },
  kubelet: {
    subject: `/O=system:nodes/CN=system:node:${nodeName}`,
    names: [`DNS:${nodeName}`, `IP:${nodeIp}`, 'IP:127.0.0.1'],
  },
  proxy: { subject: '/CN=system:kube-proxy', names: ['DNS:proxy'] },
  volumes: { subject: '/O=system:masters/CN=volume-provisioner', names: ['DNS:volumes'] },
});

const ecKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
const keyFile = (name: string): string => inState('pki', `${name}.key`);
const certificateFile = (name: string): string => inState('pki', `${name}.crt`);
export const kubeconfigOf = (name: string): string => inState(`${name}.kubeconfig`);

export const pki = {
  ca: certificateFile('ca'),
  caKey: keyFile('ca'),
  serviceAccountKey: inState('pki/sa.key'),
  serviceAccountPublicKey: inState('pki/sa.pub'),
  certificate: certificateFile,
  key: keyFile,
};

/** Makes a certificate authority of one cluster's lifetime, and key, certificate and kubeconfig of each component. */
export async function issueCertificates(nodeIp: string): Promise<void> {
  mkdirSync(inState('pki'), { recursive: true, mode: 0o700 });
  await Promise.all([
    run('openssl', [
      'req',
      '-x509',
      ...ecKey,
      '-keyout',
      pki.caKey,
      '-out',
      pki.ca,
      '-days',
      '365',
      '-subj',
      '/CN=kubernetes-ca',
    ]),
    run('openssl', ['genrsa', '-out', pki.serviceAccountKey, '2048']),
  ]);
  await run('openssl', ['rsa', '-in', pki.serviceAccountKey, '-pubout', '-out', pki.serviceAccountPublicKey]);
  await Promise.all(Object.entries(identities(nodeIp)).map(([name, identity]) => issue(name, identity)));
}

async function issue(name: string, { subject, names }: Identity): Promise<void> {
  const request = inState('pki', `${name}.csr`);
  const extensions = inState('pki', `${name}.ext`);
  await run('openssl', ['req', ...ecKey, '-keyout', keyFile(name), '-out', request, '-subj', subject]);
  writeFileSync(
    extensions,
    `subjectAltName=${names.join(',')}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n`,
  );
  // A random serial each: with a serial file the parallel calls would race for it.
  const authority = [
    '-CA',
    pki.ca,
    '-CAkey',
    pki.caKey,
    '-set_serial',
    `0x${crypto.randomUUID().replaceAll('-', '')}`,
  ];
  await run('openssl', [
    'x509',
    '-req',
    '-in',
    request,
    ...authority,
    '-out',
    certificateFile(name),
    '-days',
    '365',
    '-extfile',
    extensions,
  ]);
  writeFileSync(kubeconfigOf(name), kubeconfig(name), { mode: 0o600 });
}

function kubeconfig(user: string): string {
  const data = (file: string): string => readFileSync(file).toString('base64');
  // JSON is YAML, and needs no care for quotes.
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'kvcluster-test',
    clusters: [
      {
        name: 'kvcluster-test',
        cluster: {
          server: `https://127.0.0.1:${ports['kube-apiserver']}`,
          'certificate-authority-data': data(pki.ca),
        },
      },
    ],
    users: [
      {
        name: user,
        user: {
          'client-certificate-data': data(certificateFile(user)),
          'client-key-data': data(keyFile(user)),
        },
      },
    ],
    contexts: [{ name: 'kvcluster-test', context: { cluster: 'kvcluster-test', user } }],
  });
}
