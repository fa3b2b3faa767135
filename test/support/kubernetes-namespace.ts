import type { Kubectl } from './kubectl.ts';

export interface TestNamespace extends AsyncDisposable {
  readonly name: string;
  /** kubectl in this namespace. */
  readonly kubectl: Kubectl;
  /** Deletes it and all in it. @default { wait: false } */
  delete(options?: { wait?: boolean }): Promise<void>;
}

/**
 * Makes a namespace of a name not used before, in which the API server refuses every pod that does not meet the
 * pod security standard `restricted`.
 *
 * @param purpose - first part of the name: lower-case letters, digits and dashes.
 */
export async function createNamespace(kubectl: Kubectl, purpose: string): Promise<TestNamespace> {
  const name = `${purpose}-${crypto.randomUUID().slice(0, 8)}`;
  await kubectl.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name,
        labels: {
          'pod-security.kubernetes.io/enforce': 'restricted',
          'pod-security.kubernetes.io/enforce-version': 'latest',
        },
      },
    },
  ]);
  const inside = kubectl.in(name);
  // A pod made before its service account is refused.
  await inside.run(['wait', '--for=create', 'serviceaccount/default', '--timeout=30s']);
  const remove = async ({ wait = false }: { wait?: boolean } = {}): Promise<void> => {
    const args = ['delete', 'namespace', name, '--ignore-not-found', `--wait=${wait}`];
    await kubectl.run(args, { timeoutMs: 120_000 });
  };
  return { name, kubectl: inside, delete: remove, [Symbol.asyncDispose]: () => remove() };
}

/** What the standard `restricted` asks of a pod, with the user and group of our image. */
export const restrictedPodSecurity = {
  runAsNonRoot: true,
  runAsUser: 65532,
  runAsGroup: 65532,
  fsGroup: 65532,
  seccompProfile: { type: 'RuntimeDefault' },
} as const;

/** What the standard `restricted` asks of a container, and a root file system that nobody writes to. */
export const restrictedContainerSecurity = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
} as const;
