/**
 * A point in the total order of writes: hybrid logical clock, then the incarnation that wrote.
 * Hybrid logical clocks: Kulkarni et al., "Logical Physical Clocks" (2014).
 */
export interface Version {
  /** Milliseconds since 1970, 48 bits. */
  readonly wallMs: number;
  /** Writes within the same millisecond, 16 bits. */
  readonly counter: number;
  /** Incarnation that minted the version, 48 bits, never 0 in a stored record. */
  readonly writer: number;
}

export const VERSION_BYTES = 14;
export const MAX_WALL_MS = 2 ** 48 - 1;
export const MAX_COUNTER = 2 ** 16 - 1;

/** Below every version of a record. */
export const NO_VERSION: Version = { wallMs: 0, counter: 0, writer: 0 };

/** Negative when `a` is older than `b`, 0 when they are the same write, positive when `a` is newer. */
export function compareVersions(a: Version, b: Version): number {
  return a.wallMs - b.wallMs || a.counter - b.counter || a.writer - b.writer;
}

/** The newer of two versions. */
export function newestVersion(a: Version, b: Version): Version {
  return compareVersions(a, b) >= 0 ? a : b;
}

/** Writes 14 big-endian bytes whose byte order is the order of versions. */
export function writeVersion(version: Version, target: Buffer, offset: number): void {
  target.writeUIntBE(version.wallMs, offset, 6);
  target.writeUInt16BE(version.counter, offset + 6);
  target.writeUIntBE(version.writer, offset + 8, 6);
}

/** Reads what `writeVersion` wrote. */
export function readVersion(source: Buffer, offset: number): Version {
  return {
    wallMs: source.readUIntBE(offset, 6),
    counter: source.readUInt16BE(offset + 6),
    writer: source.readUIntBE(offset + 8, 6),
  };
}

/** For messages and logs: `wallMs.counter@writer`, the writer in hex. */
export function formatVersion(version: Version): string {
  return `${version.wallMs}.${version.counter}@${version.writer.toString(16).padStart(12, '0')}`;
}
