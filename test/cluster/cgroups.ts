import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

/** Where the kubelet puts the pods' groups; on cgroup v1 under each controller. */
const root = '/sys/fs/cgroup';
const podsGroup = 'kubepods';

/** The pods' topmost groups that exist. */
export function podGroups(): string[] {
  if (!existsSync(root)) return [];
  const folders = [root, ...readdirSync(root).map((name) => join(root, name))];
  return folders.map((folder) => join(folder, podsGroup)).filter((group) => existsSync(group));
}

/** Ids of the processes that run in pods of this machine. */
export function podProcesses(): number[] {
  const pids = podGroups().flatMap((group) => [...processesIn(group)]);
  return [...new Set(pids)];
}

/** Removes the pods' groups; one that still holds a process stays. */
export function removePodGroups(): void {
  for (const group of podGroups()) removeGroup(group);
}

function* processesIn(group: string): Generator<number> {
  let text: string;
  try {
    text = readFileSync(join(group, 'cgroup.procs'), 'utf8');
  } catch {
    return; // removed in between
  }
  yield* text.split('\n').filter(Boolean).map(Number);
  for (const child of childrenOf(group)) yield* processesIn(child);
}

function removeGroup(group: string): void {
  for (const child of childrenOf(group)) removeGroup(child);
  try {
    rmdirSync(group);
  } catch {
    // busy; leftovers.ts reports it
  }
}

function childrenOf(group: string): string[] {
  try {
    return readdirSync(group, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(group, entry.name));
  } catch {
    return [];
  }
}
