import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { LOCAL_DATA_DIR } from '../../client/local-cluster.ts';
import { KvError, messageOf } from '../../common/errors.ts';

/** What the runner is told on its command line. */
export interface RunnerArguments {
  /** Path of a KVCluster manifest. */
  readonly manifest: string;
  readonly dataDir: string;
  /** First client port; 0: any free ports. */
  readonly basePort: number;
  /** Instead of the manifest's replicas. */
  readonly nodes: number | undefined;
  /** Instead of the manifest's workersPerPod. */
  readonly workers: number | undefined;
  /** Whether the nodes' logs go to the terminal instead of files. */
  readonly verbose: boolean;
}

/** First client port when none is named. */
export const DEFAULT_BASE_PORT = 50_051;
/** Ports of one kind lie within this many of each other, so that the kinds do not meet. */
export const MAX_LOCAL_NODES = 100;
/** And so do those of the workers of one node, a hundred apart. */
export const MAX_LOCAL_WORKERS = 9;
/** With more than one worker, worker 0 has own ports above those of this many nodes. */
export const MAX_LOCAL_NODES_WITH_WORKERS = 50;

/** The text of --help. */
export const RUNNER_HELP = `Usage: npm start -- [flags]

Runs the KVCluster of a manifest as processes on this machine.

  --manifest FILE   KVCluster to run (default deploy/samples/kvcluster.yaml)
  --nodes N         number of nodes instead of the manifest's replicas
  --workers N       processes of each node, each a member with a store of its own, instead of the manifest's
                    workersPerPod; worker n uses the node's ports + 100 n
  --data-dir DIR    where data, logs and the secret lie (default ${LOCAL_DATA_DIR})
  --base-port N     first client port (default ${DEFAULT_BASE_PORT}); peers use N+1000 and up, HTTP N+2000 and up
                    (by default 9091 and up); 0: any free ports
  --verbose         show the nodes' logs instead of writing them to DIR/logs
  --help            print this and exit
`;

/**
 * Reads the runner's command line.
 *
 * @param root directory of this software, where the sample manifest is.
 * @throws KvError INVALID_ARGUMENT saying what is wrong.
 */
export function parseRunnerArguments(argv: readonly string[], root: string): RunnerArguments | 'help' {
  const values = readFlags(argv);
  if (values.help === true) return 'help';
  return {
    manifest: values.manifest ?? join(root, 'deploy/samples/kvcluster.yaml'),
    dataDir: values['data-dir'] ?? LOCAL_DATA_DIR,
    basePort: numberFlag('--base-port', values['base-port'], 0, 63_000) ?? DEFAULT_BASE_PORT,
    nodes: numberFlag('--nodes', values.nodes, 1, MAX_LOCAL_NODES),
    workers: numberFlag('--workers', values.workers, 1, MAX_LOCAL_WORKERS),
    verbose: values.verbose ?? false,
  };
}

function readFlags(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        manifest: { type: 'string' },
        'data-dir': { type: 'string' },
        'base-port': { type: 'string' },
        nodes: { type: 'string' },
        workers: { type: 'string' },
        verbose: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (error) {
    throw new KvError('INVALID_ARGUMENT', `${messageOf(error)}; see --help`, { cause: error });
  }
}

function numberFlag(flag: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new KvError(
    'INVALID_ARGUMENT',
    `${flag} must be a whole number from ${min} to ${max}, not "${text}"`,
  );
}
