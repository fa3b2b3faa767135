import { quorumOf } from '../../../model/cluster-map.ts';
import type { ReplicaSets } from '../../../model/replica-sets.ts';
import { compareVersions, NO_VERSION, newestVersion, type Version } from '../../../model/version.ts';
import type { Consistency } from '../engine.ts';
import { isCovered } from '../horizon/rules.ts';
import { rebuildSources } from '../quorum.ts';
import type { RequestKnowledge } from './request-index.ts';

/** What a replica answers about a retried request. */
export interface RetryAnswer {
  readonly known: RequestKnowledge;
  /** Of what it stores of the key; says nothing where the request is not known. */
  readonly stored: Version | undefined;
  readonly horizonMs: number;
}

/**
 * - `finish`: the write stands at this version; it is to be brought to enough replicas.
 * - `write`: it has never been acknowledged, or it was beaten by a write acknowledged before it began: it is to be
 *   written, above everything that is stored.
 * - `wait`: the answers so far do not tell.
 */
export type RetryVerdict =
  | { readonly kind: 'finish'; readonly version: Version }
  | { readonly kind: 'write' }
  | { readonly kind: 'wait' };

export interface RetryEvidence {
  readonly sets: ReplicaSets;
  readonly consistency: Consistency;
  /** By replica. */
  readonly answers: ReadonlyMap<string, RetryAnswer>;
  /** The member that minted a version, when that is known. */
  readonly minterOf: (version: Version) => string | undefined;
}

/**
 * Decides what is to become of a retried write.
 *
 * Not found on a quorum of each write set, it is a new write: had it been acknowledged, one of them would hold it. Found,
 * two things must not happen. It must not be written again above a later write, of somebody who had read it before. And
 * it must not be called done when a write that was acknowledged at QUORUM before it began beats it, which its first
 * coordinator would have learned from the replicas that held that one (PROTOCOL 3).
 *
 * A replica that applied the write, minted it, or still has something older, did not hold a newer one when the write
 * began. n - Q + 1 such replicas of those that are read leave no quorum that could have: the write stands. Q replicas
 * that hold something newer and never applied it leave no quorum that could have acknowledged it: it is written again.
 * Everything else has to wait for more answers. At ONE a single replica acknowledges, and it was found on one.
 */
export function judgeRetry(evidence: RetryEvidence): RetryVerdict {
  const { sets, consistency, answers, minterOf } = evidence;
  const version = [...answers.values()].reduce(
    (newest, { known }) => (known.kind === 'held' ? newestVersion(newest, known.version) : newest),
    NO_VERSION,
  );
  if (compareVersions(version, NO_VERSION) === 0) return judgeMissing(sets, answers);
  if (consistency === 'ONE') return { kind: 'finish', version };
  const minter = minterOf(version);
  const had = (nodeId: string): boolean | undefined =>
    hadNothingNewer(version, answers.get(nodeId), nodeId === minter);
  const count = (set: readonly string[], is: boolean): number =>
    set.reduce((sum, nodeId) => sum + (had(nodeId) === is ? 1 : 0), 0);
  if (count(sets.read, true) >= rebuildSources(sets.read.length)) return { kind: 'finish', version };
  return sets.write.some((set) => count(set, false) >= quorumOf(set.length))
    ? { kind: 'write' }
    : { kind: 'wait' };
}

function judgeMissing(sets: ReplicaSets, answers: RetryEvidence['answers']): RetryVerdict {
  const enough = sets.write.every(
    (set) =>
      set.filter((nodeId) => answers.get(nodeId)?.known.kind === 'not-held').length >= quorumOf(set.length),
  );
  return enough ? { kind: 'write' } : { kind: 'wait' };
}

/** Undefined while it cannot be told. */
function hadNothingNewer(
  version: Version,
  answer: RetryAnswer | undefined,
  isMinter: boolean,
): boolean | undefined {
  if (isMinter) return true;
  if (answer === undefined) return undefined;
  const { known, stored, horizonMs } = answer;
  // It may have come and been forgotten, or newer things have been lost.
  if (known.kind === 'unknown') return undefined;
  if (known.kind === 'held' && compareVersions(known.version, version) === 0) return true;
  // Something newer may have been there and have been collected since.
  if (stored === undefined) return !isCovered(version, horizonMs);
  return compareVersions(stored, version) <= 0;
}
