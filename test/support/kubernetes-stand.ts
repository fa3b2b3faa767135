import type { Kubectl } from './kubectl.ts';
import { requireKubernetes, requireLocalNode, sharedCluster } from './kubernetes-cluster.ts';
import { healAll } from './kubernetes-faults.ts';
import { appImage } from './kubernetes-image.ts';
import { createNamespace, type TestNamespace } from './kubernetes-namespace.ts';
import { namespaceReport } from './kubernetes-report.ts';
import { KVClusterUnderTest } from './kvcluster.ts';
import { installOperator, type OperatorRelease } from './operator-release.ts';

/**
 * What the scenarios share, since raising it takes longer than most of them: an operator that watches two namespaces,
 * and in the first of them a KVCluster of three nodes. Every scenario leaves the cluster Ready and the operator running.
 */
export interface Stand {
  readonly image: string;
  readonly operator: OperatorRelease;
  /** kubectl in the cluster's namespace, which is the operator's too. */
  readonly kubectl: Kubectl;
  readonly cluster: KVClusterUnderTest;
  /** kubectl in another namespace that the operator watches, empty. */
  readonly neighbour: Kubectl;
}

interface OwnedStand extends Stand {
  readonly namespaces: readonly TestNamespace[];
}

let shared: Promise<OwnedStand> | undefined;

/** Removes the stand; the next scenario makes a new one. Nothing happens when there is none. */
export async function endStand(): Promise<void> {
  const ending = shared;
  shared = undefined;
  const stand = await ending?.catch(() => undefined);
  if (stand === undefined) return;
  await healAll();
  await stand.operator.uninstall();
  for (const namespace of stand.namespaces) await namespace.delete();
}

/** What a suite does with the stand before its first test and after its last. */
export interface StandHooks {
  prepare?: (stand: Stand) => Promise<void>;
  leave?: (stand: Stand) => Promise<void>;
}

/**
 * For the body of a `describe`: gives its tests the stand, whole before each of them, prints what there is to see after
 * a failure, and lets nobody after a failed suite have what it left.
 *
 * @param hooks - instead of `before` and `after`, which would run also where the suite is skipped.
 */
export function useStand(hooks: StandHooks = {}): () => Stand {
  let current: OwnedStand | undefined;
  let failed = false;

  before(async function () {
    this.timeout(40 * 60_000); // Kubernetes itself may have to be built first
    requireKubernetes(this);
    requireLocalNode(this, await sharedCluster());
    shared ??= raiseStand();
    current = await shared;
    try {
      await hooks.prepare?.(current);
    } catch (error) {
      failed = true;
      await report(current.namespaces);
      throw error;
    }
  });

  beforeEach(async () => {
    await current?.cluster.ready();
  });

  afterEach(async function () {
    if (this.currentTest?.state !== 'failed' || current === undefined) return;
    failed = true;
    await healAll();
    await report(current.namespaces);
  });

  after(async () => {
    if (failed) await endStand();
    else if (current !== undefined) await hooks.leave?.(current);
  });

  return () => {
    if (current === undefined) throw new Error('the stand exists only inside tests and hooks');
    return current;
  };
}

async function raiseStand(): Promise<OwnedStand> {
  const kubernetes = await sharedCluster();
  const image = await appImage(kubernetes);
  const namespaces: TestNamespace[] = [];
  try {
    for (const purpose of ['stand', 'neighbour']) {
      namespaces.push(await createNamespace(kubernetes.kubectl, purpose));
    }
    const [first, second] = namespaces as [TestNamespace, TestNamespace];
    const { kubectl } = first;
    const watchNamespaces = [first.name, second.name];
    const operator = await installOperator(kubectl, { image, watchNamespaces });
    const cluster = new KVClusterUnderTest(kubectl, 'kv');
    await cluster.apply();
    await cluster.ready(120_000);
    return { image, operator, kubectl, cluster, neighbour: second.kubectl, namespaces };
  } catch (error) {
    await report(namespaces);
    for (const namespace of namespaces) await namespace.delete();
    throw error;
  }
}

async function report(namespaces: readonly TestNamespace[]): Promise<void> {
  for (const { name, kubectl } of namespaces) {
    console.error(`=== namespace ${name}\n${await namespaceReport(kubectl)}`);
  }
}
