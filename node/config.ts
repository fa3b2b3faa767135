import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { messageOf } from '../common/errors.ts';
import { LOG_LEVELS, type LogLevel } from '../common/log.ts';
import { MAX_WORKERS, type NodePorts, workerPorts } from '../model/workers.ts';
import { FLAGS, type FlagName } from './flags.ts';

/** A peer at a fixed address. */
export interface StaticPeer {
  readonly nodeId: string;
  readonly host: string;
  readonly port: number;
}

/** How this node finds its peers: a fixed list, or the SRV records of the headless Service. */
export type DiscoveryConfig =
  | { readonly kind: 'static'; readonly peers: readonly StaticPeer[] }
  | {
      readonly kind: 'dns';
      /** Undefined: taken from resolv.conf. */
      readonly clusterDomain: string | undefined;
    };

/** Everything a node is told from outside; times in milliseconds, sizes in bytes. */
export interface NodeConfig {
  readonly nodeId: string;
  readonly pod: string;
  readonly host: string;
  /** Node processes; with more than one this process is none of them, and looks after them. */
  readonly workers: number;
  readonly namespace: string;
  readonly clusterName: string;
  readonly dataDir: string;
  readonly backupDir: string;
  /** Stores on the volume of `dataDir`, this one included. */
  readonly volumeStores: number;
  readonly secretFile: string;
  readonly partitions: number;
  readonly listen: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly httpPort: number;
  /** Where to write the ports that were bound, as JSON. */
  readonly portsFile: string | undefined;
  readonly discovery: DiscoveryConfig;
  readonly logLevel: LogLevel;
  readonly maxValueBytes: number;
  readonly maxInFlightBytes: number;
  readonly logBytes: number;
  readonly logAgeMs: number;
  readonly defaultDeadlineMs: number;
  readonly skewBoundMs: number;
  readonly collectionAgeMs: number;
  readonly heartbeatMs: number;
  readonly failureDetectionMs: number;
  readonly drainServeMs: number;
  readonly drainTimeoutMs: number;
}

/** Wrong flags; the message lists every problem, one per line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

const HOUR_MS = 3_600_000;
const MIB = 1024 * 1024;

const text = z.string().min(1, 'must not be empty');
const name = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, 'must be a lower-case DNS name, such as sample-0');
const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`));
const port = wholeNumber(0, 65_535);
const durationMs = wholeNumber(0, 366 * 24 * HOUR_MS);
const peerList = z.string().transform((list, context): StaticPeer[] => {
  const entries = list.split(',').filter((entry) => entry !== '');
  return entries.flatMap((entry) => {
    const match = /^([^=]+)=(?:\[([^\]]+)\]|([^:[\]]+)):(\d+)$/.exec(entry);
    const [, nodeId, bracketed, plain, portText] = match ?? [];
    const host = bracketed ?? plain;
    const peerPort = Number(portText);
    if (nodeId === undefined || host === undefined || peerPort < 1 || peerPort > 65_535) {
      context.addIssue({ code: 'custom', message: `must be name=host:port,..., and "${entry}" is not` });
      return [];
    }
    return [{ nodeId, host, port: peerPort }];
  });
});

const schema = z.object({
  'node-id': name,
  pod: name.optional(),
  host: text.optional(),
  workers: wholeNumber(1, MAX_WORKERS),
  namespace: name,
  'cluster-name': name,
  'data-dir': text,
  'backup-dir': text.optional(),
  'volume-stores': wholeNumber(1, MAX_WORKERS),
  'secret-file': text,
  partitions: wholeNumber(1, 65_536),
  listen: text,
  'client-port': port,
  'peer-port': port,
  'http-port': port,
  'ports-file': text.optional(),
  discovery: z.enum(['static', 'dns'], { error: 'must be static or dns' }),
  peers: peerList.optional(),
  'cluster-domain': name.optional(),
  'log-level': z.enum(LOG_LEVELS, { error: `must be one of ${LOG_LEVELS.join(', ')}` }),
  'max-value-bytes': wholeNumber(1, 16 * MIB),
  'max-in-flight-bytes': wholeNumber(1, 4096 * MIB),
  'log-bytes': wholeNumber(16 * MIB, 1024 * 1024 * MIB),
  'log-age-ms': durationMs,
  'default-deadline-ms': wholeNumber(1, HOUR_MS),
  'skew-bound-ms': wholeNumber(100, HOUR_MS),
  'collection-age-ms': durationMs,
  'heartbeat-ms': wholeNumber(10, HOUR_MS),
  'failure-detection-ms': wholeNumber(20, HOUR_MS),
  'drain-serve-ms': wholeNumber(0, HOUR_MS),
  'drain-timeout-ms': wholeNumber(0, HOUR_MS),
} satisfies Record<Exclude<FlagName, 'help' | 'version'>, z.ZodType>);

/**
 * Reads the command line of a node.
 *
 * @throws ConfigError with every problem: unknown, repeated, missing, malformed and contradictory flags.
 */
export function parseConfig(argv: readonly string[]): NodeConfig | 'help' | 'version' {
  const { values, problems } = readFlags(argv);
  if (values['help'] === true) return 'help';
  if (values['version'] === true) return 'version';
  const parsed = schema.safeParse(withDefaults(values));
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const flag = String(issue.path[0]);
      const missing = values[flag] === undefined;
      problems.push(missing ? `--${flag} is required` : `--${flag} ${issue.message}`);
    }
    throw new ConfigError(problems);
  }
  const config = toConfig(parsed.data);
  problems.push(...contradictions(config, values));
  if (problems.length > 0) throw new ConfigError(problems);
  return config;
}

