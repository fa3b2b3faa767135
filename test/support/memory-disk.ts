import type { Scheduler } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';
import type { Disk, DiskFile, DiskSpace, FileRange } from '../../node/storage/disk.ts';

/** What happened to a volume, in order. Writes are noted when they begin, syncs when they have ended. */
export type VolumeEvent =
  | { readonly kind: 'create'; readonly name: string; readonly inode: number }
  | { readonly kind: 'append'; readonly inode: number; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly inode: number; readonly size: number }
  | { readonly kind: 'sync'; readonly inode: number; readonly covers: number }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'syncDir'; readonly covers: number }
  /** Something elsewhere, noted for its place in the order. */
  | { readonly kind: 'mark' };

export type DiskOperation =
  'create' | 'open' | 'read' | 'append' | 'truncate' | 'sync' | 'rename' | 'remove' | 'syncDir';

interface Inode {
  readonly number: number;
  content: Buffer;
}

/** A volume in memory: outlives the processes that use it, and remembers everything that was done to it. */
export class MemoryVolume {
  readonly events: VolumeEvent[] = [];
  readonly files = new Map<string, Inode>();
  /** Appends beyond this many bytes in all fail with ENOSPC, having written what fits. */
  capacityBytes = Number.MAX_SAFE_INTEGER;
  /** Called before each operation; throws or returns an error to fail it, or lets it never end. */
  interfere: ((operation: DiskOperation, name: string) => Error | 'stuck' | undefined) | undefined;
  private inodes = 0;

  get usedBytes(): number {
    let sum = 0;
    for (const { content } of this.files.values()) sum += content.length;
    return sum;
  }

  newInode(name: string, content: Buffer = Buffer.alloc(0)): Inode {
    this.inodes += 1;
    const inode = { number: this.inodes, content };
    this.files.set(name, inode);
    return inode;
  }
}

/** The volume as a `Disk`. Every operation ends in a later turn of the scheduler. */
export class MemoryDisk implements Disk {
  private readonly volume: MemoryVolume;
  private readonly scheduler: Scheduler;
  private dead = false;

  constructor(volume: MemoryVolume, scheduler: Scheduler) {
    this.volume = volume;
    this.scheduler = scheduler;
  }

  /** The process is gone: what is under way never ends, and nothing more is written. */
  kill(): void {
    this.dead = true;
  }

  list(): Promise<readonly string[]> {
    return this.later('read', '', () => [...this.volume.files.keys()].sort());
  }

  create(name: string): Promise<DiskFile> {
    return this.later('create', name, () => {
      if (this.volume.files.has(name)) throw diskError('EEXIST', name);
      const inode = this.volume.newInode(name);
      this.volume.events.push({ kind: 'create', name, inode: inode.number });
      return new MemoryFile(this, this.volume, name, inode);
    });
  }

  open(name: string): Promise<DiskFile> {
    return this.later('open', name, () => new MemoryFile(this, this.volume, name, this.inode(name)));
  }

  read(name: string, range?: FileRange): Promise<Buffer> {
    return this.later('read', name, () => {
      const { content } = this.inode(name);
      const offset = range?.offset ?? 0;
      return Buffer.from(content.subarray(offset, range === undefined ? undefined : offset + range.length));
    });
  }

  size(name: string): Promise<number> {
    return this.later('read', name, () => this.inode(name).content.length);
  }

  rename(from: string, to: string): Promise<void> {
    return this.later('rename', from, () => {
      const inode = this.inode(from);
      this.volume.files.delete(from);
      this.volume.files.set(to, inode);
      this.volume.events.push({ kind: 'rename', from, to });
    });
  }

  remove(name: string): Promise<void> {
    return this.later('remove', name, () => {
      this.inode(name);
      this.volume.files.delete(name);
      this.volume.events.push({ kind: 'remove', name });
    });
  }

  syncDir(): Promise<void> {
    const covers = this.volume.events.length;
    return this.later('syncDir', '', () => void this.volume.events.push({ kind: 'syncDir', covers }));
  }

  space(): Promise<DiskSpace> {
    const { capacityBytes, usedBytes } = this.volume;
    return this.later('read', '', () => ({
      totalBytes: capacityBytes,
      freeBytes: Math.max(0, capacityBytes - usedBytes),
    }));
  }

