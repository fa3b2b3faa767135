import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect } from 'chai';
import { takeLock } from '../../cluster/lock.ts';
import { waitFor } from '../../support/wait.ts';

const lockModule = join(import.meta.dirname, '../../cluster/lock.ts');

describe('the lock of the test cluster', () => {
  const name = `kvcluster-lock-test-${process.pid}`;

  before(function () {
    if (process.platform !== 'linux') this.skip(); // abstract sockets are Linux's
  });

  it('lets a second run wait, and tells it for whom', async () => {
    const first = await takeLock({ name, purpose: 'first', log: () => undefined });
    const told: string[] = [];
    let taken = false;
    const second = takeLock({ name, purpose: 'second', waitMs: 5_000, log: (line) => told.push(line) });
    void second.then(() => (taken = true));
    await waitFor({ what: 'the second to be told', timeoutMs: 4_000, intervalMs: 5 }, () => told.length > 0);
    expect(taken).to.equal(false);
    expect(told).to.deep.equal([`the test cluster is in use by first (process ${process.pid}); waiting`]);
    await first.release();
    await (await second).release();
  });

  it('gives up in the end, naming the holder', async () => {
    const first = await takeLock({ name, purpose: 'kube:up', log: () => undefined });
    const refusal = await takeLock({ name, purpose: 'second', waitMs: 0, log: () => undefined }).then(
      () => 'taken',
      (error: unknown) => String(error),
    );
    expect(refusal).to.equal(`Error: the test cluster is in use by kube:up (process ${process.pid})`);
    await first.release();
  });

  it('is free again when its holder was killed', async () => {
    const hold = `
      const { takeLock } = await import(${JSON.stringify(lockModule)});
      await takeLock({ name: ${JSON.stringify(name)}, purpose: 'child', log: () => {} });
      console.log('held');
      setInterval(() => {}, 1000);
    `;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', hold], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    const waiting = takeLock({ name, purpose: 'next', waitMs: 5_000, log: () => undefined });
    child.kill('SIGKILL');
    await (await waiting).release();
  });
});
