import { quorumOf } from '../../../model/cluster-map.ts';
import type { ReplicaSets } from '../../../model/replica-sets.ts';
import { compareVersions, formatVersion, type Version } from '../../../model/version.ts';
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
  /** Of the minter, which has been at it ever since: it has shown the write to no quorum read, and heard of no end of it. */
  readonly unsettled?: boolean;
}

/**
 * - `finish`: the write stands at this version; it is to be brought to enough replicas.
 * - `write`: it has never been acknowledged, or it was beaten, at this version, by a write acknowledged before it began: it
 *   is to be written, above everything that is stored.
 * - `wait`: the answers so far do not tell.
 */
export type RetryVerdict =
  | { readonly kind: 'finish'; readonly version: Version }
  | { readonly kind: 'write'; readonly beaten: Version | undefined }
  | { readonly kind: 'wait' };

export interface RetryEvidence {
  readonly sets: ReplicaSets;
  readonly consistency: Consistency;
  /** By replica. */
  readonly answers: ReadonlyMap<string, RetryAnswer>;
  /** A version that it is known to have been minted with. */
  readonly minted?: Version | undefined;
  /** The member that minted a version, when that is known. */
  readonly minterOf: (version: Version) => string | undefined;
  /** Whether a member may not have been a replica yet when a version was minted: what it holds says nothing then. */
  readonly isNewcomer: (nodeId: string, version: Version) => boolean;
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
 * that hold something newer and never applied it leave no quorum that could have acknowledged it: it is written again. And
 * so do n - Q + 1 that either never applied it or are its minter, who would know of a quorum of which it was one: nobody
 * has read it, or was told that it is done. Everything else has to wait for more answers. At ONE a single replica acknowledges, and it was found on one.
 */
export function judgeRetry(evidence: RetryEvidence): RetryVerdict {
  const { sets, consistency, answers, minted } = evidence;
  const versions = candidates(answers, minted);
  const [newest] = versions;
  if (newest === undefined) return judgeMissing(sets, answers);
  if (consistency === 'ONE') return { kind: 'finish', version: newest };
  // A retry that did not find it has given it another version, which may be a lower one.
  const standing = versions.find((version) => stands(version, evidence));
  if (standing !== undefined) return { kind: 'finish', version: standing };
  const isBeaten = versions.every((version) => isFree(version, evidence));
  return isBeaten ? { kind: 'write', beaten: newest } : { kind: 'wait' };
}

/** Every version that the write is known to have been given, the newest first. */
function candidates(answers: RetryEvidence['answers'], minted: Version | undefined): Version[] {
  const versions = new Map<string, Version>();
  if (minted !== undefined) versions.set(formatVersion(minted), minted);
  for (const { known } of answers.values()) {
    if (known.kind !== 'held') continue;
    // What its coordinator has given up, since it was beaten, is not what became of it.
    const isGivenUp = known.version.writer === minted?.writer && compareVersions(known.version, minted) < 0;
    if (!isGivenUp) versions.set(formatVersion(known.version), known.version);
  }
  return [...versions.values()].sort((a, b) => compareVersions(b, a));
}

/** No quorum can have held something newer when it began. */
function stands(version: Version, evidence: RetryEvidence): boolean {
  return leavesNoQuorum(evidence, (nodeId) => hadNothingNewer(version, nodeId, evidence) === true);
}

/** No quorum can have acknowledged it, or have shown it to a read. */
function isFree(version: Version, evidence: RetryEvidence): boolean {
  const { sets, answers, minted, isNewcomer } = evidence;
  const isMinted = minted !== undefined && compareVersions(version, minted) === 0;
  const had = (nodeId: string): boolean | undefined => hadNothingNewer(version, nodeId, evidence);
  const isUnsettled = (nodeId: string): boolean =>
    isMinted && answers.get(nodeId)?.unsettled === true && !isNewcomer(nodeId, version);
  if (leavesNoQuorum(evidence, (nodeId) => had(nodeId) === false || isUnsettled(nodeId))) return true;
  return sets.write.some(
    (set) => set.filter((nodeId) => had(nodeId) === false).length >= quorumOf(set.length),
  );
}

/** While a partition moves, members may go by either phase and read on either side. */
function leavesNoQuorum({ sets }: RetryEvidence, isWitness: (nodeId: string) => boolean): boolean {
  return sets.write.every((set) => set.filter(isWitness).length >= rebuildSources(set.length));
}

function judgeMissing(sets: ReplicaSets, answers: RetryEvidence['answers']): RetryVerdict {
  const enough = sets.write.every(
    (set) =>
      set.filter((nodeId) => answers.get(nodeId)?.known.kind === 'not-held').length >= quorumOf(set.length),
  );
  return enough ? { kind: 'write', beaten: undefined } : { kind: 'wait' };
}

/** Undefined while it cannot be told. */
function hadNothingNewer(
  version: Version,
  nodeId: string,
  { answers, minterOf, isNewcomer }: RetryEvidence,
): boolean | undefined {
  if (isNewcomer(nodeId, version)) return undefined;
  if (minterOf(version) === nodeId) return true;
  const answer = answers.get(nodeId);
  if (answer === undefined) return undefined;
  const { known, stored, horizonMs } = answer;
  // It may have come and been forgotten, or newer things have been lost.
  if (known.kind === 'unknown') return undefined;
  if (known.kind === 'held') {
    const order = compareVersions(known.version, version);
    if (order === 0) return true;
    // Of a request the newest version is remembered: this one may have been there before.
    if (order > 0) return undefined;
  }
  // Something newer may have been there and have been collected since.
  if (stored === undefined) return !isCovered(version, horizonMs);
  return compareVersions(stored, version) <= 0;
}
