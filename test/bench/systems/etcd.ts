import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { binaries } from '../../cluster/layout.ts';
import { freePorts } from '../../support/free-ports.ts';
import { ServerProcess } from './server-process.ts';

const HOST = '127.0.0.1';
/** The largest that etcd advises: its history of overwritten values is kept for the length of the run. */
const QUOTA_BYTES = 8 * 1024 ** 3;

/** etcd members as they come: every write synced before it is acknowledged, default settings but for the quota. */
export class Etcd implements AsyncDisposable {
  readonly endpoints: readonly string[];
  private readonly members: readonly EtcdMember[];

  private constructor(members: readonly EtcdMember[]) {
    this.members = members;
    this.endpoints = members.map(({ endpoint }) => endpoint);
  }

  static async start(directory: string, count: number): Promise<Etcd> {
    const ports = await freePorts(2 * count);
    const names = Array.from({ length: count }, (_, index) => `etcd-${index}`);
    const peerUrl = (index: number): string => `http://${HOST}:${ports[2 * index + 1] ?? 0}`;
    const initialCluster = names.map((name, index) => `${name}=${peerUrl(index)}`).join(',');
    const members = names.map((name, index) => {
      const endpoint = `${HOST}:${ports[2 * index] ?? 0}`;
      const dataDir = join(directory, name);
      return new EtcdMember({ name, endpoint, peerUrl: peerUrl(index), dataDir, initialCluster });
    });
    const etcd = new Etcd(members);
    try {
      for (const member of members) member.start();
      await Promise.all(members.map((member) => member.ready()));
      return etcd;
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
  }

  get pids(): readonly number[] {
    return this.members.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  get dataDirs(): readonly string[] {
    return this.members.map(({ dataDir }) => dataDir);
  }

  /** The member that orders the writes; for a client, the fastest one to write to. */
  async leader(): Promise<EtcdMember> {
    for (const member of this.members) if (await member.isLeader()) return member;
    throw new Error('etcd has no leader');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map((member) => member.end()));
  }
}

interface EtcdMemberOptions {
  readonly name: string;
  readonly endpoint: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  readonly initialCluster: string;
}

export class EtcdMember {
  readonly endpoint: string;
  readonly dataDir: string;
  private readonly options: EtcdMemberOptions;
  private process: ServerProcess | undefined;

  constructor(options: EtcdMemberOptions) {
    this.options = options;
    this.endpoint = options.endpoint;
    this.dataDir = options.dataDir;
  }

  get pid(): number | undefined {
    return this.process?.ended === false ? this.process.pid : undefined;
  }

  start(): void {
    const { name, endpoint, peerUrl, dataDir, initialCluster } = this.options;
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    this.process = new ServerProcess(name, [
      binaries.kube,
      'etcd',
      `--name=${name}`,
      `--data-dir=${dataDir}`,
      `--listen-client-urls=http://${endpoint}`,
      `--advertise-client-urls=http://${endpoint}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=${initialCluster}`,
      `--quota-backend-bytes=${QUOTA_BYTES}`,
      '--log-level=error',
    ]);
  }

  async ready(): Promise<void> {
    await this.process?.until(async () => (await fetch(`http://${this.endpoint}/health`)).ok);
  }

  async isLeader(): Promise<boolean> {
    const response = await fetch(`http://${this.endpoint}/metrics`);
    return (await response.text()).includes('\netcd_server_is_leader 1\n');
  }

  async end(): Promise<void> {
    await this.process?.end('SIGKILL');
  }
}
