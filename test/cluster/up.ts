/** `npm run kube:up [-- --zone NAME]`: raises a Kubernetes on this machine and prints how to use it. */
import { parseArgs } from 'node:util';
import { adminKubeconfig, toolsDir } from './layout.ts';
import { takeLock } from './lock.ts';
import { raise, runningCluster } from './raise.ts';

const log = (line: string): void => {
  console.error(`kube:up: ${line}`);
};

try {
  const { values } = parseArgs({ options: { zone: { type: 'string' } } });
  const lock = await takeLock({ purpose: 'kube:up', log });
  try {
    const started = Date.now();
    if ((await runningCluster()) === 'person') log('already up');
    else {
      await raise({ owner: 'person', zone: values.zone, log });
      log(`up after ${((Date.now() - started) / 1000).toFixed(1)} s; npm run kube:down ends it`);
    }
    console.log(`export KUBECONFIG=${adminKubeconfig} PATH=${toolsDir}:$PATH`);
  } finally {
    await lock.release();
  }
} catch (error) {
  log(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
