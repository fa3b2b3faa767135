import { SECRET_BYTES } from '../../common/shared-secret.ts';
import { annotations, labelsOf, objectNames, ownedMetadata, ownerReferenceTo } from '../resources/names.ts';
import { SECRET_KEY } from '../resources/statefulset.ts';
import { isNotFound, type KubernetesObject } from '../runtime/api.ts';
import { ownershipOf } from '../runtime/ownership.ts';
import { pathOf, resources } from '../runtime/resource.ts';
import { nameConflict } from './guard.ts';
import { blocked, proceed, requeueAfter, type StepContext, type StepResult } from './step.ts';

interface Secret extends KubernetesObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** How long a secret is taken as read. Secrets are not watched: that would need the right to read all of them. */
const REREAD_MS = 60_000;

/** Makes the cluster's shared secret, once, and remembers it. It is never overwritten: running nodes have loaded it. */
export async function ensureSecret(context: StepContext): Promise<StepResult> {
  const { memory, clock, cluster } = context;
  const nowMs = clock.monotonicMs();
  if (memory.secret !== undefined && nowMs - memory.secret.readMs < REREAD_MS) return proceed;
  const found = await readSecret(context);
  const name = objectNames(cluster.name).secret;
  switch (ownershipOf(found, cluster)) {
    case 'foreign':
      return nameConflict(context, [`Secret ${name}`]);
    case 'earlier':
      return requeueAfter(500, 'Adopting', `Waiting for Secret ${name} of the deleted KVCluster to go.`);
    case 'absent':
      remember(context, await createSecret(context), nowMs);
      return proceed;
    case 'ours': {
      const bytes = Buffer.from(found?.data?.[SECRET_KEY] ?? '', 'base64');
      if (bytes.length < SECRET_BYTES) {
        return blocked(
          'InvalidSecret',
          `Secret ${name} lacks its key; restore it, or delete it and all pods.`,
        );
      }
      if (found !== undefined && found.metadata.ownerReferences === undefined) await takeOver(context, found);
      remember(context, bytes, nowMs);
      return proceed;
    }
  }
}

/**
 * Reads the secret of a cluster that this process has not looked at yet, so that its nodes can be asked from the first
 * look on: a restarted operator must not take silence of its own making for a cluster that is down.
 */
export async function recallSecret(context: SecretContext): Promise<void> {
  if (context.memory.secret !== undefined) return;
  const found = await readSecret(context);
  if (ownershipOf(found, context.cluster) !== 'ours') return;
  const bytes = Buffer.from(found?.data?.[SECRET_KEY] ?? '', 'base64');
  // Read as of long ago: the step still does its checks.
  if (bytes.length >= SECRET_BYTES) remember(context, bytes, Number.NEGATIVE_INFINITY);
}

type SecretContext = Pick<StepContext, 'api' | 'cluster' | 'memory' | 'connectAdmin' | 'signal'>;

function remember({ memory, connectAdmin }: SecretContext, bytes: Buffer, readMs: number): void {
  if (memory.secret?.bytes.equals(bytes) !== true) {
    memory.admin?.close();
    memory.admin = connectAdmin(bytes);
  }
  memory.secret = { bytes, readMs };
}

async function readSecret({ api, cluster, signal }: SecretContext): Promise<Secret | undefined> {
  const path = pathOf(resources.secrets, {
    namespace: cluster.namespace,
    name: objectNames(cluster.name).secret,
  });
  try {
    return await api.request<Secret>({ method: 'GET', path, signal });
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function createSecret({ api, cluster, random, signal, memory }: StepContext): Promise<Buffer> {
  // A deleted Secret comes back as it was while the nodes that know it still run.
  const bytes = memory.secret?.bytes ?? random.bytes(SECRET_BYTES);
  await api.request({
    method: 'POST',
    path: pathOf(resources.secrets, { namespace: cluster.namespace }),
    body: {
      apiVersion: resources.secrets.apiVersion,
      kind: resources.secrets.kind,
      type: 'Opaque',
      metadata: ownedMetadata(cluster, objectNames(cluster.name).secret, 'node'),
      data: { [SECRET_KEY]: bytes.toString('base64') },
    },
    signal,
  });
  return bytes;
}

/** An earlier KVCluster left it without an owner. The content is not sent: it must not change. */
async function takeOver({ api, cluster, signal }: StepContext, secret: Secret): Promise<void> {
  const { name, resourceVersion } = secret.metadata;
  await api.request({
    method: 'PATCH',
    path: pathOf(resources.secrets, { namespace: cluster.namespace, name }),
    contentType: 'application/merge-patch+json',
    body: {
      metadata: {
        resourceVersion,
        labels: labelsOf(cluster, 'node'),
        annotations: { [annotations.cluster]: `${cluster.namespace}/${cluster.name}` },
        ownerReferences: [ownerReferenceTo(cluster)],
      },
    },
    signal,
  });
}
