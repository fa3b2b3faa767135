import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { podGroups } from './cgroups.ts';
import { run } from './command.ts';
import { ownChains } from './firewall.ts';
import { inState, network, ports, stateDir } from './layout.ts';
import { ownLoopDevices } from './loop-devices.ts';
import { portTaken } from './preconditions.ts';

export const containerLogLinks = '/var/log/containers';
export const networkResults = '/var/lib/cni/results';

/** What is still there of a cluster that was taken down, one line each; empty when nothing is. */
export async function leftovers(): Promise<string[]> {
  const [loops, chains, links, busyPorts] = await Promise.all([
    ownLoopDevices(),
    ownChains(),
    podLinks(),
    portsTaken(),
  ]);
  return [
    ...ownProcesses().map((pid) => `process ${pid}`),
    ...ownMounts().map((path) => `mount ${path}`),
    ...loops.map(({ device, file }) => `loop device ${device} on ${file}`),
    ...links.map((link) => `network link ${link}`),
    ...chains.map((chain) => `network rules ${chain}`),
    ...busyPorts.map((port) => `port ${port}`),
    ...podGroups().map((group) => `control group ${group}`),
    ...ownContainerLogLinks().map((path) => `link ${path}`),
    ...ownNetworkResults().map((path) => `file ${path}`),
    ...(existsSync(stateDir) ? [`directory ${stateDir}`] : []),
  ];
}

/** Processes started on our state directory: components, and the shims that hold containers. */
export function ownProcesses(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      const commandLine = readOrEmpty(`/proc/${name}/cmdline`);
      const [command = '', ...args] = commandLine.split('\0');
      const component = /(^|\/)(kube-v[^/]*|containerd|containerd-shim[^/]*)$/.test(command);
      return component && args.some((argument) => argument.includes(`${stateDir}/`));
    })
    .map(Number);
}

/** Mount points below the state directory, the deepest first. */
export function ownMounts(): string[] {
  return readOrEmpty('/proc/mounts')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path === stateDir || path.startsWith(`${stateDir}/`))
    .sort((a, b) => b.length - a.length);
}

/** Links of the kubelet in a directory that cannot be configured, pointing to our log files. */
export function ownContainerLogLinks(): string[] {
  return entriesOf(containerLogLinks).filter((path) => {
    try {
      return readlinkSync(path).startsWith(inState());
    } catch {
      return false;
    }
  });
}

/** What the container network remembers of pods, in a directory that cannot be configured. */
export function ownNetworkResults(): string[] {
  return entriesOf(networkResults).filter((path) =>
    path.startsWith(join(networkResults, `${network.name}-`)),
  );
}

/** This machine's ends of links to pods: those with the pods' gateway address. */
async function podLinks(): Promise<string[]> {
  const shown = await run('ip', ['-json', 'address', 'show']);
  const links = JSON.parse(shown) as { ifname: string; addr_info: { local?: string }[] }[];
  return links
    .filter((link) => link.addr_info.some(({ local }) => local === network.podGateway))
    .map((link) => link.ifname);
}

async function portsTaken(): Promise<number[]> {
  const numbers: number[] = Object.values(ports);
  const taken = await Promise.all(numbers.map(portTaken));
  return numbers.filter((_, index) => taken[index]);
}

function entriesOf(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
