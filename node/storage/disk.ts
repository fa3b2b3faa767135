/**
 * One directory of files, as the apply log uses it. What was appended may be lost or torn by a crash until `sync` has
 * resolved; names that were made, renamed or removed may be lost until `syncDir` has.
 *
 * Errors are those of the operating system (`code` ENOSPC, EIO, ENOENT and so on).
 */
export interface Disk {
  /** Names of the files, sorted. */
  list(): Promise<readonly string[]>;
  /** Makes an empty file; fails when the name exists. */
  create(name: string): Promise<DiskFile>;
  /** Opens an existing file; appending continues at its end. */
  open(name: string): Promise<DiskFile>;
  /** The bytes of a file, or of `range` of it; fewer when the file ends before. */
  read(name: string, range?: FileRange): Promise<Buffer>;
  /** Size in bytes. */
  size(name: string): Promise<number>;
  rename(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Makes creations, renames and removals durable. */
  syncDir(): Promise<void>;
  /** Room on the volume. */
  space(): Promise<DiskSpace>;
}

export interface FileRange {
  readonly offset: number;
  readonly length: number;
}

export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/**
 * A file open for appending; one call at a time.
 *
 * After an append, truncate or sync failed, what the file holds is unknown, and a later sync could report success for
 * pages the kernel has dropped: every further call but `close` fails. The only way on is to open the store anew.
 */
export interface DiskFile {
  append(buffers: readonly Buffer[]): Promise<void>;
  /** Resolves when everything appended or truncated is on stable storage. */
  sync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  /** Idempotent; does not sync. */
  close(): Promise<void>;
}
