import type { Violation } from './checker.ts';
import { contentsOf, differences, haveEqualDigests } from './contents.ts';
import type { PlantedRule } from './planted-bugs.ts';
import { World } from './world.ts';

export interface SimulationOptions {
  readonly seed: number;
  /** Runs without this rule. */
  readonly broken?: PlantedRule | undefined;
  /** Keeps the history, for a person. */
  readonly keepTrace?: boolean;
}

/** What a seed came to. */
export interface SimulationResult {
  readonly seed: number;
  /** The same for the same seed. */
  readonly hash: string;
  readonly violations: readonly Violation[];
  /** How often things happened: log messages, metrics, faults, outcomes. */
  readonly seen: ReadonlyMap<string, number>;
  readonly operations: number;
  readonly events: number;
  readonly simulatedMs: number;
  readonly world: World;
}

/** Simulated time for clients to finish, and for replicas to agree afterwards, milliseconds. */
const WORK_LIMIT_MS = 600_000;
const SETTLE_LIMIT_MS = 60_000;
const LOOK_EVERY_MS = 10;
/** A seed that does not end would hold up all others. */
const EVENT_LIMIT = 5_000_000;

/** Runs one seed to its end. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const { seed, broken, keepTrace = false } = options;
  const world = new World({ seed, broken, keepTrace });
  const onRejection = (error: unknown): void =>
    world.violated(
      'nodes do not stop by themselves',
      `a rejection that nobody handled: ${describeError(error)}`,
    );
  process.on('unhandledRejection', onRejection);
  try {
    await run(world);
  } finally {
    process.off('unhandledRejection', onRejection);
  }
  return {
    seed,
    hash: world.trace.hash,
    violations: world.checker.violations,
    seen: world.trace.seen,
    operations: world.checker.operations.length,
    events: world.time.ran,
    simulatedMs: world.time.nowMs,
    world,
  };
}

async function run(world: World): Promise<void> {
  const until = (done: () => boolean, limitMs: number): Promise<boolean> =>
    world.time.run(done, { limitMs, limitEvents: EVENT_LIMIT });
  const unlucky = (): boolean => world.checker.violations.length > 0;
  world.start();
  if (!(await until(() => unlucky() || world.inSync, SETTLE_LIMIT_MS))) {
    world.violated('the cluster serves when nothing is wrong', `it did not come up: ${whyNot(world)}`);
  }
  world.faults.start();
  let worked = false;
  world.work().then(
    () => (worked = true),
    (error: unknown) =>
      world.violated('nodes do not stop by themselves', `a client failed: ${describeError(error)}`),
  );
  if (!(await until(() => unlucky() || worked, WORK_LIMIT_MS))) {
    world.violated('the cluster serves when nothing is wrong', 'the clients did not come to an end');
  }
  world.trace.line('the faults end');
  world.faults.stop();
  if (unlucky()) return;
  const untilMs = world.time.nowMs + SETTLE_LIMIT_MS;
  // Looked at now and then: it is a lot to look at.
  const settled = everyMs(
    world,
    LOOK_EVERY_MS,
    () => world.inSync && haveEqualDigests(world.pods, world.map),
  );
  for (let same = false; !same && !unlucky();) {
    const isOver = world.time.nowMs >= untilMs;
    if (isOver || !(await until(() => unlucky() || settled(), untilMs - world.time.nowMs))) {
      world.violated('replicas converge', `after ${SETTLE_LIMIT_MS / 1000} s: ${whyNot(world)}`);
    }
    let checkpointed = false;
    void Promise.all(world.pods.map(async ({ running }) => running?.store.checkpoint())).then(
      () => (checkpointed = true),
    );
    await until(() => unlucky() || checkpointed, SETTLE_LIMIT_MS);
    same = differences(world.pods, world.map).length === 0;
    // Something was collected here and not yet there: looked at again a little later.
    if (!same) await until(unlucky, LOOK_EVERY_MS);
  }
  if (unlucky()) return;
  world.checker.settled(contentsOf(world.pods, world.map));
}

/** The last answer to a question that is asked so often at most. */
function everyMs(world: World, periodMs: number, ask: () => boolean): () => boolean {
  let answer = false;
  let dueMs = 0;
  return () => {
    if (world.time.nowMs < dueMs) return answer;
    dueMs = world.time.nowMs + periodMs;
    return (answer = ask());
  };
}

function describeError(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Why the cluster is not as it should be. */
function whyNot(world: World): string {
  const reasons = world.pods.map(({ nodeId, running, isUp }) => {
    if (running === undefined) return `${nodeId} is ${isUp ? 'starting' : 'down'}`;
    const { replica, store } = running;
    const status = replica.status();
    const peers = status.peers.map(
      ({ nodeId: peer, connected, behind, ahead }) =>
        `${peer} ${connected ? `behind ${behind}, ahead ${ahead}` : 'not connected'}`,
    );
    return [
      `${nodeId}: ${replica.notReadyReason ?? 'ready'}`,
      `epoch ${status.epoch}`,
      status.inSync ? 'in sync' : 'not in sync',
      `overlay ${store.statistics().overlayBytes}`,
      status.collectionFrozenReason === '' ? 'collecting' : status.collectionFrozenReason,
      `(${peers.join('; ')})`,
    ].join(', ');
  });
  const map = `map of epoch ${world.map?.epoch ?? 0}${world.writer.idle ? '' : `, ${world.writer.waitingFor}`}`;
  return [map, ...reasons, ...differences(world.pods, world.map).slice(0, 3)].join(' | ');
}
