import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ClusterMap, type Member, sealMap } from '../../../model/cluster-map.ts';
import { workerNames, workerPorts } from '../../../model/workers.ts';
import { firstMap, NodeHome } from '../../support/node-process.ts';
import { freePorts } from '../../support/free-ports.ts';
import { ServerProcess } from './server-process.ts';

const HOST = '127.0.0.1';
const POD = 'sample-0';
const PARTITIONS = 256;
/** Beside the three ports that are chosen, workers have some above them. */
const ATTEMPTS = 20;

/** One pod with so many workers, alone in its cluster: what replication costs is no part of it. */
export class KvPod implements AsyncDisposable {
  readonly endpoints: readonly string[];
  /** The port where clients find any worker. */
  readonly anyWorker: string;
  private readonly process: ServerProcess;
  private readonly home: NodeHome;

  private constructor(home: NodeHome, process: ServerProcess, members: readonly Member[], anyWorker: string) {
    this.home = home;
    this.process = process;
    this.anyWorker = anyWorker;
    this.endpoints = members.map(({ clientPort }) => `${HOST}:${clientPort}`);
  }

  /** Starts the pod, gives it its first map and waits until it is ready. */
  static async start(options: { code: string; directory: string; workers: number }): Promise<KvPod> {
    const { code, directory, workers } = options;
    const home = new NodeHome();
    for (let attempt = 1; ; attempt += 1) {
      const [client = 0, peer = 0, http = 0] = await freePorts(3);
      const flags = {
        'node-id': POD,
        'cluster-name': 'sample',
        'data-dir': join(directory, `workers-${workers}`),
        'secret-file': home.secretFile,
        partitions: PARTITIONS,
        listen: HOST,
        host: HOST,
        workers,
        'client-port': client,
        'peer-port': peer,
        'http-port': http,
        'log-level': 'error',
        'drain-serve-ms': 0,
      };
      const parameters = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
      const process = new ServerProcess(POD, [
        globalThis.process.execPath,
        join(code, 'node/main.js'),
        ...parameters,
      ]);
      const members = workerNames(POD, workers).map((nodeId, worker): Member => {
        const own = workerPorts({ client, peer, http }, worker, workers);
        const ports = { clientPort: own.client, peerPort: own.peer, httpPort: own.http };
        return { nodeId, host: HOST, ...ports, zone: '', state: 'active', pod: POD };
      });
      try {
        await form(home, process, members, `http://${HOST}:${http}/readyz`);
        return new KvPod(home, process, members, `${HOST}:${client}`);
      } catch (error) {
        await process.end('SIGKILL');
        if (attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** The processes that serve: the pod's own one, and those that it looks after. */
  get pids(): readonly number[] {
    const { pid } = this.process;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return [pid, ...children.map(Number)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.end('SIGTERM');
    this.home[Symbol.dispose]();
  }
}

async function form(
  home: NodeHome,
  process: ServerProcess,
  members: readonly Member[],
  readyz: string,
): Promise<void> {
  const admin = home.admin();
  const propose = (map: ClusterMap): Promise<void> =>
    process.until(async () => {
      for (const { nodeId, peerPort } of members) {
        const target = { nodeId, address: `${HOST}:${peerPort}` };
        const held = await admin.getMap(target);
        const expected = { epoch: held?.epoch ?? 0, hash: held?.hash ?? '' };
        const { accepted, message } = await admin.proposeMap(target, map, expected);
        if (!accepted) throw new Error(message);
      }
      return true;
    }, 20_000);
  try {
    const first = firstMap(members, PARTITIONS);
    await propose(first);
    await propose(sealMap({ ...first, epoch: 2, initialised: true }));
    await process.until(async () => (await fetch(readyz)).ok);
  } finally {
    admin.close();
  }
}
