import { chartPath, helm, type HelmValues } from './helm.ts';
import type { Kubectl } from './kubectl.ts';

export interface OperatorReleaseOptions {
  /** Image of operator and nodes, with tag. */
  image: string;
  /** @default kvcluster */
  release?: string;
  /** @default the namespace of the release; an empty list means all namespaces */
  watchNamespaces?: readonly string[];
  /** Further values of the chart. */
  values?: HelmValues;
}

/** An operator installed by the chart; disposing of it uninstalls it, which leaves CRD and clusters. */
export interface OperatorRelease extends AsyncDisposable {
  readonly name: string;
  /** kubectl in the namespace of the release. */
  readonly kubectl: Kubectl;
  /** Installs again over it, with these values added or changed, and waits until it is rolled out. */
  upgrade(values: HelmValues, options?: { chart?: string }): Promise<void>;
  /** Runs 0 or 1 of it; returns when that is so. */
  scale(replicas: 0 | 1): Promise<void>;
  /** Idempotent. */
  uninstall(): Promise<void>;
}

/**
 * Installs the operator with the chart into the namespace of `kubectl` and waits until it is ready. Takes over a CRD
 * that an earlier test, or somebody else, left in the cluster.
 */
export async function installOperator(
  kubectl: Kubectl,
  options: OperatorReleaseOptions,
): Promise<OperatorRelease> {
  const { namespace } = kubectl;
  if (namespace === undefined) throw new Error('an operator is installed into a namespace');
  const { release = 'kvcluster', watchNamespaces = [namespace], values = {} } = options;
  const all = { image: imageValues(options.image), watchNamespaces, ...values };
  const apply = async (more: HelmValues, chart: string): Promise<void> => {
    const args = ['upgrade', '--install', release, chart, '--wait', '--timeout=90s'];
    await helm([...args, '--take-ownership', '--force-conflicts'], { kubectl, values: { ...all, ...more } });
  };
  const uninstall = async (): Promise<void> => {
    await helm(['uninstall', release, '--ignore-not-found', '--wait', '--timeout=60s'], { kubectl });
  };
  const scale = async (replicas: 0 | 1): Promise<void> => {
    await kubectl.run(['scale', 'deployment', release, `--replicas=${replicas}`]);
    const selector = '--selector=app.kubernetes.io/name=kvcluster-operator';
    if (replicas === 0) await kubectl.run(['wait', '--for=delete', 'pod', selector, '--timeout=40s']);
    else await kubectl.run(['rollout', 'status', `deployment/${release}`, '--timeout=40s']);
  };
  await apply({}, chartPath);
  return {
    name: release,
    kubectl,
    upgrade: (more, { chart = chartPath } = {}) => apply(more, chart),
    scale,
    uninstall,
    [Symbol.asyncDispose]: uninstall,
  };
}

/** The chart's values for an image that is in the node already. */
export function imageValues(image: string): HelmValues {
  const colon = image.lastIndexOf(':');
  return { repository: image.slice(0, colon), tag: image.slice(colon + 1), pullPolicy: 'IfNotPresent' };
}
