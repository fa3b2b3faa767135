import { readFileSync } from 'node:fs';
import { run, runOrEmpty } from '../cluster/command.ts';
import { ctr } from '../cluster/container-runtime.ts';
import type { Kubectl } from './kubectl.ts';
import type { Pod } from './kubernetes-objects.ts';

/**
 * Faults made on the node itself; only for a cluster whose node is this machine.
 *
 * Partitions drop packets in the mangle table: there a packet already has the address of the pod that a Service chose,
 * and no rule of kube-proxy, which accepts established connections, comes before ours.
 */
const chain = 'KVCLUSTER-PARTITION';
const table = ['--wait', '5', '--table', 'mangle'];

/** Process id, on this machine, of the main process of a pod's container (its only one when none is named). */
export async function podTaskPid(kubectl: Kubectl, pod: string, container?: string): Promise<number> {
  const statuses = (await kubectl.get<Pod>('pod', pod)).status.containerStatuses ?? [];
  const status = container === undefined ? statuses[0] : statuses.find(({ name }) => name === container);
  const id = status?.containerID?.replace('containerd://', '');
  if (id === undefined) throw new Error(`pod ${pod} has no running container ${container ?? ''}`);
  const line = (await ctr(['tasks', 'list'])).split('\n').find((candidate) => candidate.startsWith(id));
  const [, pid, state] = line?.split(/\s+/) ?? [];
  if (pid === undefined || state !== 'RUNNING') throw new Error(`pod ${pod}: its container is not running`);
  return Number(pid);
}

/** kill -9 of a container's main process from outside, where the signal is not ignored. Gives the id it had. */
export async function killContainer(kubectl: Kubectl, pod: string, container?: string): Promise<number> {
  const pid = await podTaskPid(kubectl, pod, container);
  process.kill(pid, 'SIGKILL');
  return pid;
}

/** Process id, on this machine, of one of the node processes that a pod's main process looks after; undefined while none. */
export async function workerPid(kubectl: Kubectl, pod: string, nodeId: string): Promise<number | undefined> {
  const parent = await podTaskPid(kubectl, pod);
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').split(' ').filter(Boolean);
  return children.map(Number).find((pid) => argumentsOf(pid).includes(nodeId));
}

function argumentsOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // It has just ended.
  }
}

export async function podIp(kubectl: Kubectl, pod: string): Promise<string> {
  const { podIP } = (await kubectl.get<Pod>('pod', pod)).status;
  if (podIP === undefined) throw new Error(`pod ${pod} has no address yet`);
  return podIP;
}

export interface Partition extends AsyncDisposable {
  /** Idempotent. */
  heal(): Promise<void>;
}

/**
 * Drops every packet between two pod addresses, of open connections too, until healed or disposed of.
 *
 * @param options.oneWay - only what `a` sends to `b`. @default false
 */
export async function partition(
  a: string,
  b: string,
  options: { oneWay?: boolean } = {},
): Promise<Partition> {
  const rules = [dropRule(a, b), ...(options.oneWay === true ? [] : [dropRule(b, a)])];
  await runOrEmpty('iptables', [...table, '--new-chain', chain]);
  await run('iptables', [...table, '--check', 'FORWARD', '--jump', chain]).catch(() =>
    run('iptables', [...table, '--insert', 'FORWARD', '--jump', chain]),
  );
  for (const rule of rules) await run('iptables', [...table, '--append', chain, ...rule]);
  let healed: Promise<void> | undefined;
  const heal = (): Promise<void> => (healed ??= remove(rules));
  return { heal, [Symbol.asyncDispose]: heal };
}

/** Ends every partition. */
export async function healAll(): Promise<void> {
  await runOrEmpty('iptables', [...table, '--flush', chain]);
}

const dropRule = (from: string, to: string): string[] => [
  '--source',
  from,
  '--destination',
  to,
  '--jump',
  'DROP',
];

async function remove(rules: readonly string[][]): Promise<void> {
  // A rule that healAll took already is gone as wanted.
  for (const rule of rules) await runOrEmpty('iptables', [...table, '--delete', chain, ...rule]);
}