/** The flags of a command line that `parseConfig` takes, without the dashes. */
export function givenFlags(argv: readonly string[]): Readonly<Record<string, string>> {
  const given = Object.entries(readFlags(argv).values);
  return Object.fromEntries(
    given.flatMap(([flag, value]) => (typeof value === 'string' ? [[flag, value]] : [])),
  );
}

/** The ports of a configuration by their kinds. */
export function portsOf({ clientPort, peerPort, httpPort }: NodeConfig): NodePorts {
  return { client: clientPort, peer: peerPort, http: httpPort };
}

type Values = Readonly<Record<string, string | boolean | undefined>>;

function readFlags(argv: readonly string[]): { values: Values; problems: string[] } {
  const problems: string[] = [];
  const options = Object.fromEntries(
    Object.entries(FLAGS).map(([flag, { value }]) => [
      flag,
      { type: value === undefined ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  const { values, tokens } = parseArgs({ args: [...argv], options, strict: false, tokens: true });
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind === 'positional') problems.push(`unexpected argument "${token.value}"`);
    if (token.kind !== 'option') continue;
    const flag = Object.hasOwn(FLAGS, token.name) ? FLAGS[token.name as FlagName] : undefined;
    if (flag === undefined) problems.push(`unknown flag ${token.rawName}`);
    else if (seen.has(token.name)) problems.push(`--${token.name} is given twice`);
    else if (flag.value !== undefined && token.value === undefined)
      problems.push(`--${token.name} needs a value`);
    seen.add(token.name);
  }
  return { values, problems };
}

function withDefaults(values: Values): Values {
  const defaults = Object.entries(FLAGS).map(([flag, { fallback }]) => [flag, fallback] as const);
  const given = Object.entries(values).filter(([, value]) => typeof value === 'string');
  return Object.fromEntries([...defaults, ...given]);
}

function toConfig(flags: z.infer<typeof schema>): NodeConfig {
  const pod = flags.pod ?? flags['node-id'];
  return {
    nodeId: flags['node-id'],
    pod,
    host: flags.host ?? pod,
    workers: flags.workers,
    namespace: flags.namespace,
    clusterName: flags['cluster-name'],
    dataDir: flags['data-dir'],
    backupDir: flags['backup-dir'] ?? join(flags['data-dir'], 'backups'),
    volumeStores: flags['volume-stores'],
    secretFile: flags['secret-file'],
    partitions: flags.partitions,
    listen: flags.listen,
    clientPort: flags['client-port'],
    peerPort: flags['peer-port'],
    httpPort: flags['http-port'],
    portsFile: flags['ports-file'],
    discovery:
      flags.discovery === 'static'
        ? { kind: 'static', peers: flags.peers ?? [] }
        : { kind: 'dns', clusterDomain: flags['cluster-domain'] },
    logLevel: flags['log-level'],
    maxValueBytes: flags['max-value-bytes'],
    maxInFlightBytes: flags['max-in-flight-bytes'],
    logBytes: flags['log-bytes'],
    logAgeMs: flags['log-age-ms'],
    defaultDeadlineMs: flags['default-deadline-ms'],
    skewBoundMs: flags['skew-bound-ms'],
    collectionAgeMs: flags['collection-age-ms'],
    heartbeatMs: flags['heartbeat-ms'],
    failureDetectionMs: flags['failure-detection-ms'],
    drainServeMs: flags['drain-serve-ms'],
    drainTimeoutMs: flags['drain-timeout-ms'],
  };
}

function contradictions(config: NodeConfig, values: Values): string[] {
  const problems: string[] = [];
  const fixed = [config.clientPort, config.peerPort, config.httpPort].filter((number) => number !== 0);
  if (new Set(fixed).size !== fixed.length)
    problems.push('--client-port, --peer-port and --http-port must differ');
  if (config.workers > 1) problems.push(...contradictionsOfWorkers(config));
  if (config.discovery.kind === 'dns' && values['peers'] !== undefined) {
    problems.push('--peers goes with --discovery static');
  }
  if (config.discovery.kind === 'static' && values['cluster-domain'] !== undefined) {
    problems.push('--cluster-domain goes with --discovery dns');
  }
  if (config.failureDetectionMs < 2 * config.heartbeatMs) {
    problems.push('--failure-detection-ms must be at least twice --heartbeat-ms');
  }
  if (config.maxInFlightBytes < config.maxValueBytes) {
    problems.push('--max-in-flight-bytes must be at least --max-value-bytes');
  }
  return problems;
}

function contradictionsOfWorkers(config: NodeConfig): string[] {
  const problems: string[] = [];
  const { workers } = config;
  if (config.nodeId !== config.pod)
    problems.push('--workers goes with a --node-id that is the name of the pod');
  if (config.portsFile !== undefined) problems.push('--ports-file goes with one worker');
  const pod = portsOf(config);
  if (Object.values(pod).includes(0)) return [...problems, '--workers goes with ports that are named, not 0'];
  const ports = Array.from({ length: workers }, (_, worker) =>
    Object.values(workerPorts(pod, worker, workers)),
  );
  const all = [pod.client, pod.http, ...ports.flat()];
  if (new Set(all).size !== all.length)
    problems.push('--workers makes ports of one kind meet those of another');
  if (Math.max(...all) > 65_535) problems.push('--workers needs ports above 65535: choose lower ones');
  return problems;
}

/** What is wrong with a command line, for a person. */
export function explainConfigError(error: unknown): string {
  if (!(error instanceof ConfigError)) return messageOf(error);
  return [...error.problems.map((problem) => `kvcluster node: ${problem}`), 'See --help for all flags.'].join(
    '\n',
  );
}
