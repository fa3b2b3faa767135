/** Generates proto/gen from proto/*.proto; with --check it only compares, and fails when they differ. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

const root = join(import.meta.dirname, '..');
const committed = join(root, 'proto/gen');
const fresh = mkdtempSync(join(tmpdir(), 'kvcluster-gen-'));

function filesOf(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

try {
  execFileSync('buf', ['generate', '--output', fresh], { cwd: root, stdio: 'inherit' });
  const generated = join(fresh, 'proto/gen');
  if (process.argv.includes('--check')) {
    const names = [...new Set([...filesOf(generated), ...filesOf(committed)])];
    const differing = names.filter((name) => {
      try {
        return !readFileSync(join(generated, name)).equals(readFileSync(join(committed, name)));
      } catch {
        return true;
      }
    });
    if (differing.length > 0) {
      console.error(`proto/gen differs from proto/*.proto in ${differing.join(', ')}: run npm run generate`);
      process.exitCode = 1;
    }
  } else {
    rmSync(committed, { recursive: true, force: true });
    cpSync(generated, committed, { recursive: true });
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
