import type { ClusterMap } from './cluster-map.ts';
import { workersInMap } from './workers.ts';

/**
 * What a cluster's writer (the operator, the local runner) does when it holds no map that nodes have taken: it may only
 * mint a cluster id when no volume can have data under another one (OPERATOR 2, PROTOCOL 29).
 */

/** What a member's volume holds, by the member's own answer. */
export type VolumeAnswer =
  /** It answered that its volume holds nothing. */
  | { readonly kind: 'blank' }
  /** Its volume belongs to a cluster; `map` is undefined when it never got one. */
  | { readonly kind: 'holds'; readonly clusterId: string; readonly map: ClusterMap | undefined }
  /** It has not answered; `why` is for a person. */
  | { readonly kind: 'unreachable'; readonly why: string };

/** A member that ought to exist, whether or not a map names it yet. */
export interface ExpectedMember {
  readonly nodeId: string;
  readonly answer: VolumeAnswer;
  /** Note on the volume from outside, made before the first map was written (annotation of the PVC). */
  readonly noted?: VolumeNote | undefined;
}

export interface VolumeNote {
  readonly clusterId: string;
  /** Whether the cluster has been in use: a blank volume has then lost its data. */
  readonly initialised: boolean;
}

export interface BootstrapInput {
  /** Every member that the specification or a known map names. */
  readonly members: readonly ExpectedMember[];
  /** The map that the writer has published (the ConfigMap), which nodes may not have yet. */
  readonly published?: ClusterMap | undefined;
}

export type AmbiguityReason =
  /** Volumes, notes or the published map name different clusters. */
  | 'several-clusters'
  /** Two maps of one epoch differ. */
  | 'conflicting-maps'
  /** A volume that belongs to a cluster cannot be asked. */
  | 'unreachable-volume'
  /** A cluster that was in use has neither a map nor data left. */
  | 'data-lost';

export type BootstrapDecision =
  /** Nothing holds data: write a first map, with this id when one was decided before a crash, else with a new one. */
  | { readonly kind: 'mint'; readonly clusterId: string | undefined }
  /** Decide again when these have answered; `map` is the newest that was heard of, and says who else there is. */
  | {
      readonly kind: 'wait';
      readonly waitingFor: readonly string[];
      readonly why: string;
      readonly map?: ClusterMap | undefined;
    }
  /** Go on with this map, the newest there is; `blank` are its members whose volumes hold nothing. */
  | { readonly kind: 'adopt'; readonly map: ClusterMap; readonly blank: readonly string[] }
  /** Write nothing; a person must look. */
  | { readonly kind: 'ambiguous'; readonly reason: AmbiguityReason; readonly message: string };

/** Decides how a cluster starts; pure, so the same facts always give the same decision. */
export function decideBootstrap({ members, published }: BootstrapInput): BootstrapDecision {
  const ids = clusterIds(members, published);
  if (ids.size > 1) {
    const each = [...ids].map(([id, holders]) => `${id} (${holders.join(', ')})`).join(' and ');
    return ambiguous('several-clusters', `volumes of different clusters: ${each}; keep those of one`);
  }
  const maps = mapsOf(members, published);
  const newest = newestMap(maps);
  if (newest === 'conflict') {
    return ambiguous('conflicting-maps', 'two different maps carry the highest epoch; nothing was written');
  }
  const silent = members.filter(({ answer }) => answer.kind === 'unreachable');
  const unheard = (newest?.members ?? []).filter(({ nodeId }) =>
    members.every((known) => known.nodeId !== nodeId),
  );
  // A published map was decided with every volume heard: later starts go on with whoever is reachable.
  if (published === undefined && silent.length + unheard.length > 0) return notHeard(silent, unheard, newest);
  if (newest !== undefined) return { kind: 'adopt', map: newest, blank: blankIn(newest, members) };
  return withoutMap(members, [...ids.keys()][0]);
}

