import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleanAtExit } from '../../support/exit-cleanup.ts';

/** A temporary directory that is gone at the end, also after Ctrl-C. */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'kvcluster-bench-'));
  private readonly cancelCleaning = cleanAtExit(() => this.remove());

  /** Removes what is in it; gives the bytes that it took. */
  empty(): number {
    const bytes = diskBytes(this.path);
    for (const name of readdirSync(this.path))
      rmSync(join(this.path, name), { recursive: true, force: true });
    return bytes;
  }

  [Symbol.dispose](): void {
    this.remove();
    this.cancelCleaning();
  }

  private remove(): void {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Bytes that the files below a directory take on disk; a sparse file counts as what it holds. */
export function diskBytes(directory: string): number {
  let bytes = 0;
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += statSync(join(entry.parentPath, entry.name)).blocks * 512;
  }
  return bytes;
}
