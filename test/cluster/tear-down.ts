import { existsSync, rmdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { podProcesses, removePodGroups } from './cgroups.ts';
import { run, runOrEmpty } from './command.ts';
import { ctr } from './container-runtime.ts';
import { removeRules } from './firewall.ts';
import { restoreKernelSettings } from './kernel-settings.ts';
import { stateDir } from './layout.ts';
import {
  containerLogLinks,
  leftovers,
  networkResults,
  ownContainerLogLinks,
  ownMounts,
  ownNetworkResults,
  ownProcesses,
} from './leftovers.ts';
import { ownLoopDevices } from './loop-devices.ts';
import { processRunning, startedProcesses, stopProcess } from './processes.ts';

const settleMs = 10_000;
/** Directories that the container runtime makes at fixed places, inner ones first. */
const madeOutside = [
  containerLogLinks,
  networkResults,
  dirname(networkResults),
  '/run/containerd/runc/k8s.io',
  '/run/containerd/runc',
  '/run/containerd/s',
  '/run/containerd',
];

/**
 * Takes the cluster down, whatever state it is in, also one that was interrupted while it was raised. The kernel frees
 * some things a moment after their last user; they are waited for.
 *
 * @throws Error naming what could not be removed.
 */
export async function tearDown(): Promise<void> {
  if (!existsSync(stateDir)) return;
  // First who would start things again, then what they started, then what holds the data.
  await Promise.all(
    ['kubelet', 'kube-proxy', 'kube-scheduler', 'kube-controller-manager', 'volume-provisioner'].map((name) =>
      stopProcess(name),
    ),
  );
  if (processRunning('containerd')) await removeContainers();
  // The API server would drain its watches for longer than anybody waits.
  await Promise.all(startedProcesses().map((name) => stopProcess(name, 500)));
  for (const pid of [...ownProcesses(), ...podProcesses()]) kill(pid);
  await removeRules();
  restoreKernelSettings();

  const deadline = Date.now() + settleMs;
  for (;;) {
    await removeFromKernelAndDisk();
    const left = await leftovers();
    if (left.length === 0) return;
    if (Date.now() > deadline) throw new Error(`the test cluster left behind: ${left.join('; ')}`);
    await delay(100);
  }
}

async function removeContainers(): Promise<void> {
  const ids = async (kind: 'tasks' | 'containers'): Promise<string[]> =>
    (await ctr([kind, 'list', '--quiet']).catch(() => '')).split('\n').filter(Boolean);
  const ignoreGone = (): undefined => undefined;
  for (const id of await ids('tasks')) {
    await ctr(['tasks', 'delete', '--force', id], 10_000).catch(ignoreGone);
  }
  const containers = await ids('containers');
  if (containers.length > 0) await ctr(['containers', 'delete', ...containers], 30_000).catch(ignoreGone);
}

async function removeFromKernelAndDisk(): Promise<void> {
  for (const path of ownMounts()) await runOrEmpty('umount', [path]);
  // What is still in use is hidden now and unmounted by its last user.
  for (const path of ownMounts()) await runOrEmpty('umount', ['--lazy', path]);
  for (const { device } of await ownLoopDevices()) await runOrEmpty('losetup', ['--detach', device]);
  removePodGroups();
  for (const path of [...ownContainerLogLinks(), ...ownNetworkResults()]) rmSync(path, { force: true });
  for (const folder of madeOutside) removeIfEmpty(folder);
  // Not across a mount that could not be removed: rm itself refuses what is busy.
  if (ownMounts().length === 0) await run('rm', ['--recursive', '--force', '--one-file-system', stateDir]);
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // absent, or used by others too
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // ended by itself meanwhile
  }
}
