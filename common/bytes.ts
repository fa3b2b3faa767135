/** The fewest bytes that sort after everything that begins with `prefix`; undefined when there is no such bound. */
export function prefixEnd(prefix: Uint8Array): Buffer | undefined {
  for (let length = prefix.length; length > 0; length -= 1) {
    const last = prefix[length - 1] ?? 0;
    if (last < 0xff) {
      const end = Buffer.from(prefix.subarray(0, length));
      end[length - 1] = last + 1;
      return end;
    }
  }
  return undefined;
}

/** Bytes as a string that can key a Map: one character per byte, same order. */
export function byteString(bytes: Uint8Array): string {
  return bufferOver(bytes).toString('latin1');
}

/** The same bytes, not copied, as a Buffer; a Buffer is its own, for a new one costs more than it looks. */
export function bufferOver(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
