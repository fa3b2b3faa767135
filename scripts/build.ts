/**
 * `npm run build`: compiles to dist/, and fills build/image, the build context of deploy/Dockerfile, with what the
 * image holds. Writes the digest of that to build/image.digest. Does nothing when no input has changed since.
 */
import { spawnSync } from 'node:child_process';
import { createHash, type Hash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';

const root = join(import.meta.dirname, '..');
const context = join(root, 'build/image');
const digestFile = join(root, 'build/image.digest');
const modulesDigestFile = join(root, 'build/node_modules.digest');

const parts = ['common', 'model', 'proto', 'client', 'node', 'operator'];
const lockFiles = ['package.json', 'package-lock.json', '.npmrc'];
const configuration = [
  'tsconfig.json',
  'tsconfig.build.json',
  'deploy/Dockerfile',
  'deploy/entrypoint',
  'deploy/kvctl',
  'scripts/build.ts',
];

const digest = digestOf([...parts, ...lockFiles, ...configuration]);
if (recorded(digestFile) === digest && existsSync(join(context, 'dist')) && existsSync(join(root, 'dist'))) {
  console.error('build: nothing changed');
} else {
  rmSync(digestFile, { force: true });
  mkdirSync(context, { recursive: true });
  compile();
  installProductionModules();
  fillContext();
  writeFileSync(digestFile, digest);
  console.error(`build: dist and build/image are made, digest ${digest.slice(0, 12)}`);
}

function compile(): void {
  const dist = join(root, 'dist');
  rmSync(dist, { recursive: true, force: true }); // nothing of a source file that is gone
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  step('compiling', process.execPath, [compiler, '--project', 'tsconfig.build.json'], root);
  // Beside the generated code, where the same relative path leads to them from source and from dist.
  for (const file of filesIn('proto').filter((name) => name.endsWith('.proto'))) {
    mkdirSync(join(dist, file, '..'), { recursive: true });
    copyFileSync(join(root, file), join(dist, file));
  }
}

/** The lockfile's production part, kept in the context until the lockfile changes. No package's script runs. */
function installProductionModules(): void {
  const wanted = digestOf(lockFiles);
  for (const file of lockFiles) copyFileSync(join(root, file), join(context, file));
  if (recorded(modulesDigestFile) === wanted && existsSync(join(context, 'node_modules'))) return;
  rmSync(modulesDigestFile, { force: true });
  step('npm ci', 'npm', ['ci', '--omit=dev', '--ignore-scripts', '--prefer-offline'], context);
  removeDevelopmentFiles(join(context, 'node_modules'));
  writeFileSync(modulesDigestFile, wanted);
}

/** Types and source maps are a third of the packages' bytes, and nothing reads them at run time. */
function removeDevelopmentFiles(folder: string): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && /\.(d\.[cm]?ts|map)$/.test(entry.name)) rmSync(join(entry.parentPath, entry.name));
  }
}

function fillContext(): void {
  rmSync(join(context, 'dist'), { recursive: true, force: true });
  cpSync(join(root, 'dist'), join(context, 'dist'), { recursive: true });
  for (const name of ['entrypoint', 'kvctl']) copyFileSync(join(root, 'deploy', name), join(context, name));
}

/** Runs a program with what it says on standard error; a failure ends the build. */
function step(what: string, program: string, args: readonly string[], cwd: string): void {
  const { status } = spawnSync(program, args, { cwd, stdio: ['ignore', process.stderr, process.stderr] });
  if (status === 0) return;
  console.error(`build: ${what} failed`);
  process.exit(1);
}

function digestOf(paths: readonly string[]): string {
  const hash = createHash('sha256');
  for (const path of paths) for (const file of filesIn(path)) addFile(hash, file);
  return hash.digest('hex');
}

function addFile(hash: Hash, file: string): void {
  const content = readFileSync(join(root, file));
  hash.update(`${file}\n${content.length}\n`).update(content);
}

/** The file itself, or all files below the folder, in a fixed order; relative to the repository. */
function filesIn(path: string): string[] {
  const absolute = join(root, path);
  if (!statSync(absolute).isDirectory()) return [path];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

function recorded(file: string): string | undefined {
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}
