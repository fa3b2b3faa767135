import { join } from 'node:path';
import { workerName, workerPorts } from '../../model/workers.ts';
import { type NodeConfig, portsOf } from '../config.ts';

/**
 * The flags of one worker: those that the pod was given, with its own name, ports and directory. Worker 0 has the
 * directory that a single node has, so that the number of workers may change.
 *
 * @param given flags of the pod without the dashes.
 */
export function workerFlags(
  config: NodeConfig,
  given: Readonly<Record<string, string>>,
  worker: number,
): readonly string[] {
  const { pod, host, workers, dataDir } = config;
  const ports = workerPorts(portsOf(config), worker, workers);
  const below = (directory: string): string =>
    worker === 0 ? directory : join(directory, `worker-${worker}`);
  const backupDir = given['backup-dir'];
  const flags = {
    ...given,
    workers: '1',
    'node-id': workerName(pod, worker),
    pod,
    host,
    'data-dir': below(dataDir),
    ...(backupDir === undefined ? {} : { 'backup-dir': below(backupDir) }),
    'volume-stores': String(workers * config.volumeStores),
    'client-port': String(ports.client),
    'peer-port': String(ports.peer),
    'http-port': String(ports.http),
  };
  return Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
}
