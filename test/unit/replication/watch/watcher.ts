import { KvError } from '../../../../common/errors.ts';
import { compareVersions, formatVersion, type Version } from '../../../../model/version.ts';
import type { WatchBatch } from '../../../../node/replication/engine.ts';
import type { ReplicaCluster } from '../../../support/replica-cluster.ts';

interface Told {
  readonly key: string;
  /** Undefined: deleted. */
  readonly value: string | undefined;
  readonly version: Version;
}

/** Takes a watch at one node for as long as it lasts, and notes what it is told. */
export class Watcher {
  readonly told: Told[] = [];
  batches = 0;
  /** The newest one. */
  token: Buffer = Buffer.alloc(0);
  /** What the watch ended with. */
  error: Error | undefined;
  ended = false;
  /** Versions that went down. */
  readonly violations: string[] = [];
  private readonly cluster: ReplicaCluster;
  private readonly controller = new AbortController();
  private readonly newest = new Map<string, Version>();
  private gate: Promise<void> | undefined;
  private openGate: (() => void) | undefined;

  constructor(cluster: ReplicaCluster, index: number, options: { prefix?: string; token?: Buffer } = {}) {
    this.cluster = cluster;
    const { prefix = '', token } = options;
    const { signal } = this.controller;
    const batches = cluster.replica(index).engine.watch({ prefix: Buffer.from(prefix), token, signal });
    void this.follow(batches);
  }

  /** A watch that has begun: everything from now on is told. */
  static async begun(
    cluster: ReplicaCluster,
    index: number,
    options: { prefix?: string; token?: Buffer } = {},
  ): Promise<Watcher> {
    const watcher = new Watcher(cluster, index, options);
    await watcher.until('it begins', () => watcher.batches > 0);
    return watcher;
  }

  get code(): string | undefined {
    return this.error instanceof KvError ? this.error.code : undefined;
  }

  /** By key, the value told last. */
  get latest(): ReadonlyMap<string, string | undefined> {
    return new Map(this.told.map(({ key, value }) => [key, value]));
  }

  /** Nothing more is taken until `resume`. */
  pause(): void {
    this.gate ??= new Promise((resolve) => (this.openGate = resolve));
  }

  resume(): void {
    this.openGate?.();
    this.gate = undefined;
  }

  stop(): void {
    this.resume();
    this.controller.abort(new Error('enough'));
  }

  /** Lets time pass until the condition holds; a watch that has ended fails it. */
  async until(what: string, condition: () => boolean, limitMs = 60_000): Promise<void> {
    await this.cluster.time.until(what, () => this.ended || condition(), limitMs);
    if (!condition()) throw new Error(`the watch ended before ${what}: ${String(this.error)}`);
  }

  /** Lets time pass until the value was told as the newest of the key. */
  toldOf(key: string, value: string | undefined, limitMs = 60_000): Promise<void> {
    return this.until(
      `${key} is told to be ${value ?? 'deleted'}`,
      () => this.latest.has(key) && this.latest.get(key) === value,
      limitMs,
    );
  }

  async end(): Promise<void> {
    await this.cluster.time.until('the watch ends', () => this.ended);
  }

  private async follow(batches: AsyncIterable<WatchBatch>): Promise<void> {
    try {
      for await (const batch of batches) {
        this.take(batch);
        await this.gate;
      }
    } catch (error) {
      this.error = error as Error;
    }
    this.ended = true;
  }

  private take({ changes, token }: WatchBatch): void {
    this.batches += 1;
    for (const { key, version, live } of changes) {
      const name = key.toString();
      const before = this.newest.get(name);
      if (before !== undefined && compareVersions(version, before) < 0) {
        this.violations.push(`${name} went from ${formatVersion(before)} to ${formatVersion(version)}`);
      }
      this.newest.set(name, version);
      this.told.push({ key: name, value: live?.value.toString(), version });
    }
    if (token.length > 0) this.token = token;
  }
}
