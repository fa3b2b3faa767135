import type { Dice } from './dice.ts';
import type { Disk, DiskFile, DiskSpace, FileRange } from '../../node/storage/disk.ts';
import type { SimProcess } from './process.ts';

/** A change of a file that is not synced. */
type Pending =
  | { readonly kind: 'append'; readonly offset: number; readonly bytes: Buffer }
  /** With the bytes that are cut off, should the change be lost. */
  | { readonly kind: 'truncate'; readonly size: number; readonly cut: Buffer };

interface Inode {
  /** As processes see it; `size` bytes of it count. */
  content: Buffer;
  size: number;
  pending: Pending[];
}

/** A change of a name that is not synced. */
interface PendingName {
  readonly order: number;
  readonly name: string;
  /** Undefined: removed. */
  readonly inode: Inode | undefined;
}

const SECTOR_BYTES = 512;

/** The files of a volume: they outlive processes, and what was not synced is at the mercy of a power cut. */
export class SimFiles {
  /** Appends beyond this many bytes in all fail with ENOSPC, having written what fits. */
  capacityBytes = Number.MAX_SAFE_INTEGER;
  readonly names = new Map<string, Inode>();
  private readonly durableNames = new Map<string, Inode>();
  private pendingNames: PendingName[] = [];
  private nameOrder = 0;

  get usedBytes(): number {
    let sum = 0;
    for (const { size } of this.names.values()) sum += size;
    return sum;
  }

  /** Whether a power cut now could lose anything. */
  get hasUnsynced(): boolean {
    return this.pendingNames.length > 0 || [...this.names.values()].some(({ pending }) => pending.length > 0);
  }

  rename(name: string, inode: Inode | undefined): void {
    if (inode === undefined) this.names.delete(name);
    else this.names.set(name, inode);
    this.nameOrder += 1;
    this.pendingNames.push({ order: this.nameOrder, name, inode });
  }

  /** How far names have changed: what a sync of the directory that begins now covers. */
  get nameProgress(): number {
    return this.nameOrder;
  }

  syncNames(through: number): void {
    for (const { order, name, inode } of this.pendingNames) {
      if (order > through) break;
      if (inode === undefined) this.durableNames.delete(name);
      else this.durableNames.set(name, inode);
    }
    this.pendingNames = this.pendingNames.filter(({ order }) => order > through);
  }

  /**
   * What a machine finds that lost power now: what was synced is there, and every other change is kept, lost or torn
   * into sectors for itself, so that later ones may survive earlier ones.
   */
  afterPowerCut(dice: Dice): SimFiles {
    const result = new SimFiles();
    result.capacityBytes = this.capacityBytes;
    const names = new Map(this.durableNames);
    for (const { name, inode } of this.pendingNames) {
      if (dice.chance(0.5)) continue;
      if (inode === undefined) names.delete(name);
      else names.set(name, inode);
    }
    for (const [name, inode] of names) {
      const survivor = surviving(inode, dice);
      result.names.set(name, survivor);
      result.durableNames.set(name, survivor);
    }
    return result;
  }

  /** Everything as processes see it, as if it were synced. */
  copy(): SimFiles {
    const result = new SimFiles();
    result.capacityBytes = this.capacityBytes;
    for (const [name, { content, size }] of this.names) {
      const inode = { content: Buffer.from(content.subarray(0, size)), size, pending: [] };
      result.names.set(name, inode);
      result.durableNames.set(name, inode);
    }
    return result;
  }
}

/** A disk's speed, milliseconds; may change at any time. */
export interface DiskPace {
  readonly operation: () => number;
  readonly sync: () => number;
}

/** A volume's files as one process uses them. Every operation takes its time, and none ends after the process has died. */
export class SimDisk implements Disk {
  readonly files: SimFiles;
  private readonly process: SimProcess;
  private readonly pace: DiskPace;

  constructor(files: SimFiles, process: SimProcess, pace: DiskPace) {
    this.files = files;
    this.process = process;
    this.pace = pace;
  }

  list(): Promise<readonly string[]> {
    return this.run(() => [...this.files.names.keys()].sort());
  }

  create(name: string): Promise<DiskFile> {
    return this.run(() => {
      if (this.files.names.has(name)) throw diskError('EEXIST', name);
      if (this.files.usedBytes >= this.files.capacityBytes) throw diskError('ENOSPC', name);
      const inode: Inode = { content: Buffer.alloc(0), size: 0, pending: [] };
      this.files.rename(name, inode);
      return new SimFile(this, name, inode);
    });
  }

  open(name: string): Promise<DiskFile> {
    return this.run(() => new SimFile(this, name, this.inode(name)));
  }

  read(name: string, range?: FileRange): Promise<Buffer> {
    return this.run(() => {
      const { content, size } = this.inode(name);
      const start = Math.min(size, range?.offset ?? 0);
      const end = range === undefined ? size : Math.min(size, start + range.length);
      return Buffer.from(content.subarray(start, end));
    });
  }

  size(name: string): Promise<number> {
    return this.run(() => this.inode(name).size);
  }

