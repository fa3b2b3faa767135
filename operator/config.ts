import { parseArgs } from 'node:util';
import { z } from 'zod';
import { KvError } from '../common/errors.ts';
import { LOG_LEVELS, type LogLevel } from '../common/log.ts';

/** How an operator process is started. */
export interface OperatorConfig {
  /** Namespaces whose KVClusters it runs; empty: all. */
  readonly namespaces: readonly string[];
  /** Image of the nodes of new clusters that name none. */
  readonly defaultImage: string;
  /** Whether a Lease decides which of several processes works. */
  readonly leaderElection: boolean;
  readonly leaseName: string;
  /** Namespace of the Lease; absent: that of the service account or kubeconfig. */
  readonly leaseNamespace: string | undefined;
  /** For /metrics, /healthz and /readyz; 0 takes any free one. */
  readonly httpPort: number;
  /** Absent: from /etc/resolv.conf. */
  readonly clusterDomain: string | undefined;
  /** Clusters reconciled at the same time. */
  readonly concurrency: number;
  readonly logLevel: LogLevel;
}

export const OPERATOR_USAGE = `usage: operator [flags]
  --namespaces=a,b           namespaces to work in; empty means all (default: all)
  --default-image=IMAGE      image of nodes whose KVCluster names none (required)
  --leader-election=BOOL     let a Lease decide which of several processes works (default: true)
  --lease-name=NAME          name of that Lease (default: kvcluster-operator)
  --lease-namespace=NAME     its namespace (default: $POD_NAMESPACE, or that of the credentials)
  --http-port=PORT           port of /metrics, /healthz and /readyz (default: 9090)
  --cluster-domain=DOMAIN    DNS domain of the Kubernetes cluster (default: from /etc/resolv.conf)
  --concurrency=N            clusters reconciled at the same time (default: 8)
  --log-level=LEVEL          ${LOG_LEVELS.join(', ')} (default: info)
  --help, --version          print this, or the version, and exit`;

const names = z
  .string()
  .transform((text) => text.split(',').filter((name) => name !== ''))
  .refine((list) => list.every((name) => /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(name)), {
    error: 'must be names of namespaces, separated by commas',
  });
const flag = z.enum(['true', 'false']).transform((text) => text === 'true');
const integer = (min: number, max: number) =>
  z.string().regex(/^\d+$/, 'must be a whole number').transform(Number).pipe(z.int().min(min).max(max));

const schema = z.object({
  namespaces: names.default([]),
  'default-image': z
    .string({ error: 'is required' })
    .min(1, 'is required')
    .regex(/^\S+$/, 'must not contain spaces'),
  'leader-election': flag.default(true),
  'lease-name': z.string().min(1).default('kvcluster-operator'),
  'lease-namespace': z.string().min(1).optional(),
  'http-port': integer(0, 65_535).default(9090),
  'cluster-domain': z.string().min(1).optional(),
  concurrency: integer(1, 256).default(8),
  'log-level': z.enum(LOG_LEVELS).default('info'),
});

/**
 * Reads the command line.
 *
 * @throws KvError INVALID_ARGUMENT with every problem, and the usage.
 */
export function parseOperatorConfig(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): OperatorConfig | 'help' | 'version' {
  if (args.includes('--help')) return 'help';
  if (args.includes('--version')) return 'version';
  const options = Object.fromEntries(
    Object.keys(schema.shape).map((name) => [name, { type: 'string' as const }]),
  );
  const { values, tokens } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const given = new Set<string>();
  const strange = tokens.flatMap((token) => {
    if (token.kind === 'positional') return [`unexpected argument "${token.value}"`];
    if (token.kind !== 'option') return [];
    if (!Object.hasOwn(options, token.name)) return [`unknown flag ${token.rawName}`];
    const isRepeated = given.has(token.name);
    given.add(token.name);
    return isRepeated ? [`${token.rawName} is given twice`] : [];
  });
  const parsed = schema.safeParse({ 'lease-namespace': environment['POD_NAMESPACE'], ...values });
  const wrong = parsed.success
    ? []
    : parsed.error.issues.map(({ path, message }) => `--${path.map(String).join('.')} ${message}`);
  if (!parsed.success || strange.length > 0) {
    throw new KvError('INVALID_ARGUMENT', `${[...strange, ...wrong].join('\n')}\n${OPERATOR_USAGE}`);
  }
  const { data } = parsed;
  return {
    namespaces: data.namespaces,
    defaultImage: data['default-image'],
    leaderElection: data['leader-election'],
    leaseName: data['lease-name'],
    leaseNamespace: data['lease-namespace'],
    httpPort: data['http-port'],
    clusterDomain: data['cluster-domain'],
    concurrency: data.concurrency,
    logLevel: data['log-level'],
  };
}