/**
 * The map of the highest epoch, undefined when there is none, `conflict` when two of that epoch differ. All must be of
 * one cluster.
 */
export function newestMap(maps: readonly ClusterMap[]): ClusterMap | 'conflict' | undefined {
  const epoch = Math.max(...maps.map((map) => map.epoch));
  const newest = maps.filter((map) => map.epoch === epoch);
  return newest.some((map) => map.hash !== newest[0]?.hash) ? 'conflict' : newest[0];
}

/** How many pods a set gets that takes over a map: fewer than the map's members would be a drain (OPERATOR 2). */
export function replicasOnAdoption(specifiedReplicas: number, map: ClusterMap): number {
  return Math.max(specifiedReplicas, new Set(map.members.map((member) => member.pod)).size);
}

/** How many workers its pods get: fewer than the map's members need would be a drain, which comes first. */
export function workersOnAdoption(specifiedWorkers: number, map: ClusterMap): number {
  return Math.max(specifiedWorkers, workersInMap(map));
}

/** Every cluster id that anything names, with who names it. */
function clusterIds(
  members: readonly ExpectedMember[],
  published: ClusterMap | undefined,
): Map<string, readonly string[]> {
  const ids = new Map<string, readonly string[]>();
  const add = (id: string, holder: string): void => {
    ids.set(id, [...new Set([...(ids.get(id) ?? []), holder])]);
  };
  if (published !== undefined) add(published.clusterId, 'published map');
  for (const { nodeId, answer, noted } of members) {
    if (noted !== undefined) add(noted.clusterId, nodeId);
    if (answer.kind !== 'holds') continue;
    add(answer.clusterId, nodeId);
    if (answer.map !== undefined) add(answer.map.clusterId, nodeId);
  }
  return ids;
}

function mapsOf(
  members: readonly ExpectedMember[],
  published: ClusterMap | undefined,
): readonly ClusterMap[] {
  const held = members.flatMap(({ answer }) => (answer.kind === 'holds' ? (answer.map ?? []) : []));
  return published === undefined ? held : [published, ...held];
}

function notHeard(
  silent: readonly ExpectedMember[],
  unheard: readonly { readonly nodeId: string }[],
  map: ClusterMap | undefined,
): BootstrapDecision {
  const withData = silent.filter(({ noted }) => noted !== undefined);
  const reasons = silent.map(({ nodeId, answer }) =>
    answer.kind === 'unreachable' ? `${nodeId}: ${answer.why}` : nodeId,
  );
  if (withData.length > 0) {
    const names = withData.map(({ nodeId }) => nodeId).join(', ');
    return ambiguous(
      'unreachable-volume',
      `the volume of ${names} belongs to a cluster but does not answer (${reasons.join('; ')})`,
    );
  }
  const waitingFor = [...silent, ...unheard].map(({ nodeId }) => nodeId);
  const unasked = unheard.map(({ nodeId }) => `${nodeId}: named by the map, not asked yet`);
  return {
    kind: 'wait',
    waitingFor,
    why: [...reasons, ...unasked].join('; '),
    ...(map === undefined ? {} : { map }),
  };
}

function withoutMap(members: readonly ExpectedMember[], clusterId: string | undefined): BootstrapDecision {
  if (members.some(({ noted }) => noted?.initialised === true)) {
    return ambiguous(
      'data-lost',
      'the volumes are noted as those of a cluster in use, but hold nothing; to start empty, remove the notes',
    );
  }
  return { kind: 'mint', clusterId };
}

function blankIn(map: ClusterMap, members: readonly ExpectedMember[]): readonly string[] {
  const named = new Set(map.members.map(({ nodeId }) => nodeId));
  return members
    .filter(({ nodeId, answer }) => answer.kind === 'blank' && named.has(nodeId))
    .map(({ nodeId }) => nodeId);
}

function ambiguous(reason: AmbiguityReason, message: string): BootstrapDecision {
  return { kind: 'ambiguous', reason, message };
}
