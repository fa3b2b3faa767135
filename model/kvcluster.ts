import { z } from 'zod';
import { refuseSchedule } from './cron-schedule.ts';
import { parseQuantity } from './quantity.ts';
import { MAX_WORKERS } from './workers.ts';

/**
 * A KVCluster as users write it. Fields, bounds and defaults are those of deploy/crd/kvclusters.kvcluster.io.yaml; a
 * test compares the two. The API server holds the rules in a cluster; here they are held again inside reconcile, and
 * for the local runner, which has no API server.
 */
export const KVCLUSTER_GROUP = 'kvcluster.io';
export const KVCLUSTER_VERSION = 'v1alpha1';
export const KVCLUSTER_API_VERSION = `${KVCLUSTER_GROUP}/${KVCLUSTER_VERSION}`;
export const KVCLUSTER_KIND = 'KVCluster';
export const KVCLUSTER_PLURAL = 'kvclusters';

/** Longest name: CronJob names, revision labels and Service names are made from it. */
export const MAX_NAME_LENGTH = 40;
const nameForm = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;

const quantityForm =
  /^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$/;
const amount = z.union([z.int(), z.string().max(32).regex(quantityForm)]);
const amounts = z.record(z.string().max(253), amount);

const storageSize = z
  .string()
  .min(1)
  .max(32)
  .superRefine((size, context) => {
    const parsed = parseQuantity(size);
    if (parsed === undefined) {
      context.addIssue(`must be a quantity such as 10Gi, not "${size}"`);
    } else if (parsed <= 0n) {
      context.addIssue(`must be more than 0, not "${size}"`);
    }
  });

const storage = z.strictObject({
  size: storageSize.default('1Gi'),
  storageClassName: z.string().max(253).optional(),
});

const toleration = z.strictObject({
  key: z.string().max(317).optional(),
  operator: z.enum(['Exists', 'Equal']).optional(),
  value: z.string().max(63).optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
  tolerationSeconds: z.int().optional(),
});

const topologySpread = z.strictObject({
  topologyKey: z.string().min(1).max(317),
  maxSkew: z.int().min(1).max(100).default(1),
  whenUnsatisfiable: z.enum(['DoNotSchedule', 'ScheduleAnyway']).default('ScheduleAnyway'),
});

const scheduling = z.strictObject({
  affinity: z.looseObject({}).optional(),
  nodeSelector: z.record(z.string().max(317), z.string().max(63)).optional(),
  tolerations: z.array(toleration).max(32).optional(),
  topologySpread: z.array(topologySpread).max(8).optional(),
});

const resources = z.strictObject({
  requests: amounts.optional(),
  limits: amounts.optional(),
});

const backup = z.strictObject({
  schedule: z
    .string()
    .min(1)
    .max(128)
    .superRefine((schedule, context) => {
      const refusal = refuseSchedule(schedule);
      if (refusal !== undefined) context.addIssue(refusal);
    }),
  timeZone: z.string().min(1).max(64).optional(),
  suspend: z.boolean().default(false),
  storage: storage.prefault({}),
});

const spec = z.strictObject({
  replicas: z.int().min(1).max(100).default(3),
  replicationFactor: z.int().min(1).max(7).default(3),
  partitions: z.int().min(1).max(4096).default(256),
  workersPerPod: z.int().min(1).max(MAX_WORKERS).default(1),
  image: z.string().min(1).max(512).regex(/^\S+$/, 'must not contain spaces').optional(),
  storage: storage.prefault({}),
  resources: resources.default({ requests: { cpu: '100m', memory: '256Mi' } }),
  scheduling: scheduling.optional(),
  backup: backup.optional(),
  paused: z.boolean().default(false),
});

/** The schema of `spec`: the TypeScript counterpart of the CRD's. */
export const kvClusterSpecSchema = spec;

/** A spec with every default filled in. */
export type KVClusterSpec = z.output<typeof spec>;
export type KVClusterStorage = z.output<typeof storage>;
export type KVClusterBackup = z.output<typeof backup>;
export type KVClusterScheduling = z.output<typeof scheduling>;
export type KVClusterResources = z.output<typeof resources>;

/** A valid KVCluster. */
export interface KVCluster {
  readonly name: string;
  /** `default` where the object names none. */
  readonly namespace: string;
  readonly spec: KVClusterSpec;
}

export type ParsedKVCluster =
  | { readonly ok: true; readonly cluster: KVCluster }
  /** Every problem found, each a sentence that begins with the field's path. */
  | { readonly ok: false; readonly problems: readonly string[] };

const envelope = z.looseObject({
  apiVersion: z.literal(KVCLUSTER_API_VERSION),
  kind: z.literal(KVCLUSTER_KIND),
  metadata: z.looseObject({
    name: z
      .string()
      .min(1)
      .refine((name) => name.length <= MAX_NAME_LENGTH && nameForm.test(name), {
        error: `must be at most ${MAX_NAME_LENGTH} characters: a lower-case letter, then letters, digits or "-", not "-" at the end`,
      }),
    namespace: z.string().min(1).default('default'),
  }),
  spec: spec.prefault({}),
});

/**
 * Checks an object read from YAML or the API server and fills in the defaults.
 *
 * @param unknownFields `refuse` reports fields of `spec` that do not exist, as `kubectl apply` does; `drop` ignores
 * them, as the API server does (an operator older than the installed CRD meets them). Default `refuse`.
 */
export function parseKVCluster(
  object: unknown,
  unknownFields: 'refuse' | 'drop' = 'refuse',
): ParsedKVCluster {
  const input = withoutNulls(object);
  const parsed = envelope.safeParse(input);
  if (parsed.success) {
    const { metadata, spec: completed } = parsed.data;
    return { ok: true, cluster: { name: metadata.name, namespace: metadata.namespace, spec: completed } };
  }
  const { issues } = parsed.error;
  if (unknownFields === 'drop' && issues.some((issue) => issue.code === 'unrecognized_keys')) {
    for (const issue of issues)
      if (issue.code === 'unrecognized_keys') dropKeys(input, issue.path, issue.keys);
    return parseKVCluster(input, unknownFields);
  }
  return { ok: false, problems: issues.map(sentenceOf) };
}

/** An independent copy without null fields: to the API server a null is the same as nothing, and gets the default. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (inner === null ? [] : [[key, withoutNulls(inner)]])),
  );
}

function dropKeys(root: unknown, path: readonly PropertyKey[], keys: readonly string[]): void {
  let target = root as Record<PropertyKey, unknown>;
  for (const step of path) target = target[step] as Record<PropertyKey, unknown>;
  for (const key of keys) Reflect.deleteProperty(target, key);
}

function sentenceOf(issue: z.core.$ZodIssue): string {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    return `${path === '' ? '' : `${path}: `}unknown field ${issue.keys.map((key) => `"${key}"`).join(', ')}`;
  }
  return path === '' ? issue.message : `${path}: ${issue.message}`;
}
