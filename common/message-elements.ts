import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

/**
 * Which fields of a message are messages whose own fields count as well, by field number. What is not named (strings,
 * bytes, and messages of bounded content) counts as one.
 */
export type ElementShape = ReadonlyMap<number, ElementShape>;

const LEAF: ElementShape = new Map();

/** A shape with these fields. */
export function shapeOf(fields: Readonly<Record<number, ElementShape>> | readonly number[]): ElementShape {
  return Array.isArray(fields)
    ? new Map(fields.map((field: number) => [field, LEAF]))
    : new Map(Object.entries(fields).map(([field, shape]) => [Number(field), shape as ElementShape]));
}

/**
 * Whether an encoded message has more elements than `most`. An element takes as little as two bytes on the wire and some
 * hundred in memory: a message within the limit of bytes could take gigabytes once it is decoded. Looks without
 * decoding; for what is no message at all the answer is no, and the decoder says why.
 */
export function hasMoreElements(bytes: Uint8Array, shape: ElementShape, most: number): boolean {
  try {
    return count(bytes, shape, most) > most;
  } catch {
    return false;
  }
}

function count(bytes: Uint8Array, shape: ElementShape, most: number): number {
  const reader = new BinaryReader(bytes);
  let elements = 0;
  while (reader.pos < reader.len && elements <= most) {
    const [field, wireType] = reader.tag();
    elements += 1;
    const inner = shape.get(field);
    if (inner === undefined || wireType !== WireType.LengthDelimited) reader.skip(wireType, field);
    else elements += count(reader.bytes(), inner, most - elements);
  }
  return elements;
}
