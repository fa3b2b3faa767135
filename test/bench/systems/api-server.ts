import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../cluster/command.ts';
import { binaries } from '../../cluster/layout.ts';
import { freePorts } from '../../support/free-ports.ts';
import { Etcd } from './etcd.ts';
import { ServerProcess } from './server-process.ts';

/**
 * A Kubernetes API server with its etcd and nothing else: objects are stored and watched, and no pod ever runs. Enough
 * for an operator at work, started in seconds and by any user.
 */
export class ApiServer implements AsyncDisposable {
  readonly kubeconfig: string;
  private readonly etcd: Etcd;
  private readonly process: ServerProcess;

  private constructor(etcd: Etcd, process: ServerProcess, kubeconfig: string) {
    this.etcd = etcd;
    this.process = process;
    this.kubeconfig = kubeconfig;
  }

  static async start(directory: string): Promise<ApiServer> {
    const file = (name: string): string => join(directory, name);
    mkdirSync(file('certificates'), { recursive: true });
    const etcd = await Etcd.start(directory, 1);
    const [port = 0] = await freePorts(1);
    const token = randomBytes(16).toString('hex');
    writeFileSync(file('tokens.csv'), `${token},admin,admin,system:masters\n`, { mode: 0o600 });
    const { privateKey, publicKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    });
    writeFileSync(file('accounts.key'), privateKey, { mode: 0o600 });
    writeFileSync(file('accounts.pub'), publicKey);
    const process = new ServerProcess('kube-apiserver', [
      binaries.kube,
      'kube-apiserver',
      `--etcd-servers=http://${etcd.endpoints[0] ?? ''}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${port}`,
      `--cert-dir=${file('certificates')}`,
      `--token-auth-file=${file('tokens.csv')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('accounts.pub')}`,
      `--service-account-signing-key-file=${file('accounts.key')}`,
      '--service-cluster-ip-range=10.96.0.0/16',
    ]);
    writeFileSync(file('kubeconfig'), kubeconfigOf(port, token), { mode: 0o600 });
    const server = new ApiServer(etcd, process, file('kubeconfig'));
    try {
      await process.until(async () => (await server.kubectl('get', '--raw', '/readyz')) === 'ok');
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs kubectl and gives what it printed. */
  kubectl(...parameters: string[]): Promise<string> {
    return run(binaries.kube, ['kubectl', ...parameters], { env: { KUBECONFIG: this.kubeconfig } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.end('SIGKILL');
    await this.etcd[Symbol.asyncDispose]();
  }
}

/** The server makes itself a certificate that nobody else has signed; it listens on loopback only. */
function kubeconfigOf(port: number, token: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'bench',
    contexts: [{ name: 'bench', context: { cluster: 'bench', user: 'bench', namespace: 'default' } }],
    clusters: [
      { name: 'bench', cluster: { server: `https://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } },
    ],
    users: [{ name: 'bench', user: { token } }],
  });
}
