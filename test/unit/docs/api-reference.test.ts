import { expect } from 'chai';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Registry } from 'prom-client';
import { parse } from 'yaml';
import { runKvctl } from '../../../client/kvctl/kvctl.ts';
import { BACKUP_FORMAT } from '../../../common/backup-format.ts';
import { PROOF_METADATA } from '../../../common/call-proof.ts';
import { systemClock, systemScheduler } from '../../../common/clock.ts';
import { systemRandom } from '../../../common/random.ts';
import { CONDITION_TYPES } from '../../../model/kvcluster-status.ts';
import { FLAGS } from '../../../node/flags.ts';
import { RUNNER_HELP } from '../../../node/local/arguments.ts';
import { createNodeMetrics } from '../../../node/metrics.ts';
import { createPodMetrics } from '../../../node/workers/pod-metrics.ts';
import { RETRYABLE_TRAILER } from '../../../node/rpc/status-codes.ts';
import { OPERATOR_USAGE } from '../../../operator/config.ts';
import { createOperatorMetrics } from '../../../operator/metrics.ts';

const root = join(import.meta.dirname, '../../..');
const source = (path: string): string => readFileSync(join(root, path), 'utf8');
const reference = source('docs/api_reference.md');

type Row = Readonly<Record<string, string>>;

/** The table under a heading whose first column is `column`: each row by column, without backticks. */
function tableOf(heading: string, column: string): readonly Row[] {
  const section = reference.split(/^#{2,3} /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
  const tables = section
    .split(/\n\n+/)
    .filter((block) => block.startsWith('|'))
    .map((block) => block.trim().split('\n').map(cellsOf));
  const table = tables.find(([head]) => head?.[0] === column);
  if (table === undefined) throw new Error(`there is no table of "${column}" under "${heading}"`);
  const [head = [], , ...rows] = table;
  return rows.map((row) => Object.fromEntries(head.map((name, index) => [name, row[index] ?? ''])));
}

function cellsOf(line: string): string[] {
  return line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll('`', ''));
}

function entriesOf(heading: string, column: string): string[] {
  return tableOf(heading, column).map((row) => row[column] ?? '');
}

/** Fails naming what is missing on either side, and what is listed twice. */
function expectSame(documented: readonly string[], inCode: Iterable<string>): void {
  const code = new Set(inCode);
  const twice = documented.filter((entry, index) => documented.indexOf(entry) !== index);
  expect(
    {
      'in the code and not in the table': [...code].filter((entry) => !documented.includes(entry)),
      'in the table and not in the code': documented.filter((entry) => !code.has(entry)),
      'in the table twice': twice,
    },
    `${code.size} in the code, ${documented.length} in the table`,
  ).to.deep.equal({
    'in the code and not in the table': [],
    'in the table and not in the code': [],
    'in the table twice': [],
  });
}

function matches(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map(([, found = '']) => found);
}

/** Bodies of `keyword Name { ... }` in a proto file, without nested blocks and comments. */
function blocksOf(proto: string, keyword: string): ReadonlyMap<string, string> {
  const bare = proto.replaceAll(/\/\/.*$/gm, '');
  const pattern = new RegExp(`\\b${keyword} (\\w+) \\{((?:[^{}]|\\{[^{}]*\\})*)\\}`, 'g');
  return new Map([...bare.matchAll(pattern)].map(([, name = '', body = '']) => [name, body]));
}

const fieldPattern = /^\s*(?:optional |repeated )?[\w.]+ (\w+) = \d+;/gm;

function fieldsOf(path: string): string[] {
  return [...blocksOf(source(path), 'message')].flatMap(([message, body]) =>
    matches(body, fieldPattern).map((field) => `${message}.${field}`),
  );
}

interface MetricFacts {
  readonly Name: string;
  readonly Type: string;
  readonly Labels: string;
}

async function metricsOf(registry: Registry): Promise<readonly MetricFacts[]> {
  const described = await registry.getMetricsAsJSON();
  return described
    .filter(({ name }) => name.startsWith('kv_'))
    .map(({ name, type }) => {
      const { labelNames } = registry.getSingleMetric(name) as unknown as { labelNames?: readonly string[] };
      return { Name: name, Type: String(type), Labels: (labelNames ?? []).join(', ') };
    });
}

async function expectMetrics(heading: string, registry: Registry): Promise<void> {
  const inCode = await metricsOf(registry);
  const documented = tableOf(heading, 'Name');
  expectSame(
    documented.map((row) => row['Name'] ?? ''),
    inCode.map(({ Name }) => Name),
  );
  for (const facts of inCode) {
    const row = documented.find(({ Name }) => Name === facts.Name);
    expect({ Name: row?.['Name'], Type: row?.['Type'], Labels: row?.['Labels'] }).to.deep.equal(facts);
    expect(row?.['Unit'], `unit of ${facts.Name}`).to.not.equal('');
    expect(row?.['Meaning'], `meaning of ${facts.Name}`).to.not.equal('');
  }
}

