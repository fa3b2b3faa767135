import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock, systemScheduler } from '../../../common/clock.ts';
import { systemRandom } from '../../../common/random.ts';
import { partitionOf } from '../../../model/key-hash.ts';
import { digestOfRecords } from '../../../node/storage/digest.ts';
import { FileDisk } from '../../../node/storage/file-disk.ts';
import type { StoreLimits } from '../../../node/storage/limits.ts';
import { lockDirectory } from '../../../node/storage/lock.ts';
import type { LogStore } from '../../../node/storage/log-store.ts';
import { openStore } from '../../../node/storage/open-store.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { setAside } from '../../../node/storage/set-aside.ts';
import { DirectoryInUse, StoreCorrupt } from '../../../node/storage/store-errors.ts';
import { measured } from '../../support/measured.ts';
import { silentLogger } from '../../support/memory-store.ts';

const KEY = Buffer.from('key');

async function errorOf(promise: Promise<unknown>): Promise<NodeJS.ErrnoException | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => error as NodeJS.ErrnoException,
  );
}

describe('the files of a store', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kvcluster-files-'));
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  const open = (limits: Partial<StoreLimits> = {}): Promise<LogStore> =>
    openStore({
      directory,
      limits,
      partitions: 8,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      logger: silentLogger,
    });
  const put = (store: LogStore, value: string, wallMs = 1): Promise<void> => {
    const record = liveRecord(KEY, Buffer.from(value), { wallMs, counter: 0, writer: 1 });
    return store.apply([{ key: KEY, record, own: true }]).durable;
  };

  describe('a disk', () => {
    it('appends, reads, cuts, renames and removes', async () => {
      const disk = await FileDisk.open(join(directory, 'a', 'b'));
      const file = await disk.create('one');
      // More buffers than one system call takes, and empty ones.
      const buffers = Array.from({ length: 2500 }, (_, index) => Buffer.alloc(index % 5, index % 251));
      await file.append(buffers);
      await file.append([Buffer.from('end')]);
      await file.sync();
      await file.close();
      await file.close();
      const content = Buffer.concat([...buffers, Buffer.from('end')]);
      expect((await disk.read('one')).equals(content)).to.equal(true);
      expect((await disk.read('one', { offset: content.length - 3, length: 100 })).toString()).to.equal(
        'end',
      );
      expect((await disk.read('one', { offset: content.length + 3, length: 100 })).length).to.equal(0);
      expect(await disk.size('one')).to.equal(content.length);
      const again = await disk.open('one');
      await again.truncate(10);
      await again.append([Buffer.from('x')]);
      await again.close();
      expect(
        (await disk.read('one')).equals(Buffer.concat([content.subarray(0, 10), Buffer.from('x')])),
      ).to.equal(true);
      await disk.rename('one', 'two');
      await mkdir(join(directory, 'a', 'b', 'folder'));
      expect(await disk.list()).to.deep.equal(['two']);
      expect((await errorOf(disk.create('two')))?.code).to.equal('EEXIST');
      await disk.remove('two');
      await disk.syncDir();
      expect(await disk.list()).to.deep.equal([]);
      expect((await errorOf(disk.read('two')))?.code).to.equal('ENOENT');
      expect((await disk.space()).freeBytes).to.be.greaterThan(0);
    });

    it('counts on its part of a volume that several stores share', async () => {
      const [whole, part] = [await FileDisk.open(directory), await FileDisk.open(directory, 4)];
      const [all, mine] = [await whole.space(), await part.space()];
      expect(mine.totalBytes).to.equal(Math.floor(all.totalBytes / 4));
      expect(mine.freeBytes).to.be.lessThan(all.freeBytes / 3);
    });

    it('does nothing more with a file after a write failed', async function () {
      if (process.platform !== 'linux') this.skip();
      const disk = await FileDisk.open(directory);
      await symlink('/dev/full', join(directory, 'full'));
      const file = await disk.open('full');
      expect((await errorOf(file.append([Buffer.from('x')])))?.code).to.equal('ENOSPC');
      for (const call of [() => file.sync(), () => file.append([]), () => file.truncate(0)]) {
        expect((await errorOf(call()))?.message).to.match(/unusable after an earlier write error/);
      }
      await file.close();
    });
  });

  describe('a data directory', () => {
    it('is refused to a second process with one clear sentence, under any path, and free again after that', async () => {
      const store = await open();
      await symlink(directory, `${directory}-link`);
      try {
        for (const path of [directory, `${directory}-link`]) {
          const error = await errorOf(lockDirectory(path, silentLogger));
          expect(error)
            .to.be.instanceOf(DirectoryInUse)
            .with.property('message')
            .that.matches(/in use by another process/);
        }
      } finally {
        await rm(`${directory}-link`);
      }
      await store.close();
      await (await open()).close();
      expect(await readdir(directory)).to.have.members(['log', 'state']);
    });

    it('is refused by the socket in it alone, whatever its length, as to another network namespace', async function () {
      if (process.platform !== 'linux') this.skip();
      const long = join(directory, 'x'.repeat(120));
      await mkdir(long);
      const lock = await lockDirectory(long, silentLogger);
      const child = spawn('unshare', ['-r', '-n', process.execPath, '-e', lockScript(long)]);
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      await once(child, 'close');
      await lock.release();
      await lock.release();
      // Where a user may not make namespaces there is nothing to see.
      if (output === '') this.skip();
      expect(output).to.equal('DirectoryInUse\n');
    });

    it('is free again when the process that had it was killed', async () => {
      const child = spawn(process.execPath, ['-e', lockScript(directory)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [output] = (await once(child.stdout, 'data')) as [Buffer];
      expect(output.toString()).to.equal('locked\n');
      expect(await errorOf(lockDirectory(directory, silentLogger))).to.be.instanceOf(DirectoryInUse);
      child.kill('SIGKILL');
      await once(child, 'exit');
      expect(await readdir(directory)).to.deep.equal(['lock']);
      const lock = await lockDirectory(directory, silentLogger);
      await lock.release();
    });

    it('keeps its records over closing and opening, and over an end without closing', async () => {
      let store = await open();
      await put(store, 'one');
      await store.close();
      store = await open();
      expect(store.get(KEY)?.value.toString()).to.equal('one');
      await put(store, 'two', 2);
      await store.checkpoint();
      await put(store, 'three', 3);
      await store.close();
      store = await open();
      expect(store.get(KEY)?.value.toString()).to.equal('three');
      expect(store.statistics().records).to.equal(1);
      await store.close();
    });

    it('takes loaded records by the thousand, and finds them again', async () => {
      const records = Array.from({ length: 20_000 }, (_, index) => {
        const key = Buffer.from(`key-${String(index).padStart(6, '0')}`);
        return {
          key,
          record: liveRecord(key, Buffer.alloc(256, index), { wallMs: index + 1, counter: 0, writer: 1 }),
        };
      });
      records.sort((a, b) => partitionOf(a.key, 8) - partitionOf(b.key, 8));
      let store = await open();
      const begunMs = performance.now();
      expect(await store.load(records)).to.equal(records.length);
      const seconds = (performance.now() - begunMs) / 1000;
      measured(`${Math.round(records.length / seconds)} records of 256 B a second loaded into a blank store`);
      expect(store.statistics().records).to.equal(records.length);
      expect(store.syncedThrough).to.equal(0);
      await store.close();
      store = await open();
      for (const { key, record } of records) expect(store.get(key)?.checksum).to.equal(record.checksum);
      for (let partition = 0; partition < store.partitions; partition += 1) {
        const own = records.filter(({ key }) => partitionOf(key, 8) === partition);
        expect(store.digest(partition)).to.deep.equal(digestOfRecords(own));
      }
      await store.close();
    });

    const damages: { name: string; damage: (state: Buffer) => Buffer }[] = [
      { name: 'is garbage', damage: (state) => Buffer.alloc(state.length, 1) },
      { name: 'is too short', damage: (state) => state.subarray(0, 100) },
      { name: 'was cut behind its first pages', damage: (state) => state.subarray(0, 8192) },
      {
        name: 'has lost one of its descriptions',
        damage: (state) => Buffer.concat([state.subarray(0, 4096), Buffer.alloc(4096), state.subarray(8192)]),
      },
      {
        name: 'has lost its pages',
        damage: (state) => Buffer.concat([state.subarray(0, 8192), Buffer.alloc(state.length - 8192)]),
      },
    ];
    for (const { name, damage } of damages) {
      it(`is set aside and starts blank when the file of its state ${name}, and the process lives`, async () => {
        const store = await open();
        await put(store, 'one');
        await store.close();
        const file = join(directory, 'state', 'data.mdb');
        await writeFile(file, damage(await readFile(file)));
        expect(await errorOf(open())).to.be.instanceOf(StoreCorrupt);
        const target = await setAside(directory);
        expect(target).to.equal(join(directory, 'quarantine-1'));
        expect(await readdir(target)).to.have.members(['log', 'state']);
        await using blank = await open();
        expect(blank.get(KEY)).to.equal(undefined);
      });
    }

    it('is set aside at the next start when too many of its records are damaged', async () => {
      const keys = Array.from({ length: 20 }, (_, index) => Buffer.from(`key-${index}`));
      let store = await open({ damagedRecords: 3 });
      await store.load(
        keys.map((key) => ({
          key,
          record: liveRecord(key, Buffer.alloc(100, 'x'), { wallMs: 1, counter: 0, writer: 1 }),
        })),
      );
      await store.close();
      const file = join(directory, 'state', 'data.mdb');
      await writeFile(
        file,
        Buffer.from((await readFile(file)).toString('latin1').replaceAll('xxxx', 'xyxx'), 'latin1'),
      );
      store = await open({ damagedRecords: 3 });
      const read = (key: Buffer): unknown => {
        try {
          return store.get(key);
        } catch (error) {
          return error;
        }
      };
      for (const key of keys.slice(0, 3)) expect(read(key)).to.have.property('code', 'DATA_LOSS');
      expect(read(keys[0]!), 'counted once').to.have.property('code', 'DATA_LOSS');
      expect(store.statistics().damagedRecords).to.equal(3);
      expect(read(keys[3]!)).to.have.property('code', 'DATA_LOSS');
      expect(await errorOf(store.failed)).to.be.instanceOf(StoreCorrupt);
      await store.close();
      expect(await errorOf(open()))
        .to.be.instanceOf(StoreCorrupt)
        .with.property('message')
        .that.matches(/more than 3/);
      const target = await setAside(directory);
      expect(await readdir(target)).to.have.members(['log', 'state', 'condemned']);
      await using blank = await open();
      expect(blank.get(keys[0]!)).to.equal(undefined);
    });

    it('keeps the newest four stores that were set aside', async () => {
      for (let round = 1; round <= 6; round += 1) {
        const store = await open();
        await store.close();
        await setAside(directory);
      }
      expect(await readdir(directory)).to.have.members([
        'quarantine-3',
        'quarantine-4',
        'quarantine-5',
        'quarantine-6',
      ]);
    });
  });
});

/** Locks a directory and waits to be killed. */
function lockScript(path: string): string {
  const module = join(import.meta.dirname, '../../../node/storage/lock.ts');
  return `
    const { lockDirectory } = await import(${JSON.stringify(module)});
    try {
      const lock = await lockDirectory(${JSON.stringify(path)}, console);
      process.stdout.write('locked\\n');
      setInterval(() => lock, 1000);
    } catch (error) {
      process.stdout.write(error.constructor.name + '\\n');
    }`;
}
