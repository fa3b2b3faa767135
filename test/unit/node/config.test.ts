import { expect } from 'chai';
import { ConfigError, parseConfig, type NodeConfig } from '../../../node/config.ts';
import { FLAGS, helpText } from '../../../node/flags.ts';

const required = [
  '--node-id',
  'a-0',
  '--cluster-name',
  'a',
  '--data-dir',
  '/data',
  '--secret-file',
  '/secret',
];

function parsed(...more: readonly string[]): NodeConfig {
  const config = parseConfig([...required, ...more]);
  if (typeof config === 'string') throw new Error(config);
  return config;
}

function problemsOf(argv: readonly string[]): readonly string[] {
  try {
    parseConfig(argv);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('node configuration', () => {
  it('has defaults for everything that is not about identity', () => {
    expect(parsed()).to.deep.equal({
      nodeId: 'a-0',
      pod: 'a-0',
      host: 'a-0',
      workers: 1,
      namespace: 'default',
      clusterName: 'a',
      dataDir: '/data',
      backupDir: '/data/backups',
      volumeStores: 1,
      secretFile: '/secret',
      partitions: 256,
      listen: '0.0.0.0',
      clientPort: 50051,
      peerPort: 50052,
      httpPort: 9090,
      portsFile: undefined,
      discovery: { kind: 'static', peers: [] },
      logLevel: 'info',
      maxValueBytes: 1_048_576,
      maxInFlightBytes: 67_108_864,
      logBytes: 1_073_741_824,
      logAgeMs: 86_400_000,
      defaultDeadlineMs: 5000,
      skewBoundMs: 2000,
      collectionAgeMs: 60_000,
      heartbeatMs: 500,
      failureDetectionMs: 2000,
      drainServeMs: 5000,
      drainTimeoutMs: 30_000,
    });
  });

  it('reads peers with names, addresses and bracketed IPv6 addresses', () => {
    const { discovery } = parsed('--peers=a-1=127.0.0.1:51052,a-2=[::1]:51053,a-3=host.local:1');
    expect(discovery).to.deep.equal({
      kind: 'static',
      peers: [
        { nodeId: 'a-1', host: '127.0.0.1', port: 51_052 },
        { nodeId: 'a-2', host: '::1', port: 51_053 },
        { nodeId: 'a-3', host: 'host.local', port: 1 },
      ],
    });
  });

  it('takes the cluster domain for discovery by DNS', () => {
    expect(parsed('--discovery', 'dns', '--cluster-domain', 'cluster.local').discovery).to.deep.equal({
      kind: 'dns',
      clusterDomain: 'cluster.local',
    });
  });

  it('reports every problem together', () => {
    const argv = ['--node-id', 'A_0', '--client-port', '70000', '--bogus', 'extra', '--log-level', 'loud'];
    expect(problemsOf([...argv, '--peers', 'a-1'])).to.have.members([
      'unknown flag --bogus',
      'unexpected argument "extra"',
      '--node-id must be a lower-case DNS name, such as sample-0',
      '--cluster-name is required',
      '--data-dir is required',
      '--secret-file is required',
      '--client-port must be at most 65535',
      '--log-level must be one of debug, info, warn, error, silent',
      '--peers must be name=host:port,..., and "a-1" is not',
    ]);
  });

  const refused: readonly [string, readonly string[], string][] = [
    ['a repeated flag', ['--listen', '::', '--listen', '::1'], '--listen is given twice'],
    ['a flag without its value', ['--listen'], '--listen needs a value'],
    ['a number with a unit', ['--partitions', '2k'], '--partitions must be a whole number from 1 to 65536'],
    ['two equal ports', ['--http-port', '50051'], '--client-port, --peer-port and --http-port must differ'],
    ['too many workers', ['--workers', '17'], '--workers must be at most 16'],
    [
      'workers of a node that is not called as its pod',
      ['--workers', '2', '--pod', 'b'],
      '--workers goes with a --node-id that is the name of the pod',
    ],
    [
      'workers on any free ports',
      ['--workers', '2', '--peer-port', '0'],
      '--workers goes with ports that are named, not 0',
    ],
    [
      'workers whose ports would meet',
      ['--workers', '2', '--http-port', '50151'],
      '--workers makes ports of one kind meet those of another',
    ],
    [
      'workers above the highest port',
      ['--workers', '6', '--client-port', '65100'],
      '--workers needs ports above 65535: choose lower ones',
    ],
    [
      'a file for the ports of several workers',
      ['--workers', '2', '--ports-file', 'x'],
      '--ports-file goes with one worker',
    ],
    ['peers with DNS', ['--discovery', 'dns', '--peers', 'a=b:1'], '--peers goes with --discovery static'],
    ['a domain without DNS', ['--cluster-domain', 'x'], '--cluster-domain goes with --discovery dns'],
    [
      'a detection faster than heartbeats',
      ['--heartbeat-ms', '1500'],
      '--failure-detection-ms must be at least twice --heartbeat-ms',
    ],
    [
      'less in flight than one value',
      ['--max-in-flight-bytes', '9'],
      '--max-in-flight-bytes must be at least --max-value-bytes',
    ],
  ];
  for (const [what, more, problem] of refused) {
    it(`refuses ${what}`, () => {
      expect(problemsOf([...required, ...more])).to.deep.equal([problem]);
    });
  }

  it('answers --help and --version whatever else is missing', () => {
    expect(parseConfig(['--help'])).to.equal('help');
    expect(parseConfig(['--version'])).to.equal('version');
    for (const flag of Object.keys(FLAGS)) expect(helpText()).to.contain(`--${flag}`);
  });
});
