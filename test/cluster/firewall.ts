import { run, runOrEmpty } from './command.ts';

/** Chains of kube-proxy and the kubelet, and our own for partitions. */
const ours = /^(KUBE-|KVCLUSTER-)/;
const kubernetes = /^KUBE-/;

const families = [
  { save: 'iptables-save', restore: 'iptables-restore' },
  { save: 'ip6tables-save', restore: 'ip6tables-restore' },
] as const;

/**
 * From the output of iptables-save, the input of `iptables-restore --noflush` that takes out the chains matching
 * `owned` and every rule that leads into them, and leaves all other rules alone. Empty when there is none.
 */
export function removalOf(saved: string, owned: RegExp = ours): string {
  const commands: string[] = [];
  for (const [, table = '', body = ''] of saved.matchAll(/^\*(\S+)\n([\s\S]*?)^COMMIT$/gm)) {
    const chains = [...body.matchAll(/^:(\S+)/gm)]
      .map((match) => match[1] ?? '')
      .filter((name) => owned.test(name));
    if (chains.length === 0) continue;
    const jumps = body.split('\n').filter((line) => {
      const [, chain = '', target = ''] = /^-A (\S+).* -[jg] (\S+)/.exec(line) ?? [];
      return owned.test(target) && !owned.test(chain);
    });
    commands.push(
      `*${table}`,
      ...jumps.map((line) => line.replace(/^-A/, '-D')),
      ...chains.map((name) => `-F ${name}`),
      ...chains.map((name) => `-X ${name}`),
      'COMMIT',
    );
  }
  return commands.length === 0 ? '' : `${commands.join('\n')}\n`;
}

/** Takes out the rules of Kubernetes and of partitions, for IPv4 and IPv6. */
export async function removeRules(): Promise<void> {
  for (const { save, restore } of families) {
    const commands = removalOf(await runOrEmpty(save, []));
    if (commands !== '') await run(restore, ['--noflush', '--wait', '5'], { input: commands });
  }
}

async function chainsMatching(pattern: RegExp): Promise<string[]> {
  const saved = await Promise.all(families.map(({ save }) => runOrEmpty(save, [])));
  const names = saved.join('\n').matchAll(/^:(\S+)/gm);
  return [...new Set([...names].map((match) => match[1] ?? '').filter((name) => pattern.test(name)))];
}

export const kubernetesChains = (): Promise<string[]> => chainsMatching(kubernetes);
export const ownChains = (): Promise<string[]> => chainsMatching(ours);
