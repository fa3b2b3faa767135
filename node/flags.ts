/** A command-line flag. Without `value` it takes none. */
interface Flag {
  /** What stands for the value in the help. */
  readonly value?: string;
  /** The default, as it would be typed. */
  readonly fallback?: string;
  readonly help: string;
}

const flags = {
  'node-id': { value: 'NAME', help: "this member's stable name in the cluster map, such as sample-0" },
  pod: { value: 'NAME', help: 'pod or machine the node runs on; default: --node-id' },
  host: { value: 'LABEL', help: 'DNS label within the headless Service, or an address; default: --pod' },
  workers: {
    value: 'N',
    fallback: '1',
    help: 'node processes, each a member with a store of its own; worker n has ports 100 n above these',
  },
  namespace: { value: 'NAME', fallback: 'default', help: 'namespace of the KVCluster' },
  'cluster-name': { value: 'NAME', help: 'name of the KVCluster' },
  'data-dir': { value: 'DIR', help: 'directory of the store; one node process at a time' },
  'backup-dir': { value: 'DIR', help: 'directory of node-local snapshots; default: <data-dir>/backups' },
  'volume-stores': {
    value: 'N',
    fallback: '1',
    help: 'stores that share the volume of --data-dir; this one takes one part of so many',
  },
  'secret-file': {
    value: 'FILE',
    help: "the cluster's shared secret, for calls between nodes and by administrators",
  },
  partitions: { value: 'N', fallback: '256', help: 'number of hash partitions; must never change' },
  listen: { value: 'ADDRESS', fallback: '0.0.0.0', help: 'address that all three ports listen on' },
  'client-port': { value: 'PORT', fallback: '50051', help: 'gRPC for clients; 0: any free one' },
  'peer-port': {
    value: 'PORT',
    fallback: '50052',
    help: 'gRPC for peers and administrators; 0: any free one',
  },
  'http-port': { value: 'PORT', fallback: '9090', help: '/metrics, /healthz, /readyz; 0: any free one' },
  'ports-file': { value: 'FILE', help: 'write the bound ports there as JSON, once all are bound' },
  discovery: { value: 'static|dns', fallback: 'static', help: 'how to find the peers' },
  peers: { value: 'NAME=HOST:PORT,...', help: 'with static discovery: peer ports of the members' },
  'cluster-domain': { value: 'DOMAIN', help: 'with dns discovery; default: from resolv.conf' },
  'log-level': { value: 'LEVEL', fallback: 'info', help: 'debug, info, warn, error or silent' },
  'max-value-bytes': { value: 'BYTES', fallback: '1048576', help: 'largest value accepted' },
  'max-in-flight-bytes': {
    value: 'BYTES',
    fallback: '67108864',
    help: 'writes under way before new ones are refused',
  },
  'log-bytes': { value: 'BYTES', fallback: '1073741824', help: 'cap of the apply log' },
  'log-age-ms': {
    value: 'MS',
    fallback: '86400000',
    help: 'age at which segments of the apply log are dropped',
  },
  'default-deadline-ms': { value: 'MS', fallback: '5000', help: 'for calls that come without a deadline' },
  'skew-bound-ms': { value: 'MS', fallback: '2000', help: 'how far clocks of members may differ' },
  'collection-age-ms': {
    value: 'MS',
    fallback: '60000',
    help: 'how old a tombstone is at least when it is collected',
  },
  'heartbeat-ms': { value: 'MS', fallback: '500', help: 'how often peers hear from this node' },
  'failure-detection-ms': {
    value: 'MS',
    fallback: '2000',
    help: 'silence after which a peer counts as gone',
  },
  'drain-serve-ms': { value: 'MS', fallback: '5000', help: 'how long to go on serving after SIGTERM' },
  'drain-timeout-ms': { value: 'MS', fallback: '30000', help: 'how long operations in flight may then take' },
  help: { help: 'print this and exit' },
  version: { help: 'print the version and exit' },
} as const satisfies Record<string, Flag>;

export type FlagName = keyof typeof flags;

/** Every flag of a node, in the order of the help. */
export const FLAGS: Readonly<Record<FlagName, Flag>> = flags;

/** The text of --help. */
export function helpText(): string {
  const rows = Object.entries(FLAGS).map(([name, flag]) => {
    const left = flag.value === undefined ? `--${name}` : `--${name} ${flag.value}`;
    const fallback = flag.fallback === undefined ? '' : ` (default ${flag.fallback})`;
    return { left, right: `${flag.help}${fallback}` };
  });
  const width = Math.max(...rows.map(({ left }) => left.length)) + 2;
  const lines = rows.map(({ left, right }) => `  ${left.padEnd(width)}${right}`);
  return [
    'Usage: kvcluster node --node-id NAME --cluster-name NAME --data-dir DIR --secret-file FILE [flags]',
    '',
    ...lines,
    '',
  ].join('\n');
}
