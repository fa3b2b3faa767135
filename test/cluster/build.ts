import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import {
  binaries,
  cacheDir,
  helmPath,
  inCache,
  inState,
  kubectlPath,
  source,
  stateDir,
  toolsDir,
  versions,
} from './layout.ts';

export type Log = (line: string) => void;

interface Binary {
  what: string;
  file: string;
  /** On two cores with an empty module cache. */
  usualMinutes: number;
  /** Builds into a directory and gives the name of the file made there. */
  build: (directory: string) => Promise<string>;
}

const limitMs = 60 * 60_000;
const progressEveryMs = 30_000;
const goEnvironment = { CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false -trimpath' };

const kubernetesVersionFlags = [
  '-s -w',
  `-X k8s.io/component-base/version.gitVersion=${versions.kubernetes}`,
  `-X k8s.io/component-base/version.gitMajor=${versions.kubernetes.slice(1).split('.')[0]}`,
  `-X k8s.io/component-base/version.gitMinor=${versions.kubernetes.slice(1).split('.')[1]}`,
].join(' ');

const recipes: readonly Binary[] = [
  {
    what: `Kubernetes ${versions.kubernetes}`,
    file: binaries.kube,
    usualMinutes: 10,
    build: (directory) => goBuild(source('kube'), '.', directory, kubernetesVersionFlags),
  },
  {
    what: `CoreDNS ${versions.coredns}`,
    file: binaries.coredns,
    usualMinutes: 3,
    build: (directory) => goInstall(`github.com/coredns/coredns@${versions.coredns}`, 'coredns', directory),
  },
  {
    what: `Helm ${versions.helm}`,
    file: binaries.helm,
    usualMinutes: 2,
    build: (directory) => goInstall(`helm.sh/helm/v4/cmd/helm@${versions.helm}`, 'helm', directory),
  },
  {
    what: 'the pause container',
    file: binaries.pause,
    usualMinutes: 1,
    build: (directory) => goBuild(source('pause'), 'main.go', directory, '-s -w'),
  },
];

/** Builds from Go modules what the cache lacks, telling what is built, for how long and how long it usually takes. */
export async function buildBinaries(log: Log): Promise<void> {
  mkdirSync(cacheDir, { recursive: true });
  for (const recipe of recipes.filter(({ file }) => !existsSync(file))) await build(recipe, log);
  linkTools();
}

async function build({ what, file, usualMinutes, build: make }: Binary, log: Log): Promise<void> {
  const started = Date.now();
  const elapsed = (): string => {
    const seconds = Math.round((Date.now() - started) / 1000);
    return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
  log(`building ${what}; once, usually ${usualMinutes} min on two cores`);
  const progress = setInterval(() => {
    log(`building ${what}: ${elapsed()} of about ${usualMinutes} min`);
  }, progressEveryMs);
  const directory = mkdtempSync(inCache('building-'));
  try {
    // Renamed when complete: a build that was interrupted is never taken for a binary.
    renameSync(join(directory, await make(directory)), file);
  } finally {
    clearInterval(progress);
    rmSync(directory, { recursive: true, force: true });
  }
  log(`built ${what} in ${elapsed()}`);
}

async function goBuild(cwd: string, target: string, directory: string, ldflags: string): Promise<string> {
  await run('go', ['build', '-o', join(directory, 'binary'), `-ldflags=${ldflags}`, target], {
    cwd,
    env: goEnvironment,
    timeoutMs: limitMs,
  });
  return 'binary';
}

async function goInstall(module: string, name: string, directory: string): Promise<string> {
  await run('go', ['install', '-ldflags=-s -w', module], {
    env: { ...goEnvironment, GOBIN: directory },
    timeoutMs: limitMs,
  });
  return name;
}

/** kubectl is inside the kube binary, which wants to be told so. */
function linkTools(): void {
  mkdirSync(toolsDir, { recursive: true });
  writeTool(kubectlPath, `'${binaries.kube}' kubectl`);
  writeTool(helmPath, `'${binaries.helm}'`);
}

/**
 * Both tools cache what kinds an API server has by its address, which every cluster raised here shares: while one is
 * up the cache lies in its state, and goes with it.
 */
function writeTool(path: string, command: string): void {
  const script = `#!/bin/sh
[ -d '${stateDir}' ] && export KUBECACHEDIR='${inState('kubectl-cache')}'
exec ${command} "$@"
`;
  const complete = `${path}.${process.pid}`;
  writeFileSync(complete, script, { mode: 0o755 });
  renameSync(complete, path); // another process may be starting it
}
