import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { binaries } from './layout.ts';
import { missingPackages } from './packages.ts';

const oldestGo = { major: 1, minor: 26 };

/** This machine's address that pods reach the API server by: its first one that is not loopback. */
export function nodeAddress(): string | undefined {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find((address) => address.family === 'IPv4' && !address.internal)?.address;
}

/**
 * Why no Kubernetes can be raised on this machine, in one sentence; undefined when one can.
 * Looks only, changes nothing.
 */
export function clusterUnavailable(): string | undefined {
  if (process.platform !== 'linux')
    return `a Kubernetes can be raised only on Linux, this is ${process.platform}`;
  if (process.getuid?.() !== 0)
    return 'raising a Kubernetes needs root (container runtime, mounts, network rules)';
  if (!existsSync('/dev/loop-control'))
    return 'raising a Kubernetes needs loop devices for its volumes, and there is no /dev/loop-control';
  if (nodeAddress() === undefined) return 'raising a Kubernetes needs an IPv4 address other than loopback';
  const missing = missingPackages();
  if (missing.length > 0 && !existsSync('/usr/bin/apt-get')) {
    return `raising a Kubernetes needs Debian's packages ${missing.join(', ')}, and this machine has no apt-get`;
  }
  return Object.values(binaries).every((file) => existsSync(file)) ? undefined : goUnavailable();
}

function goUnavailable(): string | undefined {
  const needs = `building Kubernetes needs Go ${oldestGo.major}.${oldestGo.minor} or newer`;
  let version: string;
  try {
    version = execFileSync('go', ['env', 'GOVERSION'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return `${needs}, and there is no go command`;
  }
  const [major = 0, minor = 0] = version.replace(/^go/, '').split('.').map(Number);
  const newEnough = major > oldestGo.major || (major === oldestGo.major && minor >= oldestGo.minor);
  return newEnough ? undefined : `${needs}, and this is ${version}`;
}
