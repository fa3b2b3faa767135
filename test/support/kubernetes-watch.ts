import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Kubectl } from './kubectl.ts';
import type { KubernetesObject } from './kubernetes-objects.ts';

/** An object as it was at a moment; a deleted one appears once more in its last state. */
export interface Sighting<T> {
  /** When this machine heard of it, by performance.now(). */
  readonly atMs: number;
  readonly object: T;
}

export interface UntilOptions {
  /** What is waited for, as the end of "waited 30 s for ...". */
  what: string;
  timeoutMs: number;
  /** Only sightings from then on count, by performance.now(). @default 0, those seen before the call too */
  sinceMs?: number;
}

/**
 * Every change of some objects, in order, with the time at which it was seen: what a poll would miss between two looks
 * is here too. Runs until disposed of.
 */
export class ObjectWatch<T extends KubernetesObject> implements AsyncDisposable {
  readonly sightings: Sighting<T>[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #waiting = new Set<() => void>();
  #errors = '';
  #open = true;

  /**
   * @param args - what to watch, as for `kubectl get`: a kind and selectors. Not a name: kubectl reads a named object and
   * then watches from any later moment, so that it may miss a change between the two.
   */
  constructor(kubectl: Kubectl, ...args: string[]) {
    const template = '--output=jsonpath={@}{"\\n"}';
    const { program, args: all, env } = kubectl.command(['get', ...args, '--watch', template]);
    this.#child = spawn(program, all, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#errors += text));
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      if (line === '') return;
      this.sightings.push({ atMs: performance.now(), object: JSON.parse(line) as T });
      this.#wake();
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', () => {
        this.#open = false;
        this.#wake();
        resolve();
      });
    });
  }

  /** What was seen from then on. */
  since(sinceMs: number): Sighting<T>[] {
    return this.sightings.filter(({ atMs }) => atMs >= sinceMs);
  }

  /** The first sighting, past or to come, that is as wanted. */
  async until(options: UntilOptions, wanted: (object: T) => boolean): Promise<Sighting<T>> {
    const { what, timeoutMs, sinceMs = 0 } = options;
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const found = this.sightings.find(({ atMs, object }) => atMs >= sinceMs && wanted(object));
      if (found !== undefined) return found;
      const leftMs = deadlineMs - performance.now();
      if (!this.#open || leftMs <= 0) {
        const last = describe(this.sightings.at(-1)?.object);
        const why = this.#open ? `waited ${timeoutMs / 1000} s` : `the watch ended (${this.#errors.trim()})`;
        throw new Error(`${why} for ${what}; last seen: ${last}`);
      }
      await this.#change(leftMs);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#waiting.add(done);
    });
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

function describe(object: (KubernetesObject & { status?: unknown }) | undefined): string {
  return object === undefined ? 'nothing' : `${object.metadata.name} ${JSON.stringify(object.status)}`;
}
