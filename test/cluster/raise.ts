import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { ApiClient } from './api-client.ts';
import { baseImage } from './base-image.ts';
import { buildBinaries, type Log } from './build.ts';
import { issueCertificates } from './certificates.ts';
import { run } from './command.ts';
import { importArchive, startContainerRuntime } from './container-runtime.ts';
import { startControlPlane } from './control-plane.ts';
import type { Image } from './image-build.ts';
import { forwardPackets, saveKernelSettings } from './kernel-settings.ts';
import { adminKubeconfig, inState, kubectlPath, source, stateDir } from './layout.ts';
import { startNodeAgents } from './node-agents.ts';
import { installPackages } from './packages.ts';
import { refuseForeignKubernetes } from './preconditions.ts';
import { startProcess } from './processes.ts';
import { clusterUnavailable, nodeAddress } from './requirements.ts';
import { systemImages } from './system-images.ts';
import { tearDown } from './tear-down.ts';

/** Who a cluster belongs to: a person (kube:up) keeps it until kube:down, a test run takes it down at its end. */
export type Owner = 'person' | 'run';

export interface RaiseOptions {
  owner: Owner;
  log: Log;
  /** Zone label of the node; none when absent. */
  zone?: string | undefined;
}

const ownerPath = (): string => inState('owner');

/** Whose cluster is up and answering; undefined when none is. Remains of one that is not whole do not count. */
export async function runningCluster(): Promise<Owner | undefined> {
  if (!existsSync(ownerPath())) return undefined;
  const ready = await new ApiClient('admin').request('GET', '/readyz').catch(() => '');
  return ready === 'ok' ? (readFileSync(ownerPath(), 'utf8') as Owner) : undefined;
}

/** Makes what {@link raise} needs and is kept between runs: packages, binaries, images. */
export async function prepare(log: Log): Promise<Image[]> {
  const reason = clusterUnavailable();
  if (reason !== undefined) throw new Error(reason);
  await installPackages(log);
  await buildBinaries(log);
  await baseImage(log);
  return systemImages(log);
}

/**
 * Raises a one-node Kubernetes on this machine and waits until its DNS answers; takes remains of an earlier one down
 * first. The caller holds the lock. A start that fails leaves nothing behind.
 *
 * @returns the path of the administrator's kubeconfig.
 * @throws Error of one line when the machine is not fit or not free; with the end of a log when a component fails.
 */
export async function raise(options: RaiseOptions): Promise<string> {
  const images = await prepare(options.log);
  await tearDown();
  await refuseForeignKubernetes();
  options.log('starting Kubernetes');
  mkdirSync(stateDir, { recursive: true, mode: 0o755 });
  saveKernelSettings();
  try {
    await start(options, images);
  } catch (error) {
    await tearDown();
    throw error;
  }
  // Written last: only a cluster that came up counts as one.
  writeFileSync(ownerPath(), options.owner);
  return adminKubeconfig;
}

async function start({ zone }: RaiseOptions, images: readonly Image[]): Promise<void> {
  const nodeIp = nodeAddress() ?? '';
  forwardPackets();
  await issueCertificates(nodeIp);
  const runtime = async (): Promise<void> => {
    await startContainerRuntime();
    for (const { archive } of images) await importArchive(archive);
  };
  await Promise.all([startControlPlane(nodeIp), runtime()]);
  startNodeAgents({ nodeIp, zone });
  startProcess('volume-provisioner', process.execPath, [source('volume-provisioner.ts')]);
  await kubectl('apply', '--server-side', '--filename', source('add-ons.yaml'));
  await kubectl('rollout', 'status', '--namespace=kube-system', 'deployment/coredns', '--timeout=90s');
}

async function kubectl(...args: string[]): Promise<void> {
  await run(kubectlPath, args, {
    env: { KUBECONFIG: adminKubeconfig },
    timeoutMs: 100_000,
  });
}
