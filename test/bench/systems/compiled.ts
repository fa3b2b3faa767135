import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../..');
const outDir = join(root, 'build/bench');

/**
 * Compiles to build/bench what the image compiles to dist/: type stripping at run time would count towards a node's
 * start and memory. Types are the business of `npm run check`; what was emitted is what runs.
 *
 * @returns the directory that stands for the root of the source tree.
 */
export function compile(): string {
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const flags = ['--project', 'tsconfig.build.json', '--outDir', outDir, '--sourceMap', 'false'];
  const cache = ['--incremental', '--tsBuildInfoFile', join(outDir, 'tsbuildinfo.json')];
  const { error } = spawnSync(process.execPath, [compiler, ...flags, ...cache], { cwd: root });
  if (error !== undefined) throw error;
  mkdirSync(join(outDir, 'proto'), { recursive: true });
  for (const file of readdirSync(join(root, 'proto')).filter((name) => name.endsWith('.proto'))) {
    copyFileSync(join(root, 'proto', file), join(outDir, 'proto', file));
  }
  return outDir;
}
