import { expect } from 'chai';
import type { ClusterMap, MapContent } from '../../../../model/cluster-map.ts';
import { Newcomers } from '../../../../node/replication/requests/newcomers.ts';
import type { LogStore } from '../../../../node/storage/log-store.ts';
import { mapOf, membersAt } from '../../../support/map-moves.ts';
import { MemoryMachine } from '../../../support/memory-store.ts';

const WINDOW_MS = 60_000;
const SKEW_MS = 2000;

/** Two partitions of two copies each. */
const mapWith = (changes: Partial<MapContent>): ClusterMap =>
  mapOf({
    partitions: 2,
    replicationFactor: 2,
    members: membersAt(0, 1, 2, 3),
    assignment: [
      [0, 1],
      [1, 2],
    ],
    ...changes,
  });
const BEFORE = mapWith({});
const moving = (phase: number): ClusterMap =>
  mapWith({
    moving: { phase, partitions: [{ partition: 1, oldReplicas: [1, 2], newReplicas: [1, 3] }] },
  });
const AFTER = mapWith({
  assignment: [
    [0, 1],
    [1, 3],
  ],
});

describe('a member that has become a replica', () => {
  let machine: MemoryMachine;
  let store: LogStore;
  let newcomers: Newcomers;

  const start = (): Newcomers =>
    new Newcomers({ store, clock: machine.time.clock(), windowMs: WINDOW_MS, skewBoundMs: SKEW_MS });
  const adopt = (current: ClusterMap | undefined, next: ClusterMap): Promise<void> =>
    machine.time.run(newcomers.prepare(current, next));
  const now = (): number => machine.time.clock().wallMs();
  /** Whether it was none, as far as is known, when a version was minted. */
  const isNew = (nodeId: string, partition: number, wallMs: number): boolean =>
    newcomers.has(nodeId, partition, { wallMs, counter: 0, writer: 1 });

  beforeEach(async () => {
    machine = new MemoryMachine();
    store = await machine.open();
    newcomers = start();
  });

  afterEach(() => machine.kill());

  it('is no newcomer while no map has changed', () => {
    expect(isNew('kv-1', 1, now())).to.equal(false);
  });

  it('is one for what was minted before its move ended, by the clock of anybody', async () => {
    await adopt(BEFORE, moving(1));
    await adopt(moving(1), moving(2));
    expect(isNew('kv-3', 1, now()), 'both sides are asked').to.equal(false);
    await adopt(moving(2), AFTER);
    expect(isNew('kv-3', 1, now() + SKEW_MS)).to.equal(true);
    expect(isNew('kv-3', 1, now() + SKEW_MS + 1)).to.equal(false);
    expect(isNew('kv-1', 1, now()), 'it stayed').to.equal(false);
    expect(isNew('kv-3', 0, now()), 'of another partition').to.equal(false);
  });

  it('is one also when the maps of its move never came here', async () => {
    await adopt(BEFORE, AFTER);
    expect(isNew('kv-3', 1, now())).to.equal(true);
    expect(isNew('kv-1', 1, now())).to.equal(false);
  });

  it('is one still after the next move has ended', async () => {
    await adopt(BEFORE, AFTER);
    const minted = now();
    await machine.time.advance(SKEW_MS + 1000);
    await adopt(
      AFTER,
      mapWith({
        assignment: [
          [0, 1],
          [2, 3],
        ],
      }),
    );
    expect(isNew('kv-3', 1, minted)).to.equal(true);
    expect(isNew('kv-3', 1, now())).to.equal(false);
    expect(isNew('kv-2', 1, now())).to.equal(true);
  });

  it('may be anybody where no map was known, or after a restart', async () => {
    await adopt(undefined, AFTER);
    expect(isNew('kv-1', 0, now())).to.equal(true);
    expect(isNew('kv-1', 0, now() + SKEW_MS + 1)).to.equal(false);
    newcomers = start();
    expect(isNew('kv-1', 0, now())).to.equal(true);
    expect(isNew('kv-1', 0, now() + SKEW_MS + 1)).to.equal(false);
  });

  it('is nobody under the first map of a cluster', async () => {
    await adopt(undefined, mapWith({ initialised: false }));
    expect(isNew('kv-1', 0, now())).to.equal(false);
  });
});
