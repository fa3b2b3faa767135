import { KvError } from '../common/errors.ts';
import type { ClusterMap, Move } from './cluster-map.ts';
import { isSameSet, problemWithMap } from './map-check.ts';
import { differences, names, type Obstacle, shortageOf, staleQuorum, startable } from './moves/batch.ts';
import { changed } from './moves/change-map.ts';
import {
  absentees,
  changeMembers,
  type DesiredCluster,
  incarnationsOf,
  isComplete,
} from './moves/members.ts';
import { hasTaken, type Reports } from './moves/reports.ts';
import { place } from './placement.ts';
import { partitionsHeldBy } from './replica-sets.ts';

export type { DesiredCluster, WantedMember } from './moves/members.ts';
export type { MemberReport, Reports } from './moves/reports.ts';

/** What the map's writer has to do next; `why` is for a person. */
export type MoveStep =
  /** The map is what is desired. */
  | { readonly kind: 'done' }
  /** Publish this map (compare-and-set on the one it was made from), then ask again. */
  | { readonly kind: 'publish'; readonly map: ClusterMap; readonly why: string }
  /** Ask again with newer reports; `waitingFor` are the members it depends on. */
  | { readonly kind: 'wait'; readonly why: string; readonly waitingFor: readonly string[] };

const DEFAULT_BATCH_PARTITIONS = 64;
const NO_MAP = { epoch: 0, mapHash: '' };

/**
 * The next step from a map towards the desired cluster (PROTOCOL 30, 31, 34). Pure: it depends on nothing but its
 * arguments, so any writer can go on where another one crashed, with the published map and fresh reports.
 *
 * The order: the first map is marked initialised; wanted members that answer join and unwanted ones begin to drain, as one
 * change; partitions move in batches by three maps each (write to both, read from the old owners; write to both, read from
 * the new; the new alone); the order of preference is evened out; drained members leave and their incarnations retire.
 * Each map waits until every member not marked down has taken the one before, and phase 2 also until every new owner
 * reports that it has settled. A move in phase 1 that is not wanted any more is cancelled.
 *
 * A member marked down keeps its partitions as long as it is wanted, and takes part again once it holds the newest map.
 *
 * @throws KvError INVALID_ARGUMENT for a desired cluster that cannot be; FAILED_PRECONDITION for a map that contradicts
 * itself.
 */
