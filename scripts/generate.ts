/**
 * Generates what is made from other files of the repository; with --check it only compares, and fails on a difference:
 * proto/gen from proto/*.proto, and the chart's copy of the CustomResourceDefinition from deploy/crd.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

/** A directory of generated files. */
interface Generated {
  readonly source: string;
  readonly committed: string;
  readonly fresh: string;
}

const root = join(import.meta.dirname, '..');
const scratch = mkdtempSync(join(tmpdir(), 'kvcluster-gen-'));

try {
  const outputs = [
    generateMessages(),
    // Helm reads only files inside the chart.
    { source: 'deploy/crd', committed: 'charts/kvcluster/files', fresh: join(root, 'deploy/crd') },
  ];
  for (const output of outputs) {
    if (process.argv.includes('--check')) check(output);
    else write(output);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function generateMessages(): Generated {
  execFileSync('buf', ['generate', '--output', scratch], { cwd: root, stdio: 'inherit' });
  return { source: 'proto/*.proto', committed: 'proto/gen', fresh: join(scratch, 'proto/gen') };
}

function check({ source, committed, fresh }: Generated): void {
  const names = [...new Set([...filesOf(fresh), ...filesOf(join(root, committed))])].sort();
  const differing = names.filter((name) => {
    try {
      return !readFileSync(join(fresh, name)).equals(readFileSync(join(root, committed, name)));
    } catch {
      return true;
    }
  });
  if (differing.length === 0) return;
  console.error(`${committed} differs from ${source} in ${differing.join(', ')}: run npm run generate`);
  process.exitCode = 1;
}

function write({ committed, fresh }: Generated): void {
  rmSync(join(root, committed), { recursive: true, force: true });
  cpSync(fresh, join(root, committed), { recursive: true });
}

function filesOf(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));
}
