import { adminKubeconfig } from '../cluster/layout.ts';
import { takeLock } from '../cluster/lock.ts';
import { raise, runningCluster } from '../cluster/raise.ts';
import { clusterUnavailable } from '../cluster/requirements.ts';
import { tearDown } from '../cluster/tear-down.ts';
import { Kubectl } from './kubectl.ts';

export interface TestCluster {
  readonly kubeconfig: string;
  readonly kubectl: Kubectl;
  /** This run raised it and takes it down. */
  readonly owned: boolean;
  /** Its node is this machine: images can be imported, containers killed, pods cut off, the audit log read. */
  readonly local: boolean;
  /** Takes an owned cluster down and checks that nothing is left; leaves others as they are. Idempotent. */
  stop(): Promise<void>;
}

const log = (line: string): void => {
  console.error(`      kubernetes: ${line}`);
};

/**
 * The cluster that $KUBECONFIG names; without it the one that `npm run kube:up` left running here; otherwise one that
 * is raised now. Waits, and says so, while another run has this machine's cluster.
 */
export async function startOrUseCluster(): Promise<TestCluster> {
  const named = process.env.KUBECONFIG;
  if (named !== undefined && named !== '') {
    return cluster(named, { owned: false, local: named === adminKubeconfig, stop: () => Promise.resolve() });
  }
  const lock = await takeLock({ purpose: 'a test run', log });
  try {
    if ((await runningCluster()) === 'person') {
      log('using the cluster of npm run kube:up');
      return cluster(adminKubeconfig, { owned: false, local: true, stop: () => lock.release() });
    }
    const kubeconfig = await raise({ owner: 'run', log });
    const stop = async (): Promise<void> => {
      try {
        await tearDown();
      } finally {
        await lock.release();
      }
    };
    return cluster(kubeconfig, { owned: true, local: true, stop });
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function cluster(kubeconfig: string, rest: Pick<TestCluster, 'owned' | 'local' | 'stop'>): TestCluster {
  let stopped: Promise<void> | undefined;
  return {
    ...rest,
    kubeconfig,
    kubectl: new Kubectl(kubeconfig),
    stop: () => (stopped ??= rest.stop()),
  };
}

let shared: Promise<TestCluster> | undefined;

/** The run's one cluster: raised when first asked for. */
export async function sharedCluster(): Promise<TestCluster> {
  shared ??= startOrUseCluster();
  return shared;
}

/** Ends the run's cluster; the next {@link sharedCluster} raises another. Nothing happens when none was asked for. */
export async function endSharedCluster(): Promise<void> {
  const ending = shared;
  shared = undefined;
  // One that did not start has told so to whoever asked for it, and left nothing.
  const started = await ending?.catch(() => undefined);
  await started?.stop();
}

let reasonShown = false;

/**
 * To be called first in a suite: skips it, with the reason in one line, where no Kubernetes can be had. Under CI=true
 * that is a failure, since nobody would look for what was not tested.
 */
export function requireKubernetes(context: Mocha.Context): void {
  const named = process.env.KUBECONFIG ?? '';
  const reason = named === '' ? clusterUnavailable() : undefined;
  if (reason === undefined) return;
  if (process.env.CI === 'true') throw new Error(reason);
  if (!reasonShown) log(`tests are skipped: ${reason}`);
  reasonShown = true;
  context.skip();
}

/** Skips a test that works on the node itself when the cluster is elsewhere. */
export function requireLocalNode(context: Mocha.Context, used: TestCluster): void {
  if (used.local) return;
  log(`skipped, needs the node to be this machine: ${context.test?.fullTitle() ?? ''}`);
  context.skip();
}
