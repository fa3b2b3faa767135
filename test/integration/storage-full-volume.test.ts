import { expect } from 'chai';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { systemClock, systemScheduler } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import type { LogStore } from '../../node/storage/log-store.ts';
import { openStore } from '../../node/storage/open-store.ts';
import { measured } from '../support/measured.ts';
import { silentLogger } from '../support/memory-store.ts';
import { waitFor } from '../support/wait.ts';

const MIB = 1024 * 1024;
const VOLUME_BYTES = 96 * MIB;
const BATCH = 50;
const root = join(import.meta.dirname, '../..');

/** Writes until the quota is reached, or beyond it until the volume is full; prints how many were acknowledged. */
function writerScript(directory: string, mode: 'to the quota' | 'to the end', first: number): string {
  return `
    const { systemClock, systemScheduler } = await import('${root}/common/clock.ts');
    const { systemRandom } = await import('${root}/common/random.ts');
    const { openStore } = await import('${root}/node/storage/open-store.ts');
    const { liveRecord } = await import('${root}/node/storage/record.ts');
    const logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => logger };
    const store = await openStore({
      directory: ${JSON.stringify(directory)}, partitions: 16,
      clock: systemClock, scheduler: systemScheduler, random: systemRandom, logger,
    });
    let next = ${first};
    const put = () => {
      const key = Buffer.from('key-' + next);
      next += 1;
      return { key, record: liveRecord(key, systemRandom.bytes(1000), { wallMs: next, counter: 0, writer: 1 }), own: true };
    };
    // What a start on a full volume needs is made a while after the first one.
    if (next === 0) await new Promise((resolve) => setTimeout(resolve, 6000));
    let acknowledged = next;
    let failed = false;
    try {
      while (${mode === 'to the end'} || !store.quotaExceeded) {
        await store.apply(Array.from({ length: ${BATCH} }, put)).durable;
        acknowledged = next;
      }
      await store.close();
    } catch {
      failed = true;
    }
    console.log(JSON.stringify({ acknowledged, failed }));
    process.exit(0);`;
}

describe('a store on a volume that runs full', () => {
  let place: string;
  let mounted: string | undefined;

  before(async function () {
    place = await mkdtemp(join(tmpdir(), 'kvcluster-full-'));
    const image = join(place, 'image');
    const mountPoint = join(place, 'volume');
    await mkdir(mountPoint);
    writeFileSync(image, '');
    truncateSync(image, VOLUME_BYTES);
    const made = spawnSync('mkfs.ext4', ['-q', '-F', '-m', '0', image]).status === 0;
    if (made && spawnSync('mount', ['-o', 'loop', image, mountPoint]).status === 0) mounted = mountPoint;
    // Only root may mount, and not in every container.
    if (mounted === undefined) this.skip();
  });

  after(async () => {
    if (mounted !== undefined) spawnSync('umount', [mounted]);
    await rm(place, { recursive: true, force: true });
  });

  const directory = (): string => join(mounted!, 'data');
  const freeBytes = (): number => {
    const { bavail, bsize } = statfsSync(mounted!);
    return bavail * bsize;
  };
  const open = (): Promise<LogStore> =>
    openStore({
      directory: directory(),
      partitions: 16,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger: silentLogger,
    });
  const write = async (
    mode: 'to the quota' | 'to the end',
    first: number,
  ): Promise<{ acknowledged: number; failed: boolean }> => {
    const child = spawn(process.execPath, ['-e', writerScript(directory(), mode, first)], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exited = once(child, 'exit');
    const output = await text(child.stdout);
    await exited;
    return JSON.parse(output) as { acknowledged: number; failed: boolean };
  };

  it('stops at its quota with room to spare, fails when that is overrun, starts again with all that it acknowledged, and recovers', async () => {
    const atQuota = await write('to the quota', 0);
    expect(atQuota.failed).to.equal(false);
    measured(
      `the quota of a volume of ${VOLUME_BYTES / MIB} MiB was reached with ${atQuota.acknowledged} records of 1000 B, ${Math.round(freeBytes() / MIB)} MiB free`,
    );
    expect(freeBytes()).to.be.greaterThan(6 * MIB);
    const atEnd = await write('to the end', atQuota.acknowledged);
    expect(atEnd.failed).to.equal(true);
    expect(atEnd.acknowledged).to.be.greaterThan(atQuota.acknowledged);

    let store = await open();
    try {
      for (let index = 0; index < atEnd.acknowledged; index += 1) {
        expect(store.get(Buffer.from(`key-${index}`)), `key-${index}`).not.to.equal(undefined);
      }
      await store.checkpoint();
      await waitFor({ what: 'the quota to be exceeded', timeoutMs: 20_000 }, () => store.quotaExceeded);
      for (let partition = 0; partition < store.partitions; partition += 1) {
        await store.removeWhere(partition, (key) => !key.toString().endsWith('7'));
      }
      store.trimLog(store.head);
      await waitFor({ what: 'room again', timeoutMs: 20_000 }, () => !store.quotaExceeded);
      await store.close();
      store = await open();
      expect(store.get(Buffer.from('key-7'))).not.to.equal(undefined);
      expect(store.get(Buffer.from('key-8'))).to.equal(undefined);
    } finally {
      await store.close();
    }
  });
});
