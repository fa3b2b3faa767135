import type { Kubectl } from './kubectl.ts';
import type { Pod } from './kubernetes-objects.ts';

const logLines = 60;
const GIST_LINES = 8;

/** What one wants to see of a namespace after a failure: objects, events, descriptions of pods, and their logs. */
export async function namespaceReport(kubectl: Kubectl): Promise<string> {
  const pods = await kubectl.list<Pod>('pods').catch((): Pod[] => []);
  const sections: [title: string, args: string[]][] = [
    ['objects', ['get', 'all,persistentvolumeclaims,configmaps', '--output=wide']],
    ['events', ['get', 'events', '--sort-by=.lastTimestamp']],
    ['pods', ['describe', 'pods']],
    ...pods.flatMap(logSections),
  ];
  const texts: string[] = [];
  for (const [title, args] of sections) {
    const text = await kubectl.run(args, { timeoutMs: 20_000 }).catch(String);
    texts.push(`--- ${title}\n${text.trimEnd()}`);
  }
  return texts.join('\n');
}

function logSections(pod: Pod): [string, string[]][] {
  const { name } = pod.metadata;
  const tail = ['--all-containers', '--prefix', `--tail=${logLines}`];
  const restarted = pod.status.containerStatuses?.some(({ restartCount }) => restartCount > 0) === true;
  return [
    [`log of ${name}`, ['logs', name, ...tail]],
    ...(restarted
      ? [[`log of ${name} before its restart`, ['logs', name, '--previous', ...tail]] as [string, string[]]]
      : []),
  ];
}

/** For an afterEach hook: prints the report when the test failed, and adds the gist of it to the test's error. */
export async function reportOnFailure(context: Mocha.Context, kubectl: Kubectl | undefined): Promise<void> {
  const test = context.currentTest;
  if (test?.state !== 'failed' || kubectl === undefined) return;
  const gist = await namespaceGist(kubectl);
  if (test.err !== undefined) test.err.message += `\n${gist}`;
  console.error(await namespaceReport(kubectl));
}

/** The pods in a line each, and the last warnings. */
async function namespaceGist(kubectl: Kubectl): Promise<string> {
  const commands = [
    ['get', 'pods', '--output=wide', '--no-headers'],
    ['get', 'events', '--field-selector=type=Warning', '--sort-by=.lastTimestamp', '--no-headers'],
  ];
  const texts = await Promise.all(
    commands.map((args) => kubectl.run(args, { timeoutMs: 20_000 }).catch(String)),
  );
  return texts.map((text) => text.trimEnd().split('\n').slice(-GIST_LINES).join('\n')).join('\n');
}
