import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleanAtExit } from './exit-cleanup.ts';
import { isRunning } from './local-cluster.ts';

const PREFIX = 'kvcluster-volume-';
const FILLER = 'filler';

/** Why this machine cannot make a volume of its own; undefined when it can. */
export function noVolumesReason(): string | undefined {
  if (process.platform !== 'linux') return 'loop devices are a thing of Linux';
  if (process.getuid?.() !== 0) return 'mounting needs root';
  if (!existsSync('/dev/loop-control')) return 'there are no loop devices';
  return undefined;
}

/**
 * A small file system of its own, on a loop device, so that a full disk is a full disk and not a pretence. Synchronous,
 * like the commands it runs: a test does little else meanwhile, and the end of a process cannot wait.
 */
export class LoopVolume implements Disposable {
  /** Where it is mounted. */
  readonly path: string;
  private readonly directory: string;
  private readonly cancelCleaning: () => void;
  private disposed = false;

  /** @throws when `noVolumesReason` says something, or a command fails. */
  constructor(sizeBytes: number) {
    removeLeftovers();
    this.directory = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
    this.path = join(this.directory, 'mounted');
    this.cancelCleaning = cleanAtExit(() => this[Symbol.dispose]());
    try {
      const image = join(this.directory, 'image');
      writeFileSync(image, '');
      truncateSync(image, sizeBytes);
      run('mkfs.ext4', '-q', '-F', '-m', '0', image);
      mkdirSync(this.path);
      run('mount', '-o', 'loop', image, this.path);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Leaves no byte free. */
  fill(): void {
    const file = openSync(join(this.path, FILLER), 'a');
    try {
      for (let size = 1024 * 1024; size >= 512;) {
        try {
          if (writeSync(file, Buffer.alloc(size, 0xa5)) < size) size /= 2;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
          size /= 2;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  /** Frees what `fill` took. */
  free(): void {
    rmSync(join(this.path, FILLER), { force: true });
  }

  /** Unmounts it and gives its device back. Idempotent. */
  [Symbol.dispose](): void {
    if (this.disposed) return;
    this.disposed = true;
    takeAway(this.directory);
    this.cancelCleaning();
  }
}

/** What runs that were ended by SIGKILL have left. */
function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(/^kvcluster-volume-(\d+)-/.exec(name)?.[1] ?? Number.NaN);
    if (!Number.isNaN(pid) && !isRunning(pid)) takeAway(join(tmpdir(), name));
  }
}

/** The loop device goes by itself when its file system is unmounted. */
function takeAway(directory: string): void {
  try {
    run('umount', '--lazy', join(directory, 'mounted'));
  } catch {
    // It was not mounted yet, or is not any more.
  }
  rmSync(directory, { recursive: true, force: true });
}

function run(file: string, ...args: readonly string[]): void {
  execFileSync(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
}