/** Every reason that the operator's source can give to a condition. */
function conditionReasons(): string[] {
  const files = globSync('operator/**/*.ts', { cwd: root }).map(source);
  const progress = /type ProgressReason =([^;]+);/.exec(source('operator/steps/step.ts'))?.[1] ?? '';
  return [
    ...matches(progress, /'([A-Z]\w+)'/g),
    ...files.flatMap((file) => matches(file, /\breason(?:: | = )'([A-Z]\w+)'/g)),
    ...files.flatMap((file) => matches(file, /\bblocked\(\s*'([A-Z]\w+)'/g)),
  ];
}

async function kvctlHelp(...args: readonly string[]): Promise<string> {
  const output = new PassThrough();
  const context = {
    stdin: new PassThrough().end(),
    stdout: output,
    stderr: output,
    directory: root,
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    signal: new AbortController().signal,
  };
  expect(await runKvctl([...args, '--help'], context)).to.equal(0);
  output.end();
  return text(output);
}

/** Every command that does something, with its help. */
async function kvctlCommands(...path: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const help = await kvctlHelp(...path);
  const names = matches(/\nCommands:\n([\s\S]*)/.exec(help)?.[1] ?? '', /^ {2}([\w-]+)/gm);
  const below = names.filter((name) => name !== 'help');
  if (below.length === 0) return new Map([[['kvctl', ...path].join(' '), help]]);
  const found = await Promise.all(below.map((name) => kvctlCommands(...path, name)));
  return new Map(found.flatMap((commands) => [...commands]));
}

interface Schema {
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
}

/** Paths of the fields that hold something, with their defaults as JSON. */
function leavesOf(schema: Schema, path: string): (readonly [string, string])[] {
  const { properties, items } = schema;
  if (path === 'status.conditions[]') return [[path, '']];
  if (items !== undefined) return leavesOf(items, `${path}[]`);
  if (properties !== undefined) {
    const inherited = Object.entries((schema.default ?? {}) as Record<string, unknown>);
    return Object.entries(properties).flatMap(([name, inner]) => {
      const given = inherited.find(([key]) => key === name)?.[1];
      return leavesOf(given === undefined ? inner : { default: given, ...inner }, `${path}.${name}`);
    });
  }
  return [[path, schema.default === undefined ? '' : jsonOf(schema.default)]];
}

function jsonOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

describe('the API reference', () => {
  it('lists every RPC of the proto files, and no other', () => {
    const rpcs = ['kvstore', 'admin', 'peer'].flatMap((file) =>
      [...blocksOf(source(`proto/${file}.proto`), 'service')].flatMap(([service, body]) =>
        matches(body, /\brpc (\w+)/g).map((rpc) => `${service}/${rpc}`),
      ),
    );
    expectSame(entriesOf('RPCs', 'RPC'), rpcs);
  });

  it('explains every field of the client messages', () => {
    expectSame(entriesOf('Client fields', 'Field'), fieldsOf('proto/kvstore.proto'));
  });

  it('explains every field of the admin messages', () => {
    expectSame(entriesOf('Admin fields', 'Field'), fieldsOf('proto/admin.proto'));
  });

  it('lists every error code', () => {
    const codes = /type ErrorCode =([^;]+);/.exec(source('common/errors.ts'))?.[1] ?? '';
    expectSame(entriesOf('Errors', 'Code'), matches(codes, /'(\w+)'/g));
  });

  it('lists the metadata of proofs and the trailers', () => {
    expectSame(entriesOf('Proof metadata', 'Metadata'), [
      ...Object.values(PROOF_METADATA),
      RETRYABLE_TRAILER,
    ]);
  });

  it('lists every frame between peers and every reason to refuse one', () => {
    const proto = source('proto/peer.proto');
    const frame = blocksOf(proto, 'message').get('PeerFrame') ?? '';
    const body = /oneof body \{([^}]*)\}/.exec(frame)?.[1] ?? '';
    expectSame(entriesOf('Peer frames', 'Frame'), matches(body, fieldPattern));
    const reasons = matches(blocksOf(proto, 'enum').get('Reason') ?? '', /^\s*(\w+) = [1-9]\d*;/gm);
    expectSame(entriesOf('Refusals between peers', 'Reason'), reasons);
  });

  it('lists every metric of a node with its type and labels', async () => {
    const metrics = createNodeMetrics();
    const statistics = {
      records: 0,
      stateBytes: 0,
      logBytes: 0,
      usedBytes: 0,
      quotaBytes: 0,
      overlayBytes: 0,
      versionConflicts: 0,
      damagedRecords: 0,
    };
    metrics.watchStore({ statistics: () => statistics });
    metrics.watchReadiness(() => true);
    await expectMetrics('Metrics of a node', metrics.registry);
  });

  it('lists every metric of a pod with several workers with its type and labels', async () => {
    const worker = {
      worker: 0,
      state: undefined,
      restarts: 0,
      connections: 0,
      metrics: () => Promise.resolve(''),
    };
    await expectMetrics('Metrics of a pod with several workers', createPodMetrics([worker]));
  });

  it('lists every metric of the operator with its type and labels', async () => {
    await expectMetrics('Metrics of the operator', createOperatorMetrics().registry);
  });

  it('lists every condition and every reason that the operator gives', () => {
    expectSame(entriesOf('Conditions', 'Condition'), CONDITION_TYPES);
    expectSame(entriesOf('Conditions', 'Reason'), conditionReasons());
  });

  it('lists every field of the KVCluster with its default', () => {
    const definition = parse(source('deploy/crd/kvclusters.kvcluster.io.yaml'), { merge: true }) as {
      spec: { versions: readonly { schema: { openAPIV3Schema: Schema } }[] };
    };
    const { spec = {}, status = {} } = definition.spec.versions[0]?.schema.openAPIV3Schema.properties ?? {};
    const leaves = [...leavesOf(spec, 'spec'), ...leavesOf(status, 'status')];
    const documented = tableOf('KVCluster', 'Field');
    expectSame(
      documented.map((row) => row['Field'] ?? ''),
      leaves.map(([path]) => path),
    );
    const defaults = documented.map((row) => [row['Field'] ?? '', row['Default'] ?? ''] as const);
    expect(Object.fromEntries(defaults)).to.deep.equal(Object.fromEntries(leaves));
  });

  it('lists every flag of a node with its default', () => {
    const documented = tableOf('Flags of a node', 'Flag');
    expectSame(
      documented.map((row) => row['Flag'] ?? ''),
      Object.keys(FLAGS).map((flag) => `--${flag}`),
    );
    for (const [flag, { fallback }] of Object.entries(FLAGS)) {
      const row = documented.find(({ Flag }) => Flag === `--${flag}`);
      if (fallback !== undefined) expect(row?.['Default'], `--${flag}`).to.equal(fallback);
      else expect(row?.['Default'], `--${flag} has no fixed default`).to.not.match(/^\d+$/);
    }
  });

  it('lists every flag of the operator with its default', () => {
    const documented = tableOf('Flags of the operator', 'Flag');
    const lines = OPERATOR_USAGE.split('\n').slice(1);
    expectSame(
      documented.map((row) => row['Flag'] ?? ''),
      lines.flatMap((line) => matches(line, /^ {2}(--[\w-]+)=/g)),
    );
    for (const line of lines) {
      const [, flag, fallback] = /^ {2}(--[\w-]+)=.*\((?:default: )?([^\s,()]+)[^()]*\)$/.exec(line) ?? [];
      const row = documented.find(({ Flag }) => Flag === flag);
      expect(row?.['Default']?.split(' ')[0], line).to.equal(fallback);
    }
  });

  it('lists every flag of the local runner', () => {
    expectSame(entriesOf('Flags of the local runner', 'Flag'), matches(RUNNER_HELP, /^ {2}(--[\w-]+)/gm));
  });

  it('lists every command of kvctl with its options, and the environment variables', async () => {
    const commands = await kvctlCommands();
    const documented = tableOf('kvctl', 'Command');
    expectSame(
      documented.map((row) => row['Command'] ?? ''),
      commands.keys(),
    );
    for (const row of documented) {
      const help = commands.get(row['Command'] ?? '') ?? '';
      const options = matches(help, /^ {2}(?:-\w, )?(--[\w-]+)/gm).filter((name) => name !== '--help');
      expectSame((row['Options'] ?? '').split(', '), options);
    }
    const variables = [...commands.values()].flatMap((help) => matches(help, /\(env:\s+(\w+)\)/g));
    expectSame(entriesOf('kvctl', 'Variable'), variables);
  });

  it('names the format of backups', () => {
    const manifest = tableOf('Backup directory', 'Path').find(({ Path }) => Path?.endsWith('manifest.json'));
    expect(manifest?.['Format']).to.equal(String(BACKUP_FORMAT));
  });
});