  rename(from: string, to: string): Promise<void> {
    return this.run(() => {
      const inode = this.inode(from);
      this.files.rename(from, undefined);
      this.files.rename(to, inode);
    });
  }

  remove(name: string): Promise<void> {
    return this.run(() => {
      this.inode(name);
      this.files.rename(name, undefined);
    });
  }

  syncDir(): Promise<void> {
    const through = this.files.nameProgress;
    return this.run(() => this.files.syncNames(through), this.pace.sync());
  }

  space(): Promise<DiskSpace> {
    return this.run(() => {
      const { capacityBytes, usedBytes } = this.files;
      return { totalBytes: capacityBytes, freeBytes: Math.max(0, capacityBytes - usedBytes) };
    });
  }

  /** Runs `action` when the disk gets to it, unless the process is dead by then. */
  run<T>(action: () => T, takesMs = this.pace.operation()): Promise<T> {
    return new Promise((resolve, reject) => {
      this.process.after(takesMs, () => {
        try {
          resolve(action());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }

  syncMs(): number {
    return this.pace.sync();
  }

  private inode(name: string): Inode {
    const inode = this.files.names.get(name);
    if (inode === undefined) throw diskError('ENOENT', name);
    return inode;
  }
}

class SimFile implements DiskFile {
  private readonly disk: SimDisk;
  private readonly name: string;
  private readonly inode: Inode;
  private failure: unknown;
  private closed = false;

  constructor(disk: SimDisk, name: string, inode: Inode) {
    this.disk = disk;
    this.name = name;
    this.inode = inode;
  }

  append(buffers: readonly Buffer[]): Promise<void> {
    return this.failStop(() => {
      const { inode, disk } = this;
      const wanted = buffers.reduce((sum, { length }) => sum + length, 0);
      const room = Math.max(0, disk.files.capacityBytes - disk.files.usedBytes);
      const length = Math.min(wanted, room);
      const offset = inode.size;
      reserve(inode, offset + length);
      let at = offset;
      for (const buffer of buffers)
        at += buffer.copy(inode.content, at, 0, Math.max(0, offset + length - at));
      inode.size = offset + length;
      inode.pending.push({ kind: 'append', offset, bytes: inode.content.subarray(offset, inode.size) });
      if (length < wanted) throw diskError('ENOSPC', this.name);
    });
  }

  sync(): Promise<void> {
    // One call at a time: everything pending was there when the sync began.
    return this.failStop(() => void (this.inode.pending = []), this.disk.syncMs());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.failStop(() => {
      const { inode } = this;
      if (sizeBytes >= inode.size) return;
      const cut = Buffer.from(inode.content.subarray(sizeBytes, inode.size));
      inode.pending.push({ kind: 'truncate', size: sizeBytes, cut });
      // A copy: what was appended before stays as it was, should this change be lost.
      inode.content = Buffer.from(inode.content.subarray(0, sizeBytes));
      inode.size = sizeBytes;
    });
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  private async failStop(action: () => void, takesMs?: number): Promise<void> {
    if (this.closed) throw new Error('the file is closed');
    if (this.failure !== undefined) throw new Error('the file is unusable', { cause: this.failure });
    try {
      await this.disk.run(action, takesMs);
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }
}

function reserve(inode: Inode, size: number): void {
  if (size <= inode.content.length) return;
  const grown = Buffer.alloc(Math.max(size, 2 * inode.content.length, 4096));
  inode.content.copy(grown, 0, 0, inode.size);
  inode.content = grown;
}

/** The file with the fates of its unsynced changes decided: back to what was synced, and forward through what survives. */
function surviving(inode: Inode, dice: Dice): Inode {
  let durable = inode.content.subarray(0, inode.size);
  for (const change of inode.pending.toReversed()) {
    durable =
      change.kind === 'append'
        ? durable.subarray(0, change.offset)
        : Buffer.concat([durable.subarray(0, change.size), change.cut]);
  }
  const result: Inode = { content: Buffer.from(durable), size: durable.length, pending: [] };
  for (const change of inode.pending) {
    const fate = dice.pick(['kept', 'lost', 'torn']);
    if (fate === 'lost') continue;
    if (change.kind === 'truncate') result.size = Math.min(result.size, change.size);
    else keepSectors(result, change, () => fate === 'kept' || dice.chance(0.5));
  }
  return result;
}

/** Writes the sectors that `kept` says; what lies between the end of the file and a kept sector reads as zeros. */
function keepSectors(
  inode: Inode,
  { offset, bytes }: { readonly offset: number; readonly bytes: Buffer },
  kept: () => boolean,
): void {
  for (let at = 0; at < bytes.length;) {
    const length = Math.min(SECTOR_BYTES - ((offset + at) % SECTOR_BYTES), bytes.length - at);
    if (kept()) {
      const start = offset + at;
      reserve(inode, start + length);
      if (start > inode.size) inode.content.fill(0, inode.size, start);
      bytes.copy(inode.content, start, at, at + length);
      inode.size = Math.max(inode.size, start + length);
    }
    at += length;
  }
}

/** An error as the operating system gives it. */
export function diskError(code: string, name: string): Error {
  return Object.assign(new Error(`${code}: ${name}`), { code });
}
