/** `npm run kube:down`: ends the Kubernetes of `npm run kube:up` and removes all that it made, except the cache. */
import { takeLock } from './lock.ts';
import { tearDown } from './tear-down.ts';

const log = (line: string): void => {
  console.error(`kube:down: ${line}`);
};

try {
  const lock = await takeLock({ purpose: 'kube:down', log });
  try {
    const started = Date.now();
    await tearDown();
    log(`nothing is left, after ${((Date.now() - started) / 1000).toFixed(1)} s`);
  } finally {
    await lock.release();
  }
} catch (error) {
  log(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
