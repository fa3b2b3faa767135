import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { cleanAtExit } from '../../support/exit-cleanup.ts';

const STOP_MS = 10_000;
const KEPT_OUTPUT = 4000;

/** A server in a process of its own: ended by its process id, also when the benchmark itself is ended. */
export class ServerProcess implements AsyncDisposable {
  readonly name: string;
  private readonly child: ChildProcess;
  private readonly cancelCleaning: () => void;
  private output = '';

  constructor(
    name: string,
    [command, ...parameters]: readonly [string, ...string[]],
    env: NodeJS.ProcessEnv = {},
  ) {
    this.name = name;
    // In the session of the benchmark: Linux shares processors between sessions first, and clients are in that one.
    this.child = spawn(command, parameters, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    const keep = (text: string): string => (this.output = (this.output + text).slice(-KEPT_OUTPUT));
    this.child.stdout?.setEncoding('utf8').on('data', keep);
    this.child.stderr?.setEncoding('utf8').on('data', keep);
    this.child.on('error', (error) => keep(error.message));
    this.cancelCleaning = cleanAtExit(() => this.child.kill('SIGKILL'));
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  get ended(): boolean {
    return this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /**
   * Looks until `ready` gives true, every few milliseconds.
   *
   * @throws Error with the last output when the process ends first or the time is over.
   */
  async until(ready: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      if (this.ended) throw new Error(`${this.name} has ended: ${this.output.trim()}`);
      if (await ready().catch(() => false)) return;
      if (performance.now() > deadlineMs)
        throw new Error(`${this.name} is not ready after ${timeoutMs} ms: ${this.output.trim()}`);
      await delay(5);
    }
  }

  /** Ends it and waits for the end; by force when it takes long. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (!this.ended) {
      const exited = once(this.child, 'exit');
      this.child.kill(signal);
      const force = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
      await exited;
      clearTimeout(force);
    }
    this.cancelCleaning();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end('SIGKILL');
  }
}

/** Memory that is the process's own, bytes: without pages of files that it has mapped, as LMDB does. */
export function anonymousBytes(pid: number): number {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1] ?? NaN) * 1024;
}

/** Processor time that a process has taken since its start, seconds. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in parentheses, may hold spaces; the fields are counted after it.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}

/** USER_HZ: fixed at 100 in Linux's interface, whatever the kernel's own clock is. */
const CLOCK_TICKS = 100;
