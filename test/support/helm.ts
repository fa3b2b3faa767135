import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildBinaries } from '../cluster/build.ts';
import { run, type CommandOptions } from '../cluster/command.ts';
import { helmPath } from '../cluster/layout.ts';
import { clusterUnavailable } from '../cluster/requirements.ts';
import type { Kubectl } from './kubectl.ts';

/** Our chart. */
export const chartPath = join(import.meta.dirname, '../../charts/kvcluster');

/** Values of a chart, as in a values file. */
export type HelmValues = Readonly<Record<string, unknown>>;

/** Builds helm where a Kubernetes of one's own is built as well; elsewhere it must be in PATH. */
export async function provideHelm(): Promise<void> {
  if (existsSync(helmPath) || clusterUnavailable() !== undefined) return;
  await buildBinaries((line) => {
    console.error(`      helm: ${line}`);
  });
}

/**
 * Runs helm with values, if any, on standard input, and gives its standard output.
 *
 * @throws CommandError with the end of what helm wrote to standard error.
 */
export async function helm(
  args: readonly string[],
  options: CommandOptions & { kubectl?: Kubectl; values?: HelmValues } = {},
): Promise<string> {
  const { kubectl, values, ...rest } = options;
  const place =
    kubectl === undefined
      ? []
      : [
          `--kubeconfig=${kubectl.kubeconfig}`,
          ...(kubectl.namespace === undefined ? [] : [`--namespace=${kubectl.namespace}`]),
        ];
  const given = values === undefined ? [] : ['--values=-'];
  return run(existsSync(helmPath) ? helmPath : 'helm', [...args, ...place, ...given], {
    timeoutMs: 120_000,
    ...rest,
    ...(values === undefined ? {} : { input: JSON.stringify(values) }),
  });
}
