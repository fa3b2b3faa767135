import { expect } from 'chai';
import fc from 'fast-check';
import { compareVersions, formatVersion, type Version } from '../../../../model/version.ts';
import { DEFAULT_COLLECTION_SETTINGS } from '../../../../node/replication/horizon/collector.ts';
import { DEFAULT_WATCH_SETTINGS } from '../../../../node/replication/watch/settings.ts';
import { ReplicaCluster } from '../../../support/replica-cluster.ts';
import { SMALL_LIMITS } from '../../../support/memory-store.ts';
import { Watcher } from './watcher.ts';

/** More runs for a longer hunt: WATCH_RUNS=2000. A failure names its seed; WATCH_SEED replays it. */
const RUNS = Number(process.env['WATCH_RUNS'] ?? 25);
const SEED = process.env['WATCH_SEED'];

const NODES = 4;
const node = fc.integer({ min: 0, max: NODES - 1 });
const key = fc.integer({ min: 0, max: 11 }).map((number) => `key-${number}`);

type Step =
  | { readonly kind: 'put' | 'delete'; readonly node: number; readonly key: string }
  | { readonly kind: 'burst'; readonly node: number }
  | { readonly kind: 'kill' | 'start' | 'isolate'; readonly node: number }
  | { readonly kind: 'wipe'; readonly node: number }
  | { readonly kind: 'heal' | 'pause' | 'resume' }
  | { readonly kind: 'reconnect'; readonly node: number }
  | { readonly kind: 'wait'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('put' as const), node, key }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('delete' as const), node, key }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('burst' as const), node }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('kill' as const), node }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('start' as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wipe' as const), node }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('isolate' as const), node }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'heal' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'pause' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'resume' as const }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('reconnect' as const), node }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(50, 700, 3000, 15_000) }),
  },
);

/** One client that watches, resuming from its last token wherever it can, and what it must have been told. */
class Follower {
  /** How its streams ended. */
  readonly ends: (string | undefined)[] = [];
  /** Newest told, over all its streams. */
  readonly newest = new Map<string, { version: Version; value: string | undefined }>();
  /** Acknowledged at QUORUM since it began, newest of each key. */
  readonly owed = new Map<string, Version>();
  private readonly cluster: ReplicaCluster;
  private current: Watcher | undefined;
  private index = 0;
  private token: Buffer | undefined;

  constructor(cluster: ReplicaCluster) {
    this.cluster = cluster;
  }

  /** Its stream, when it has begun. */
  get stream(): Watcher | undefined {
    return this.current;
  }

  /** Everything written from now on is owed. */
  get began(): boolean {
    return this.token !== undefined;
  }

  async connect(index: number): Promise<void> {
    this.disconnect();
    this.index = index;
    const watcher = new Watcher(this.cluster, index, this.token === undefined ? {} : { token: this.token });
    this.current = watcher;
    await this.cluster.time
      .until('it begins', () => watcher.ended || watcher.batches > 0, 15_000)
      .catch(() => undefined);
    this.collect();
  }

  /** The process of that node is gone: a connection to it ends without a word of the watch. */
  lost(index: number): void {
    if (index === this.index) this.disconnect();
  }

  disconnect(): void {
    this.collect();
    this.current?.stop();
    this.current = undefined;
  }

  /** Takes over what was told so far. */
  collect(): void {
    const watcher = this.current;
    if (watcher === undefined) return;
    expect(watcher.violations).to.deep.equal([]);
    for (const { key: name, version, value } of watcher.told) {
      const known = this.newest.get(name);
      if (known === undefined || compareVersions(version, known.version) > 0) {
        this.newest.set(name, { version, value });
      }
    }
    if (watcher.token.length > 0) this.token = watcher.token;
    if (!watcher.ended) return;
    this.ends.push(watcher.code ?? watcher.error?.message);
    this.current = undefined;
    // It has to scan again: what was owed until now is owed no more.
    if (watcher.code === 'OUT_OF_RANGE') {
      this.token = undefined;
      this.owed.clear();
      this.newest.clear();
    }
  }

  get debts(): readonly string[] {
    return [...this.owed].flatMap(([name, version]) => {
      const told = this.newest.get(name);
      if (told !== undefined && compareVersions(told.version, version) >= 0) return [];
      return `${name} was acknowledged at ${formatVersion(version)} and told up to ${told === undefined ? 'nothing' : formatVersion(told.version)}`;
    });
  }
}

