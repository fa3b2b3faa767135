import { type ChildProcess, spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { StoreLimits } from '../../node/storage/limits.ts';
import { cleanAtExit } from '../support/exit-cleanup.ts';
import type { Asked, Told } from './messages.ts';

export interface StoreChildOptions {
  readonly directory: string;
  readonly seed: number;
  /** Numbers of its records begin after it. */
  readonly firstNumber: number;
  readonly limits: Partial<StoreLimits>;
  /** Called for everything that it tells, in order. */
  readonly onTold: (told: Told) => void;
}

export interface ChildEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

const compileCache = join(tmpdir(), 'kvcluster-test-compile-cache');

/** A process that has a store open (store-process.ts). */
export class StoreChild {
  /** Resolves after everything that it told has been handed on. */
  readonly ended: Promise<ChildEnd>;
  private readonly child: ChildProcess;
  private readonly told: Told[] = [];
  private waiting: (() => void)[] = [];
  private hasEnded = false;

  constructor({ directory, seed, firstNumber, limits, onTold }: StoreChildOptions) {
    const main = join(import.meta.dirname, 'store-process.ts');
    const child = spawn(
      process.execPath,
      [main, directory, String(seed), String(firstNumber), JSON.stringify(limits)],
      { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, NODE_COMPILE_CACHE: compileCache } },
    );
    this.child = child;
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    // Ended while it is being asked something.
    child.stdin.on('error', () => undefined);
    createInterface(child.stdout).on('line', (line) => {
      // The last one may have been cut off.
      if (!line.endsWith('}')) return;
      const told = JSON.parse(line) as Told;
      this.told.push(told);
      onTold(told);
      this.wake();
    });
    const cancelCleaning = cleanAtExit(() => this.kill());
    this.ended = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        cancelCleaning();
        this.hasEnded = true;
        this.wake();
        resolve({ code, signal, stderr });
      });
    });
  }

  /** The first thing of these kinds that it tells; undefined when it ends without. */
  async untilTold<K extends Told['kind']>(
    ...kinds: readonly K[]
  ): Promise<Extract<Told, { kind: K }> | undefined> {
    const isOne = (told: Told): told is Extract<Told, { kind: K }> =>
      kinds.some((kind) => kind === told.kind);
    for (;;) {
      const found = this.told.find(isOne);
      if (found !== undefined || this.hasEnded) return found;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }

  ask(asked: Asked): void {
    this.child.stdin?.write(`${JSON.stringify(asked)}\n`);
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
