/**
 * Runs the test suites: `node scripts/test.ts [suite ...]`, all of them when none is named, in the order below.
 * Ends with the plain line `N passed, N failed, N skipped`. With CI=true a skipped test fails the run.
 * Arguments after `--` go to mocha, for example `npm run test:unit -- -- --grep placement`; those of `SETTINGS` before it
 * tell a suite how much to do, for example `npm run test:chaos -- --minutes 10`.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Suite {
  readonly specs: readonly string[];
  readonly timeoutMs: number;
  /** Module with mocha root hooks. */
  readonly hooks?: string;
}

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
  /** What failed, and why: said again at the end, where a long log is looked at first. */
  failures: string[];
}

const root = join(import.meta.dirname, '..');
/** For a finished run to end; the Kubernetes it raised goes down meanwhile. */
const END_SECONDS = 60;

const SUITES: Readonly<Record<string, Suite>> = {
  unit: { specs: ['test/unit/**/*.test.ts', 'test/contract/**/*.test.ts'], timeoutMs: 10_000 },
  integration: { specs: ['test/integration/**/*.test.ts'], timeoutMs: 120_000 },
  sim: { specs: ['test/sim/**/*.test.ts'], timeoutMs: 60_000 },
  chaos: { specs: ['test/chaos/**/*.test.ts'], timeoutMs: 120_000 },
  soak: { specs: ['test/soak/**/*.test.ts'], timeoutMs: 120_000 },
  kubernetes: {
    specs: kubernetesSpecs(),
    timeoutMs: 240_000,
    hooks: 'test/kubernetes/hooks.ts',
  },
};

/**
 * The scenarios that share one KVCluster stand together, after those that install an operator for all namespaces. Then
 * comes what the audit log says of all of them, and last the test of the cluster's own end.
 */
function kubernetesSpecs(): string[] {
  const sharing = ['unchanged', 'backup', 'faults', 'lifecycle', 'scaling', 'workers', 'operator'];
  const last = ['rights', 'cluster'];
  return [`!(${[...sharing, ...last].join('|')})`, ...sharing, ...last].map(
    (name) => `test/kubernetes/${name}.test.ts`,
  );
}

/** What a suite can be told, and the environment variable in which its tests look for it. */
const SETTINGS: Readonly<Record<string, string>> = {
  '--minutes': 'KVCLUSTER_MINUTES',
};

const separator = process.argv.indexOf('--');
const named = withoutSettings(process.argv.slice(2, separator === -1 ? undefined : separator));
const mochaArguments = separator === -1 ? [] : process.argv.slice(separator + 1);
const unknown = named.filter((name) => !(name in SUITES));
if (unknown.length > 0) {
  console.error(`unknown suite ${unknown.join(', ')}: choose from ${Object.keys(SUITES).join(', ')}`);
  process.exit(2);
}

const totals: Totals = { passed: 0, failed: 0, skipped: 0, failures: [] };
for (const name of named.length > 0 ? named : Object.keys(SUITES)) {
  const result = await run(name);
  totals.passed += result.passed;
  totals.failed += result.failed;
  totals.skipped += result.skipped;
  totals.failures.push(...result.failures.map((what) => `${name}: ${what}`));
}
for (const what of totals.failures) console.log(`FAILED ${what}`);
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
const skipsFail = process.env['CI'] === 'true' && totals.skipped > 0;
if (skipsFail) console.error('skipped tests fail the run under CI=true; their reasons stand above');
process.exitCode = totals.failed > 0 || skipsFail ? 1 : 0;

/** The other arguments; a setting takes the one after it. */
function withoutSettings(given: readonly string[]): string[] {
  const rest = [...given];
  for (const [flag, variable] of Object.entries(SETTINGS)) {
    const at = rest.indexOf(flag);
    if (at === -1) continue;
    const [, value] = rest.splice(at, 2);
    if (!(Number(value) > 0)) {
      console.error(`${flag} needs a number above 0`);
      process.exit(2);
    }
    process.env[variable] = value;
  }
  return rest;
}

async function run(name: string): Promise<Totals> {
  const suite = SUITES[name];
  if (suite === undefined) throw new Error(`no suite ${name}`);
  const scratch = mkdtempSync(join(tmpdir(), 'kvcluster-test-'));
  const summary = join(scratch, 'summary.json');
  const hooks =
    suite.hooks !== undefined && existsSync(join(root, suite.hooks)) ? ['--require', `./${suite.hooks}`] : [];
  const startedMs = performance.now();
  console.log(`\n# ${name}`);
  try {
    const code = await finished(summary, [
      join(root, 'node_modules/mocha/bin/mocha.js'),
      '--reporter',
      './test/support/reporter.ts',
      '--reporter-option',
      `summary=${summary}`,
      '--timeout',
      String(suite.timeoutMs),
      ...hooks,
      ...mochaArguments,
      ...suite.specs,
    ]);
    const result = existsSync(summary)
      ? (JSON.parse(readFileSync(summary, 'utf8')) as Totals)
      : { passed: 0, failed: 0, skipped: 0, failures: [] };
    // A run that broke outside a test (an import, a hook, a crash) must not look green.
    if (code !== 0 && result.failed === 0) {
      result.failed = 1;
      result.failures.push(`the run ended with code ${code}, outside a test`);
    }
    console.log(`# ${name} took ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    return result;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The exit code; 1 for a run that does not end by itself soon after its last test, because something was left open. */
function finished(summary: string, parameters: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, parameters, { cwd: root, stdio: 'inherit' });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.once('SIGINT', forward).once('SIGTERM', forward);
  let doneForSeconds = 0;
  const watch = setInterval(() => {
    doneForSeconds = existsSync(summary) ? doneForSeconds + 1 : 0;
    if (doneForSeconds !== END_SECONDS) return;
    console.error(`all tests are done and the run does not end: a test left a handle open`);
    child.kill('SIGKILL');
  }, 1000);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => {
      clearInterval(watch);
      process.off('SIGINT', forward).off('SIGTERM', forward);
      resolve(code ?? 1);
    });
  });
}
