import { BinaryReader } from '@bufbuild/protobuf/wire';

/**
 * Numbers of fields that a request reserves for conditions and the like. A decoder skips fields it does not know, and
 * would execute a conditional write unconditionally; a request that carries one must be refused instead.
 */
export interface ReservedFields {
  readonly from: number;
  readonly to: number;
}

/** The first reserved field of an encoded message, if any. */
export function findReservedField(bytes: Uint8Array, reserved: ReservedFields): number | undefined {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field >= reserved.from && field <= reserved.to) return field;
    reader.skip(wireType, field);
  }
  return undefined;
}