export function nextStep(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep {
  checkDesired(desired);
  const problem = problemWithMap(map);
  if (problem !== undefined)
    throw new KvError('FAILED_PRECONDITION', `the cluster map contradicts itself: ${problem}`);
  return (
    awaitBarrier(map, desired, reports) ??
    initialise(map, reports) ??
    goOnMoving(map, desired, reports) ??
    adjustMembers(map, desired, reports) ??
    startMoving(map, desired, reports) ??
    removeDrained(map, desired, reports) ??
    awaitAbsentees(map, desired) ?? { kind: 'done' }
  );
}

function checkDesired({ members, replicationFactor, batchPartitions = 1 }: DesiredCluster): void {
  const refuse = (what: string): never => {
    throw new KvError('INVALID_ARGUMENT', what);
  };
  if (members.length === 0) refuse('a cluster needs at least one member');
  if (new Set(members.map(({ nodeId }) => nodeId)).size < members.length) {
    refuse('two wanted members have the same name');
  }
  for (const [name, count] of Object.entries({ replicationFactor, batchPartitions })) {
    if (!Number.isSafeInteger(count) || count < 1) refuse(`${name} is ${count}, not a positive integer`);
  }
}

/** No map may follow one that somebody who takes part has not taken: two members would then be two phases apart. */
function awaitBarrier(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep | undefined {
  for (const { nodeId } of [...map.members, ...absentees(map, desired)]) {
    const { epoch, mapHash } = reports.get(nodeId) ?? NO_MAP;
    if (epoch > map.epoch) {
      return wait(`${nodeId} holds the map of epoch ${epoch}, newer than this one of epoch ${map.epoch}`, []);
    }
    if (epoch === map.epoch && mapHash !== map.hash) {
      return wait(`${nodeId} holds another map of epoch ${epoch}: there are two writers of the map`, [
        nodeId,
      ]);
    }
  }
  const lacking = map.members.filter(
    ({ nodeId, state }) => state !== 'down' && !hasTaken(map, reports.get(nodeId)),
  );
  if (lacking.length === 0) return undefined;
  const each = lacking.map(({ nodeId }) => {
    const report = reports.get(nodeId);
    return report === undefined ? `${nodeId} does not answer` : `${nodeId} has epoch ${report.epoch}`;
  });
  return wait(
    `waiting for every member to take the map of epoch ${map.epoch}: ${each.join(', ')}`,
    lacking.map(({ nodeId }) => nodeId),
  );
}

/**
 * A blank member begins only with a first map that came from the map's writer: one that has it from a peer is not ready yet.
 * In a cluster in use it would have lost its data, and two such replicas of a partition would wait for others for ever.
 */
function initialise(map: ClusterMap, reports: Reports): MoveStep | undefined {
  if (map.initialised) return undefined;
  const waiting = map.members.filter(
    ({ nodeId, state }) => state !== 'down' && (reports.get(nodeId)?.fillingPartitions ?? 0) > 0,
  );
  if (waiting.length > 0) {
    return wait(
      `waiting for ${names(waiting)} to begin with the first map`,
      waiting.map(({ nodeId }) => nodeId),
    );
  }
  return publish(changed(map, { initialised: true }), 'every member has the first map');
}

function goOnMoving(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep | undefined {
  const { moving } = map;
  if (moving === undefined) return undefined;
  const partitions = counted(moving.partitions.length, 'partition');
  if (moving.phase === 2) return endMove(map, moving, reports);
  const unwanted = whyUnwanted(map, desired);
  if (unwanted !== undefined) {
    return publish(changed(map, { moving: 'none' }), `the move of ${partitions} is cancelled: ${unwanted}`);
  }
  const owners = new Set(moving.partitions.flatMap(({ newReplicas }) => newReplicas));
  const unsettled = map.members.filter(
    ({ nodeId }, index) => owners.has(index) && reports.get(nodeId)?.settledEpoch !== map.epoch,
  );
  if (unsettled.length === 0) {
    return publish(
      changed(map, { moving: { ...moving, phase: 2 } }),
      `the new owners of ${partitions} hold everything`,
    );
  }
  const shortages = new Set(
    moving.partitions.flatMap(({ oldReplicas }) => shortageOf(map, oldReplicas, reports)?.why ?? []),
  );
  const progress = unsettled.map(({ nodeId }) => {
    const filling = reports.get(nodeId)?.fillingPartitions;
    if (filling === undefined) return `${nodeId} does not answer`;
    return filling > 0 ? `${nodeId} fills ${filling}` : `${nodeId} compares`;
  });
  return wait(
    [`moving ${partitions}: ${progress.join(', ')}`, ...shortages].join('; '),
    unsettled.map(({ nodeId }) => nodeId),
  );
}

function endMove(map: ClusterMap, moving: Move, reports: Reports): MoveStep {
  const partitions = counted(moving.partitions.length, 'partition');
  const stale = new Set(moving.partitions.flatMap((move) => staleQuorum(map, move, reports)));
  if (stale.size > 0) {
    return wait(
      `moving ${partitions}: ${names([...stale])} went down as old owners and could answer reads without the new ones; ` +
        'they have to come back, or to be removed by force',
      [...stale].map(({ nodeId }) => nodeId),
    );
  }
  const assignment = [...map.assignment];
  for (const { partition, newReplicas } of moving.partitions) assignment[partition] = newReplicas;
  return publish(changed(map, { assignment, moving: 'none' }), `the new owners of ${partitions} are alone`);
}

/** Why nobody wants what a move in phase 1 leads to; undefined as long as somebody does. */
function whyUnwanted(map: ClusterMap, desired: DesiredCluster): string | undefined {
  const moves = map.moving?.partitions ?? [];
  const owners = new Set(moves.flatMap(({ newReplicas }) => newReplicas));
  const leaving = map.members.filter(
    ({ nodeId }, index) => owners.has(index) && leaves(map, desired, nodeId),
  );
  if (leaving.length > 0) return `${names(leaving)} leaves`;
  const target = targetOf(map, desired);
  const isKept = moves.every(({ partition, oldReplicas }) => isSameSet(oldReplicas, target[partition] ?? []));
  return isKept ? 'its partitions are to stay where they are' : undefined;
}

function adjustMembers(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep | undefined {
  const { members, reasons } = changeMembers(map, desired, reports);
  const { replicationFactor } = desired;
  const all =
    replicationFactor === map.replicationFactor
      ? reasons
      : [...reasons, `replicationFactor goes from ${map.replicationFactor} to ${replicationFactor}`];
  if (all.length === 0) return undefined;
  return publish(
    changed(map, { replicationFactor, ...(reasons.length > 0 ? { members } : {}) }),
    all.join(', '),
  );
}

function startMoving(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep | undefined {
  const target = targetOf(map, desired);
  const moves = differences(map, target);
  if (moves.length === 0) return evenOutPreference(map, target);
  const most = desired.batchPartitions ?? DEFAULT_BATCH_PARTITIONS;
  const { batch, obstacles } = startable(map, moves, reports, most);
  if (batch.length === 0) return awaitObstacles(obstacles);
  return publish(
    changed(map, { moving: { phase: 1, partitions: batch } }),
    `${batch.length} of ${counted(moves.length, 'partition')} that have to move begin to`,
  );
}

/** The order within a set says whom clients prefer as coordinator; changing it moves nothing. */
function evenOutPreference(map: ClusterMap, target: readonly (readonly number[])[]): MoveStep | undefined {
  const reordered = target.filter((set, partition) =>
    set.some((index, at) => index !== map.assignment[partition]?.[at]),
  ).length;
  if (reordered === 0) return undefined;
  return publish(
    changed(map, { assignment: target }),
    `${counted(reordered, 'partition')} prefer another coordinator`,
  );
}

function awaitObstacles(obstacles: readonly Obstacle[]): MoveStep {
  const each = obstacles.map(({ partitions, why }) => `${counted(partitions, 'partition')}: ${why}`);
  return wait(`cannot move ${each.join('; ')}`, [
    ...new Set(obstacles.flatMap(({ waitingFor }) => waitingFor)),
  ]);
}

function removeDrained(map: ClusterMap, desired: DesiredCluster, reports: Reports): MoveStep | undefined {
  const leaving = map.members.filter(
    ({ nodeId }) => leaves(map, desired, nodeId) && partitionsHeldBy(map, nodeId).length === 0,
  );
  const residues = leaving.map((member) => ({
    member,
    residue: member.state === 'down' ? 0 : (reports.get(member.nodeId)?.residualPartitions ?? 0),
  }));
  const empty = residues.filter(({ residue }) => residue === 0).map(({ member }) => member);
  if (empty.length > 0) {
    const known = new Set(map.retired.map(({ nodeId, incarnation }) => `${nodeId} ${incarnation}`));
    const retired = empty
      .flatMap(({ nodeId }) =>
        incarnationsOf(nodeId, reports).map((incarnation) => ({ nodeId, incarnation })),
      )
      .filter(({ nodeId, incarnation }) => !known.has(`${nodeId} ${incarnation}`));
    const next = changed(map, {
      members: map.members.filter((member) => !empty.includes(member)),
      retired: [...map.retired, ...retired],
    });
    return publish(next, `${names(empty)} is empty and leaves the map`);
  }
  if (leaving.length === 0) return undefined;
  const each = residues.map(
    ({ member, residue }) => `${member.nodeId} still stores ${counted(residue, 'partition')}`,
  );
  return wait(
    `${each.join(', ')} until the new owners have acknowledged what it logged`,
    leaving.map(({ nodeId }) => nodeId),
  );
}

function awaitAbsentees(map: ClusterMap, desired: DesiredCluster): MoveStep | undefined {
  const waitingFor = absentees(map, desired).map(({ nodeId }) => nodeId);
  if (waitingFor.length === 0) return undefined;
  return wait(`waiting for ${waitingFor.join(', ')} to answer before it joins`, waitingFor);
}

/** Where every partition shall be; a member that is down and wanted keeps its share. */
function targetOf(map: ClusterMap, desired: DesiredCluster): readonly (readonly number[])[] {
  return place({
    members: map.members.map((member) => ({
      ...member,
      state: leaves(map, desired, member.nodeId) ? 'draining' : 'active',
    })),
    partitions: map.partitions,
    replicationFactor: desired.replicationFactor,
    previous: map.assignment.map((set) => set.map((index) => map.members[index]?.nodeId ?? '')),
  });
}

/** Nobody leaves while a wanted member is missing: there would be fewer copies meanwhile. */
function leaves(map: ClusterMap, desired: DesiredCluster, nodeId: string): boolean {
  return isComplete(map, desired) && desired.members.every((member) => member.nodeId !== nodeId);
}

function publish(map: ClusterMap, why: string): MoveStep {
  return { kind: 'publish', map, why };
}

function wait(why: string, waitingFor: readonly string[]): MoveStep {
  return { kind: 'wait', why, waitingFor };
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
