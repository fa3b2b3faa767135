import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { inState } from './layout.ts';

/** A process is meant by its id and start time: ids are reused, and an old file must not end a stranger. */
interface ProcessRecord {
  pid: number;
  startTicks: string;
}

const recordPath = (name: string): string => inState('pid', `${name}.json`);
const logPath = (name: string): string => inState('log', `${name}.log`);

/** Starts a component that outlives this process, with its output in the state directory's log. */
export function startProcess(name: string, command: string, args: readonly string[]): void {
  mkdirSync(inState('pid'), { recursive: true });
  mkdirSync(inState('log'), { recursive: true });
  const log = openSync(logPath(name), 'a');
  const child = spawn(command, args, { cwd: inState(), detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.on('error', () => undefined); // a failed start shows as "not running", with its log
  child.unref();
  if (child.pid === undefined) throw new Error(`${name} could not be started: ${command}`);
  const record: ProcessRecord = { pid: child.pid, startTicks: statOf(child.pid)?.startTicks ?? '' };
  writeFileSync(recordPath(name), JSON.stringify(record));
}

/** Ends a component by its process id, by force when it has not ended within `graceMs`. */
export async function stopProcess(name: string, graceMs = 5_000): Promise<void> {
  const record = readRecord(name);
  if (record !== undefined) {
    for (const [signal, waitMs] of [['SIGTERM', graceMs] as const, ['SIGKILL', 2_000] as const]) {
      if (!isRunning(record)) break;
      process.kill(record.pid, signal);
      const deadline = Date.now() + waitMs;
      while (isRunning(record) && Date.now() < deadline) await delay(20);
    }
  }
  rmSync(recordPath(name), { force: true });
}

/** Names of the components that were started and not stopped. */
export function startedProcesses(): string[] {
  if (!existsSync(inState('pid'))) return [];
  return readdirSync(inState('pid')).map((file) => file.replace(/\.json$/, ''));
}

export function processRunning(name: string): boolean {
  const record = readRecord(name);
  return record !== undefined && isRunning(record);
}

/** The end of a component's log, for messages about its failure. */
export function logTail(name: string, lines = 15): string {
  if (!existsSync(logPath(name))) return '(no log)';
  return readFileSync(logPath(name), 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
}

/**
 * Waits until a just started component answers.
 *
 * @throws Error with the end of its log when it ends first or does not answer in time.
 */
export async function untilUp(
  name: string,
  answers: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await answers())) {
    if (!processRunning(name)) throw new Error(`${name} ended right after its start:\n${logTail(name)}`);
    if (Date.now() > deadline)
      throw new Error(`${name} did not answer within ${timeoutMs} ms:\n${logTail(name)}`);
    await delay(100);
  }
}

function readRecord(name: string): ProcessRecord | undefined {
  if (!existsSync(recordPath(name))) return undefined;
  return JSON.parse(readFileSync(recordPath(name), 'utf8')) as ProcessRecord;
}

function isRunning(record: ProcessRecord): boolean {
  const stat = statOf(record.pid);
  return stat !== undefined && stat.startTicks === record.startTicks && stat.state !== 'Z';
}

/** State and start time from /proc/PID/stat; the name before them may itself hold spaces and parentheses. */
function statOf(pid: number): { state: string; startTicks: string } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', startTicks: fields[19] ?? '' };
}
