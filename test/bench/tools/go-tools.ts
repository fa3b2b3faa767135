import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../cluster/command.ts';
import { cacheDir, inCache } from '../../cluster/layout.ts';

const BUILD_LIMIT_MS = 20 * 60_000;
const ETCD_VERSION = 'v3.7.0';
const GHZ_VERSION = 'v0.121.0';

interface GoTool {
  readonly what: string;
  readonly file: string;
  /** Makes `file` within the directory. */
  readonly build: (directory: string) => Promise<string>;
}

const environment = { CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false -trimpath' };

const etcdBenchmark: GoTool = {
  what: `etcd's benchmark tool ${ETCD_VERSION}`,
  file: inCache(`etcd-benchmark-${ETCD_VERSION}`),
  build: async (directory) => {
    const file = join(directory, 'benchmark');
    await run('go', ['build', '-o', file, '-ldflags=-s -w', 'go.etcd.io/etcd/v3/tools/benchmark'], {
      cwd: join(import.meta.dirname, '../etcd-benchmark'), // its go.mod pins the version
      env: environment,
      timeoutMs: BUILD_LIMIT_MS,
    });
    return file;
  },
};

const ghz: GoTool = {
  what: `ghz ${GHZ_VERSION}`,
  file: inCache(`ghz-${GHZ_VERSION}`),
  build: async (directory) => {
    await run('go', ['install', '-ldflags=-s -w', `github.com/bojand/ghz/cmd/ghz@${GHZ_VERSION}`], {
      env: { ...environment, GOBIN: directory },
      timeoutMs: BUILD_LIMIT_MS,
    });
    return join(directory, 'ghz');
  },
};

export type Log = (line: string) => void;

/** The path of etcd's own load generator, built once; undefined, with a line that says why, where there is no Go. */
export const etcdBenchmarkTool = (log: Log): Promise<string | undefined> => built(etcdBenchmark, log);

/** The path of ghz, a gRPC load generator in Go, built once; undefined, with a line that says why, without Go. */
export const ghzTool = (log: Log): Promise<string | undefined> => built(ghz, log);

async function built({ what, file, build }: GoTool, log: Log): Promise<string | undefined> {
  if (existsSync(file)) return file;
  if (spawnSync('go', ['version']).error !== undefined) {
    log(`skipped: ${what} is not built, and there is no go command; install Go 1.26 or newer`);
    return undefined;
  }
  log(`building ${what}; once, a minute or two`);
  mkdirSync(cacheDir, { recursive: true });
  const directory = mkdtempSync(inCache('building-'));
  try {
    // Renamed when complete: a build that was interrupted is never taken for a tool.
    renameSync(await build(directory), file);
    return file;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
