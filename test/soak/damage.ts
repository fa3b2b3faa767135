import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../../common/random.ts';
import { entrySeed, KIND, readFrame } from '../../node/storage/entry.ts';
import {
  decodeSegmentHead,
  SEGMENT_HEAD_BYTES,
  segmentName,
  segmentNumber,
} from '../../node/storage/segment.ts';
import { LOG_DIRECTORY, STATE_DIRECTORY } from '../../node/storage/set-aside.ts';

const STATE_FILE = join(STATE_DIRECTORY, 'data.mdb');
const LONGEST_TAIL_BYTES = 6000;

/** Segments of a store's log, oldest first. */
function segmentsOf(directory: string): readonly number[] {
  return readdirSync(join(directory, LOG_DIRECTORY))
    .flatMap((name) => segmentNumber(name) ?? [])
    .sort((a, b) => a - b);
}

/** Leaves at the end of the log what a write leaves that a crash cut short: bytes that no sync has covered. */
export function tearTail(directory: string, random: Random): boolean {
  const last = segmentsOf(directory).at(-1);
  if (last === undefined) return false;
  const length = 1 + Math.floor(random.fraction() * LONGEST_TAIL_BYTES);
  const bytes = random.fraction() < 0.5 ? random.bytes(length) : Buffer.alloc(length);
  const file = openSync(join(directory, LOG_DIRECTORY, segmentName(last)), 'a');
  writeSync(file, bytes);
  closeSync(file);
  return true;
}

/**
 * Flips a bit of the log, not in its last group: damage there looks like a write that a crash tore, and is cut off as
 * such, whoever was told that it was synced.
 */
export function flipLog(directory: string, random: Random): boolean {
  const segments = segmentsOf(directory);
  const number = segments[Math.floor(random.fraction() * segments.length)];
  if (number === undefined) return false;
  const path = join(directory, LOG_DIRECTORY, segmentName(number));
  const end = number === segments.at(-1) ? lastGroupOf(readFileSync(path), number) : undefined;
  return flip(path, random, end);
}

/** Flips a bit of the indexed state. */
export function flipState(directory: string, random: Random): boolean {
  return flip(join(directory, STATE_FILE), random);
}

/** Where the last group of a segment begins. */
function lastGroupOf(bytes: Buffer, number: number): number {
  const head = decodeSegmentHead(bytes.subarray(0, SEGMENT_HEAD_BYTES), { number });
  if (head === undefined) return 0;
  const seed = entrySeed(head.storeId);
  let last = 0;
  let frame = readFrame(bytes, SEGMENT_HEAD_BYTES, seed);
  for (let at = SEGMENT_HEAD_BYTES; frame !== undefined; frame = readFrame(bytes, at, seed)) {
    if (frame.kind === KIND.group) last = at;
    at = frame.end;
  }
  return last;
}

function flip(path: string, random: Random, end?: number): boolean {
  const file = openSync(path, 'r+');
  try {
    const size = end ?? fstatSync(file).size;
    if (size === 0) return false;
    const at = Math.floor(random.fraction() * size);
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ (1 << Math.floor(random.fraction() * 8));
    writeSync(file, byte, 0, 1, at);
    return true;
  } finally {
    closeSync(file);
  }
}