  /** Runs `action` in a later turn, unless the process is dead by then. */
  later<T>(operation: DiskOperation, name: string, action: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.scheduler.soon(() => {
        if (this.dead) return;
        try {
          const error = this.volume.interfere?.(operation, name);
          if (error === 'stuck') return;
          if (error !== undefined) throw error;
          resolve(action());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }

  private inode(name: string): Inode {
    const inode = this.volume.files.get(name);
    if (inode === undefined) throw diskError('ENOENT', name);
    return inode;
  }
}

class MemoryFile implements DiskFile {
  private readonly disk: MemoryDisk;
  private readonly volume: MemoryVolume;
  private readonly name: string;
  private readonly inode: Inode;
  private failure: unknown;
  private closed = false;

  constructor(disk: MemoryDisk, volume: MemoryVolume, name: string, inode: Inode) {
    this.disk = disk;
    this.volume = volume;
    this.name = name;
    this.inode = inode;
  }

  append(buffers: readonly Buffer[]): Promise<void> {
    return this.failStop('append', () => {
      const wanted = Buffer.concat(buffers);
      const room = Math.max(0, this.volume.capacityBytes - this.volume.usedBytes);
      const bytes = wanted.subarray(0, room);
      const offset = this.inode.content.length;
      this.volume.events.push({ kind: 'append', inode: this.inode.number, offset, bytes });
      this.inode.content = Buffer.concat([this.inode.content, bytes]);
      if (bytes.length < wanted.length) throw diskError('ENOSPC', this.name);
    });
  }

  sync(): Promise<void> {
    const covers = this.volume.events.length;
    return this.failStop('sync', () => {
      this.volume.events.push({ kind: 'sync', inode: this.inode.number, covers });
    });
  }

  truncate(size: number): Promise<void> {
    return this.failStop('truncate', () => {
      this.volume.events.push({ kind: 'truncate', inode: this.inode.number, size });
      this.inode.content = Buffer.from(this.inode.content.subarray(0, size));
    });
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  private async failStop(operation: DiskOperation, action: () => void): Promise<void> {
    if (this.closed) throw new Error('the file is closed');
    if (this.failure !== undefined) throw new Error('the file is unusable', { cause: this.failure });
    try {
      await this.disk.later(operation, this.name, action);
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }
}

/** What a crash does to one change that was not synced. */
export type Fate = 'kept' | 'lost' | 'torn';

/** Decides about unsynced changes; `torn` writes keep the sectors that `sector` says. */
export interface CrashFates {
  write(): Fate;
  name(): 'kept' | 'lost';
  sector(): boolean;
}

/** Any combination, from a seed. */
export function randomFates(random: Random): CrashFates {
  return {
    write: () => (['kept', 'lost', 'torn'] as const)[Math.floor(random.fraction() * 3)] ?? 'kept',
    name: () => (random.fraction() < 0.5 ? 'kept' : 'lost'),
    sector: () => random.fraction() < 0.5,
  };
}

const SECTOR_BYTES = 512;

interface CrashedInode {
  durable: Buffer;
  pending: (VolumeEvent & { kind: 'append' | 'truncate' })[];
}

/**
 * The volume as a machine finds it that lost power after `events`: what was synced is there, and the fates decide about
 * everything else, each write and each name for itself.
 */
export function volumeAfterCrash(events: readonly VolumeEvent[], fates: CrashFates): MemoryVolume {
  const inodes = new Map<number, CrashedInode>();
  const names = new Map<string, number>();
  let pendingNames: { at: number; event: VolumeEvent }[] = [];
  events.forEach((event, at) => {
    switch (event.kind) {
      case 'create':
        inodes.set(event.inode, { durable: Buffer.alloc(0), pending: [] });
        pendingNames.push({ at, event });
        break;
      case 'rename':
      case 'remove':
        pendingNames.push({ at, event });
        break;
      case 'append':
      case 'truncate':
        inodes.get(event.inode)?.pending.push(event);
        break;
      case 'sync': {
        const inode = inodes.get(event.inode);
        // One call at a time on a file: everything pending was there when the sync began.
        for (const change of inode?.pending.splice(0) ?? []) inode!.durable = changed(inode!.durable, change);
        break;
      }
      case 'mark':
        break;
      case 'syncDir':
        for (const pending of pendingNames.filter((name) => name.at < event.covers))
          rename(names, pending.event);
        pendingNames = pendingNames.filter((name) => name.at >= event.covers);
        break;
    }
  });
  for (const { event } of pendingNames) if (fates.name() === 'kept') rename(names, event);
  const volume = new MemoryVolume();
  for (const [name, number] of names) {
    const inode = inodes.get(number)!;
    for (const change of inode.pending) {
      const fate = fates.write();
      if (fate === 'kept') inode.durable = changed(inode.durable, change);
      if (fate === 'torn' && change.kind === 'append') inode.durable = torn(inode.durable, change, fates);
    }
    const restored = volume.newInode(name, inode.durable);
    volume.events.push(
      { kind: 'create', name, inode: restored.number },
      { kind: 'append', inode: restored.number, offset: 0, bytes: inode.durable },
      { kind: 'sync', inode: restored.number, covers: 0 },
    );
  }
  volume.events.push({ kind: 'syncDir', covers: Number.MAX_SAFE_INTEGER });
  return volume;
}

function rename(names: Map<string, number>, event: VolumeEvent): void {
  if (event.kind === 'create') names.set(event.name, event.inode);
  if (event.kind === 'remove') names.delete(event.name);
  if (event.kind === 'rename') {
    const inode = names.get(event.from);
    if (inode === undefined) return;
    names.delete(event.from);
    names.set(event.to, inode);
  }
}

function changed(content: Buffer, change: VolumeEvent & { kind: 'append' | 'truncate' }): Buffer {
  if (change.kind === 'truncate') return Buffer.from(content.subarray(0, change.size));
  const grown = Buffer.alloc(Math.max(content.length, change.offset + change.bytes.length));
  content.copy(grown);
  change.bytes.copy(grown, change.offset);
  return grown;
}

/** Some sectors of the write are on the disk, the others read as zeros; the end of the file may be short. */
function torn(
  content: Buffer,
  { offset, bytes }: VolumeEvent & { kind: 'append' },
  fates: CrashFates,
): Buffer {
  let result = content;
  for (let at = 0; at < bytes.length;) {
    const length = Math.min(SECTOR_BYTES - ((offset + at) % SECTOR_BYTES), bytes.length - at);
    if (fates.sector()) {
      const piece = {
        kind: 'append',
        inode: 0,
        offset: offset + at,
        bytes: bytes.subarray(at, at + length),
      } as const;
      result = changed(result, piece);
    }
    at += length;
  }
  return result;
}

/** An error as the operating system gives it. */
export function diskError(code: string, name: string): Error {
  return Object.assign(new Error(`${code}: ${name}`), { code });
}
