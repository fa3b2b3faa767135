import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Pinned, as wheels exist of them for every Python since 3.9. */
const PACKAGES = ['grpcio==1.76.0', 'protobuf==6.33.4'];
const INSTALL_TIMEOUT_MS = 110_000;

/** A Python with gRPC, or why there is none. */
export type Python = { readonly executable: string } | { readonly missing: string };

/** Makes a virtual environment with gRPC once, in the user's cache; later calls find it there. */
export function pythonWithGrpc(): Python {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const directory = join(cache, 'kvcluster-test', PACKAGES.join('+').replaceAll('==', '-'));
  const executable = join(directory, 'bin/python');
  const complete = join(directory, 'complete');
  if (existsSync(complete)) return { executable };
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const steps = [
    ['python3', '-m', 'venv', directory],
    [executable, '-m', 'pip', 'install', '--quiet', '--only-binary', ':all:', ...PACKAGES],
  ];
  for (const [command = '', ...parameters] of steps) {
    const { error, status, stderr } = spawnSync(command, parameters, {
      encoding: 'utf8',
      timeout: INSTALL_TIMEOUT_MS,
    });
    if (status !== 0) {
      rmSync(directory, { recursive: true, force: true });
      return { missing: `${[command, ...parameters].join(' ')}: ${error?.message ?? stderr.trim()}` };
    }
  }
  writeFileSync(complete, '');
  return { executable };
}
