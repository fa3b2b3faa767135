import { byteString } from '../../common/bytes.ts';
import { formatVersion } from '../../model/version.ts';
import type { StoredRecord } from '../../node/storage/store.ts';
import type { Violation } from './checker.ts';
import type { Member } from './member.ts';
import { World } from './world.ts';

export interface SimulationOptions {
  readonly seed: number;
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
/** A seed that does not end would hold up all others. */
const EVENT_LIMIT = 5_000_000;

/** Runs one seed to its end. */
export async function simulate({ seed, keepTrace = false }: SimulationOptions): Promise<SimulationResult> {
  const world = new World({ seed, keepTrace });
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
  if (!(await until(() => unlucky() || (world.inSync && sameEverywhere(world.members)), SETTLE_LIMIT_MS))) {
    world.violated('replicas converge', `after ${SETTLE_LIMIT_MS / 1000} s: ${whyNot(world)}`);
  }
  if (unlucky()) return;
  world.checker.settled(contentsOf(world.members[0]));
}

function describeError(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Everything a member's store holds, whatever of it is where. */
export function contentsOf(member: Member | undefined): ReadonlyMap<string, StoredRecord> {
  const held = new Map<string, StoredRecord>();
  const { running, volume } = member ?? {};
  if (running === undefined || volume === undefined) return held;
  for (const { rows } of volume.rows.partitions.values()) {
    for (const { key } of rows.values()) {
      const record = running.store.get(key);
      if (record !== undefined) held.set(byteString(key), record);
    }
  }
  return held;
}

/** Whether all stores hold the same, in the state and over it. */
function sameEverywhere(members: readonly Member[]): boolean {
  if (members.some(({ running }) => (running?.store.statistics().overlayBytes ?? 1) > 0)) return false;
  const [first, ...others] = members.map(contentsOf);
  return others.every((held) => first !== undefined && difference(first, held) === undefined);
}

/** The first key in which two stores differ. */
function difference(
  a: ReadonlyMap<string, StoredRecord>,
  b: ReadonlyMap<string, StoredRecord>,
): string | undefined {
  for (const [key, record] of a) if (!(b.get(key)?.bytes.equals(record.bytes) ?? false)) return key;
  for (const key of b.keys()) if (!a.has(key)) return key;
  return undefined;
}

/** Why the cluster is not as it should be. */
function whyNot(world: World): string {
  const reasons = world.members.map(({ nodeId, running, isUp }) => {
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
      `(${peers.join('; ')})`,
    ].join(', ');
  });
  const [first, ...others] = world.members.map(contentsOf);
  const differing = others.map((held) => (first === undefined ? undefined : difference(first, held)));
  const key = differing.find((found) => found !== undefined);
  const versions = world.members.map((member) => {
    const record = key === undefined ? undefined : contentsOf(member).get(key);
    return record === undefined ? 'nothing' : formatVersion(record.version);
  });
  return `${reasons.join(' | ')}${key === undefined ? '' : ` | ${key} differs: ${versions.join(', ')}`}`;
}