class Run {
  readonly cluster = new ReplicaCluster(NODES, {
    replicationFactor: 3,
    limits: { ...SMALL_LIMITS, logKeepMs: 0 },
    settings: {
      collection: { ...DEFAULT_COLLECTION_SETTINGS, ageMs: 20_000, stepMs: 5_000 },
      watch: { ...DEFAULT_WATCH_SETTINGS, mostTold: 8, pieceBytes: 400 },
    },
  });
  readonly follower = new Follower(this.cluster);
  private readonly wiped = new Set<number>();
  private writes = 0;

  async step(todo: Step): Promise<void> {
    const { cluster, follower } = this;
    switch (todo.kind) {
      case 'put':
      case 'delete':
        await this.write(todo.node, todo.key, todo.kind);
        return;
      case 'burst':
        for (let index = 0; index < 12; index += 1) await this.write(todo.node, `key-${index}`, 'put');
        return;
      case 'kill':
        if (this.running.length <= 2) return;
        cluster.kill(todo.node);
        follower.lost(todo.node);
        return;
      case 'start':
        await this.start(todo.node);
        return;
      case 'wipe':
        // One disk in a run: a second one could take what was acknowledged at QUORUM along.
        if (cluster.node(todo.node).running !== undefined || this.wiped.size > 0) return;
        this.wiped.add(todo.node);
        cluster.wipe(todo.node);
        return;
      case 'isolate':
        cluster.network.isolate(`kv-${todo.node}`, cluster.names);
        return;
      case 'heal':
        cluster.network.heal();
        return;
      case 'pause':
        follower.stream?.pause();
        return;
      case 'resume':
        follower.stream?.resume();
        return;
      case 'reconnect':
        if (cluster.node(todo.node).running !== undefined) await follower.connect(todo.node);
        return;
      case 'wait':
        await cluster.time.advance(todo.ms);
        follower.collect();
        return;
    }
  }

  /** Everything is well again, and everything owed must be told. */
  async settle(): Promise<void> {
    const { cluster, follower } = this;
    cluster.network.heal();
    for (const index of cluster.nodes.keys()) await this.start(index);
    await cluster.inSync(120_000);
    follower.stream?.resume();
    await cluster.time.advance(2000);
    follower.collect();
    for (let tries = 0; tries < 5 && follower.debts.length > 0; tries += 1) {
      if (follower.stream === undefined) await follower.connect(tries % NODES);
      await cluster.time.advance(12_000);
      follower.collect();
    }
    expect(follower.debts, `streams ended with ${follower.ends.join(', ')}`).to.deep.equal([]);
  }

  private get running(): readonly number[] {
    return [...this.cluster.nodes.keys()].filter((index) => this.cluster.node(index).running !== undefined);
  }

  private async start(index: number): Promise<void> {
    if (this.cluster.node(index).running === undefined) await this.cluster.start(index);
  }

  private async write(index: number, name: string, kind: 'put' | 'delete'): Promise<void> {
    const { cluster, follower } = this;
    if (cluster.node(index).running === undefined) return;
    this.writes += 1;
    const { began } = follower;
    const written = kind === 'put' ? cluster.put(index, name, `${this.writes}`) : cluster.delete(index, name);
    const version = await written.then(
      (answer) => answer.version,
      () => undefined,
    );
    follower.collect();
    if (version !== undefined && began && follower.began) follower.owed.set(name, version);
  }
}

describe('a watch under everything at once', () => {
  it('tells at least once what was acknowledged, and never goes back', async function () {
    this.timeout(RUNS * 4000 + 20_000);
    const property = fc.asyncProperty(
      node,
      fc.array(step, { minLength: 10, maxLength: 40 }),
      async (first, steps) => {
        const run = new Run();
        await run.cluster.begin();
        try {
          await run.follower.connect(first);
          for (const todo of steps) await run.step(todo);
          await run.settle();
        } finally {
          run.follower.stream?.stop();
          await run.cluster.time.advance(10);
          run.cluster.end();
        }
      },
    );
    await fc.assert(property, { numRuns: RUNS, ...(SEED === undefined ? {} : { seed: Number(SEED) }) });
  });
});
