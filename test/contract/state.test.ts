import { copyFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemScheduler } from '../../common/clock.ts';
import { LmdbState } from '../../node/storage/lmdb-state.ts';
import { MemoryState, MemoryStateVolume } from '../support/memory-state.ts';
import { describeStateContract } from './state.ts';

describeStateContract('LMDB', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'kvcluster-state-'));
  let life = 0;
  const place = (number: number): string => join(directory, String(number));
  await mkdir(place(0));
  return {
    open: () => LmdbState.open(place(life)),
    // What the file holds in this moment, as another process finds it; the old one may go on, and nobody looks.
    crash: async () => {
      await mkdir(place(life + 1));
      copyFileSync(join(place(life), 'data.mdb'), join(place(life + 1), 'data.mdb'));
      life += 1;
    },
    dispose: () => rm(directory, { recursive: true, force: true }),
  };
});

describeStateContract('memory', () => {
  const volume = new MemoryStateVolume();
  let running: MemoryState;
  return Promise.resolve({
    open: () => {
      running = new MemoryState(volume, systemScheduler);
      return Promise.resolve(running);
    },
    crash: () => {
      running.crash();
      return Promise.resolve();
    },
    dispose: () => Promise.resolve(),
  });
});
