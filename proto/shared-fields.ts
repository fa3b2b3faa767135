import type { RequestId, Version } from './gen/kvstore.ts';
import { sizeOfBytesField, sizeOfUintField, WIRE, type WireReader, type WireWriter } from './wire.ts';

const NOTHING: Buffer = Buffer.alloc(0);

/** What stands before a field: its number and wire type. */
export const tag = (field: number, wireType: number): number => field * 8 + wireType;

/** Bytes of a field with a number below 16; none when it is empty. */
export function sizeOfBytes(bytes: Uint8Array): number {
  return bytes.length === 0 ? 0 : sizeOfBytesField(bytes.length);
}

export function writeBytes(writer: WireWriter, field: number, bytes: Uint8Array): void {
  if (bytes.length > 0) writer.bytesField(field, bytes);
}

/** Bytes of the message without its field. */
function sizeOfVersion({ wallMs, counter, writer }: Version): number {
  return sizeOfUintField(wallMs) + sizeOfUintField(counter) + sizeOfUintField(writer);
}

export function sizeOfVersionField(version: Version | undefined): number {
  return version === undefined ? 0 : sizeOfBytesField(sizeOfVersion(version));
}

export function writeVersion(writer: WireWriter, field: number, version: Version | undefined): void {
  if (version === undefined) return;
  writer.messageField(field, sizeOfVersion(version));
  writer.uintField(1, version.wallMs);
  writer.uintField(2, version.counter);
  writer.uintField(3, version.writer);
}

export function decodeVersion(reader: WireReader): Version {
  let wallMs = 0;
  let counter = 0;
  let writer = 0;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, WIRE.varint)) wallMs = reader.uint();
    else if (next === tag(2, WIRE.varint)) counter = reader.uint();
    else if (next === tag(3, WIRE.varint)) writer = reader.uint();
    else reader.skip(next & 7);
  }
  return { wallMs, counter, writer };
}

/** `lastClient`: of the id before, whose buffer serves again when it is the same client. */
export function decodeRequestId(reader: WireReader, lastClient: Buffer): RequestId {
  let clientId: Buffer = NOTHING;
  let number = 0;
  let clientStartMs = 0;
  let attempt = 0;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, WIRE.bytes)) clientId = reader.bytesLike(lastClient);
    else if (next === tag(2, WIRE.varint)) number = reader.uint();
    else if (next === tag(3, WIRE.varint)) clientStartMs = reader.uint();
    else if (next === tag(4, WIRE.varint)) attempt = reader.uint();
    else reader.skip(next & 7);
  }
  return { clientId, number, clientStartMs, attempt };
}
