import { expect } from 'chai';
import { Checker, type CheckerCounts } from './checker.ts';
import type { KVClusterUnderTest } from './kvcluster.ts';
import { MembersObserver } from './kvcluster-members.ts';
import { waitFor } from './wait.ts';

const writesPerSecond = 250;
/** What is acknowledged in ten seconds or more, before and after the fault. */
const calmMs = 10_000;
const calmWrites = (calmMs / 1000) * writesPerSecond;
/** Acknowledged while the fault is there. */
const writesInFault = 1000;

/** What became of the writes while the fault was there, and in the whole run. */
export interface WriterReport {
  readonly inFault: CheckerCounts;
  readonly all: CheckerCounts;
}

/**
 * Runs a fault, and the recovery from it, under a writer that goes through the Service, from ten seconds before to ten
 * seconds after; then expects every acknowledged write at ONE on every node, and at QUORUM.
 *
 * @param fault - returns when the cluster is whole again.
 */
export async function underWriter(
  cluster: KVClusterUnderTest,
  fault: () => Promise<void>,
): Promise<WriterReport> {
  const checker = await Checker.start({ endpoints: [await cluster.serviceEndpoint()], writesPerSecond });
  let inFault: CheckerCounts;
  try {
    await acknowledged(checker, calmWrites);
    const before = checker.soFar;
    await fault();
    await acknowledged(checker, before.acknowledged + writesInFault - checker.soFar.acknowledged);
    inFault = difference(checker.soFar, before);
    await acknowledged(checker, calmWrites);
  } finally {
    await checker.stop();
  }
  await using members = await MembersObserver.start(cluster);
  await members.allInSync(performance.now());
  expect(await checker.verify(await cluster.podEndpoints()), 'violations').to.deep.equal([]);
  return { inFault, all: checker.soFar };
}

/** Waits for so many more; a machine that does other things too may take four times as long. */
async function acknowledged(checker: Checker, writes: number): Promise<void> {
  const goal = checker.soFar.acknowledged + writes;
  const timeoutMs = 4 * calmMs;
  await waitFor({ what: `${writes} more acknowledged writes`, timeoutMs }, (see) => {
    see(JSON.stringify(checker.soFar));
    return checker.soFar.acknowledged >= goal;
  });
}

function difference(after: CheckerCounts, before: CheckerCounts): CheckerCounts {
  return {
    acknowledged: after.acknowledged - before.acknowledged,
    refused: after.refused - before.refused,
    unknown: after.unknown - before.unknown,
  };
}
