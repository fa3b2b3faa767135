/**
 * The protobuf wire format, as far as the messages of the hot paths need it (serialize.ts). Numbers are unsigned and below
 * 2^53, the bound of all numbers of this project.
 */

/** Wire types. */
export const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

const MOST_VARINT_BYTES = 10;
const TWO_TO_28 = 2 ** 28;

/** Reads fields one after the other. What it gives as bytes lies in the buffer that was given: nothing is copied. */
export class WireReader {
  position: number;
  private readonly buffer: Buffer;
  private readonly end: number;

  constructor(buffer: Buffer, position = 0, end = buffer.length) {
    this.buffer = buffer;
    this.position = position;
    this.end = end;
  }

  get atEnd(): boolean {
    return this.position >= this.end;
  }

  /** @throws RangeError when the buffer ends within it, or it is no number below 2^53. */
  uint(): number {
    const { buffer, end } = this;
    let { position } = this;
    let value = 0;
    let shift = 0;
    // Up to 28 bits are whole within 32-bit arithmetic; most numbers are.
    for (; shift < 28; shift += 7) {
      if (position >= end) throw truncated();
      const byte = buffer[position] ?? 0;
      position += 1;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.position = position;
        return value;
      }
    }
    let scale = TWO_TO_28;
    for (let count = 4; count < MOST_VARINT_BYTES; count += 1) {
      if (position >= end) throw truncated();
      const byte = buffer[position] ?? 0;
      position += 1;
      value += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw new RangeError('a number is above 2^53 - 1');
        this.position = position;
        return value;
      }
    }
    throw new RangeError('a number has more than 10 bytes');
  }

  /** A number that may be negative. @throws RangeError as `uint` */
  int(): number {
    const { position } = this;
    this.skipVarint();
    // All negative ones take ten bytes.
    if (this.position - position < MOST_VARINT_BYTES) {
      this.position = position;
      return this.uint();
    }
    let bits = 0n;
    for (let at = position; at < this.position; at += 1)
      bits |= BigInt((this.buffer[at] ?? 0) & 0x7f) << BigInt(7 * (at - position));
    const value = Number(BigInt.asIntN(64, bits));
    if (!Number.isSafeInteger(value)) throw new RangeError('a number is below -2^53 + 1');
    return value;
  }

  bytes(): Buffer {
    const start = this.lengthDelimited();
    return this.buffer.subarray(start, this.position);
  }

  /** As `bytes`; the buffer that came last, when it has the same content: most of a batch is of one client. */
  bytesLike(last: Buffer): Buffer {
    const start = this.lengthDelimited();
    const { buffer, position } = this;
    let same = position - start === last.length;
    for (let at = 0; same && at < last.length; at += 1) same = buffer[start + at] === last[at];
    return same ? last : buffer.subarray(start, position);
  }

  string(): string {
    const start = this.lengthDelimited();
    return this.buffer.toString('utf8', start, this.position);
  }

  /** A reader of the message that comes next. */
  message(): WireReader {
    const start = this.lengthDelimited();
    return new WireReader(this.buffer, start, this.position);
  }

  skip(wireType: number): void {
    if (wireType === WIRE.varint) this.skipVarint();
    else if (wireType === WIRE.fixed64) this.advance(8);
    else if (wireType === WIRE.bytes) this.lengthDelimited();
    else if (wireType === WIRE.fixed32) this.advance(4);
    else throw new RangeError(`wire type ${wireType} is not supported`);
  }

  /** Steps over length and content; gives where the content starts. */
  private lengthDelimited(): number {
    const length = this.uint();
    const start = this.position;
    this.advance(length);
    return start;
  }

  private skipVarint(): void {
    for (let count = 0; count < MOST_VARINT_BYTES; count += 1) {
      this.advance(1);
      if ((this.buffer[this.position - 1] ?? 0) < 0x80) return;
    }
    throw new RangeError('a number has more than 10 bytes');
  }

  private advance(bytes: number): void {
    if (this.position + bytes > this.end) throw truncated();
    this.position += bytes;
  }
}

function truncated(): RangeError {
  return new RangeError('the message is truncated');
}

/** Bytes that a number takes. */
function sizeOfUint(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x20_0000) return 3;
  if (value < TWO_TO_28) return 4;
  let size = 4;
  for (let rest = Math.floor(value / TWO_TO_28); rest > 0; rest = Math.floor(rest / 128)) size += 1;
  return size;
}

/** As `sizeOfUint`, for a number that may be negative. */
export function sizeOfInt(value: number): number {
  return value < 0 ? MOST_VARINT_BYTES : sizeOfUint(value);
}

/** Bytes that a field with a number below 16 takes, without its value when that is 0: as proto3 leaves it out. */
export function sizeOfUintField(value: number): number {
  return value === 0 ? 0 : 1 + sizeOfUint(value);
}

/** Bytes that a field with a number below 16 and this many bytes takes. */
export function sizeOfBytesField(length: number): number {
  return 1 + sizeOfUint(length) + length;
}

/** Writes fields into a buffer of the size that was computed before. Field numbers are below 16. */
export class WireWriter {
  readonly buffer: Buffer;
  private position = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  uint(value: number): void {
    const { buffer } = this;
    let { position } = this;
    let rest = value;
    while (rest >= TWO_TO_28) {
      buffer[position] = (rest % 128) | 0x80;
      position += 1;
      rest = Math.floor(rest / 128);
    }
    while (rest >= 0x80) {
      buffer[position] = (rest & 0x7f) | 0x80;
      position += 1;
      rest >>>= 7;
    }
    buffer[position] = rest;
    this.position = position + 1;
  }

  /** Leaves out 0. */
  uintField(field: number, value: number): void {
    if (value === 0) return;
    this.tag(field, WIRE.varint);
    this.uint(value);
  }

  /** Of a number that may be negative; writes 0 as well: for fields that may be absent. */
  presentIntField(field: number, value: number): void {
    this.tag(field, WIRE.varint);
    if (value >= 0) {
      this.uint(value);
      return;
    }
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest >= 0x80n; rest >>= 7n) {
      this.buffer[this.position] = Number(rest & 0x7fn) | 0x80;
      this.position += 1;
    }
    this.buffer[this.position] = Number(rest);
    this.position += 1;
  }

  bytesField(field: number, bytes: Uint8Array): void {
    this.messageField(field, bytes.length);
    this.buffer.set(bytes, this.position);
    this.position += bytes.length;
  }

  stringField(field: number, value: string, length: number): void {
    this.messageField(field, length);
    this.position += this.buffer.write(value, this.position, length, 'utf8');
  }

  /** Begins a message of that many bytes, whose fields follow. */
  messageField(field: number, length: number): void {
    this.tag(field, WIRE.bytes);
    this.uint(length);
  }

  /** @throws Error when what was written is not of the size that was computed. */
  finish(): Buffer {
    if (this.position !== this.buffer.length) {
      throw new Error(`${this.position} bytes were written, ${this.buffer.length} were computed`);
    }
    return this.buffer;
  }

  private tag(field: number, wireType: number): void {
    this.buffer[this.position] = (field << 3) | wireType;
    this.position += 1;
  }
}
