/** A value says which operation wrote it, and to which key: an answer to somebody else's request would be noticed. */
export function valueOf(operationId: number, key: string, sizeBytes: number): Buffer {
  const head = Buffer.allocUnsafe(4 + key.length);
  head.writeUInt32BE(operationId, 0);
  head.write(key, 4, 'latin1');
  if (sizeBytes <= head.length) return head;
  const value = Buffer.alloc(sizeBytes, operationId & 0xff);
  head.copy(value);
  return value;
}

export function operationIdOf(value: Buffer): number {
  return value.length < 4 ? 0 : value.readUInt32BE(0);
}

/** Whether the value is one that was written to that key. */
export function belongsTo(value: Buffer, key: string): boolean {
  return value.length >= 4 + key.length && value.toString('latin1', 4, 4 + key.length) === key;
}
