import { spawnSync } from 'node:child_process';
import { run } from './command.ts';

/** Everything from Debian that a cluster needs, by what it is needed for. */
const packages = [
  'containerd', // runs the pods
  'runc', // makes the containers
  'containernetworking-plugins', // gives pods their network
  'iptables', // kube-proxy's rules, and partitions
  'conntrack', // kube-proxy forgets connections to gone pods with it
  'iproute2', // addresses and links, looked at when nothing may be left
  'procps', // sysctl
  'util-linux', // losetup, blkid
  'mount', // volumes
  'e2fsprogs', // file systems on volumes
  'openssl', // certificates
  'buildah', // images
  'mmdebstrap', // the base image
  'ca-certificates', // downloads
] as const;

/** The packages of the list that are not installed here; all of them where there is no Debian. */
export function missingPackages(): string[] {
  return packages.filter((name) => {
    const query = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status}', name], { encoding: 'utf8' });
    return query.status !== 0 || query.stdout !== 'installed';
  });
}

/** Installs what is missing from Debian's mirrors. */
export async function installPackages(log: (line: string) => void): Promise<void> {
  const missing = missingPackages();
  if (missing.length === 0) return;
  log(`installing Debian packages: ${missing.join(' ')}`);
  const options = { env: { DEBIAN_FRONTEND: 'noninteractive' }, timeoutMs: 600_000 };
  await run('apt-get', ['update', '-qq'], options);
  await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], options);
}
