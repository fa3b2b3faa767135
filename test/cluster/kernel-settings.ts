import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inState } from './layout.ts';

/** What kubelet, kube-proxy and the container network change for the whole machine. */
const changedByKubernetes = [
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/route_localnet',
  'net/bridge/bridge-nf-call-iptables',
  'net/bridge/bridge-nf-call-ip6tables',
  'net/netfilter/nf_conntrack_tcp_timeout_established',
  'net/netfilter/nf_conntrack_tcp_timeout_close_wait',
  'vm/overcommit_memory',
  'vm/panic_on_oom',
  'kernel/panic',
  'kernel/panic_on_oops',
  'kernel/keys/root_maxkeys',
  'kernel/keys/root_maxbytes',
];

const savedPath = (): string => inState('kernel-settings.json');
const procPath = (name: string): string => join('/proc/sys', name);

/** Remembers the machine's settings, so that {@link restoreKernelSettings} leaves them as they were. */
export function saveKernelSettings(): void {
  const present = changedByKubernetes.filter((name) => existsSync(procPath(name)));
  const saved = present.map((name) => [name, readFileSync(procPath(name), 'utf8').trim()]);
  writeFileSync(savedPath(), JSON.stringify(Object.fromEntries(saved)));
}

export function restoreKernelSettings(): void {
  if (!existsSync(savedPath())) return;
  const saved = JSON.parse(readFileSync(savedPath(), 'utf8')) as Record<string, string>;
  for (const [name, value] of Object.entries(saved)) {
    if (readFileSync(procPath(name), 'utf8').trim() !== value) writeFileSync(procPath(name), value);
  }
}

/** Packets between pods pass through this machine. */
export function forwardPackets(): void {
  writeFileSync(procPath('net/ipv4/ip_forward'), '1');
}
