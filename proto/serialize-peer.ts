/**
 * Frames between peers. Those that carry writes and their acknowledgements are encoded and decoded by hand, as the messages
 * in serialize.ts; all others by the generated code.
 */
import type { RequestId } from './gen/kvstore.ts';
import {
  type Ack,
  type Entries,
  type Entry,
  PeerFrame,
  type PeerHeader,
  type Superseded,
} from './gen/peer.ts';
import {
  decodeRequestId,
  decodeVersion,
  sizeOfBytes,
  sizeOfVersionField,
  tag,
  writeBytes,
  writeVersion,
} from './shared-fields.ts';
import { sizeOfBytesField, sizeOfUintField, WIRE, WireReader, WireWriter } from './wire.ts';

const { varint: VARINT, bytes: BYTES } = WIRE;
const NOTHING: Buffer = Buffer.alloc(0);
const HEADER = 1;
const ENTRIES = 4;
const ACK = 5;

/**
 * Keys and records lie in `bytes`, which must not change afterwards.
 *
 * @throws Error when it is malformed.
 */
export function decodePeerFrame(bytes: Buffer): PeerFrame {
  const reader = new WireReader(bytes);
  let header: PeerHeader | undefined;
  let body: PeerFrame['body'];
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(HEADER, BYTES)) header = decodeHeader(reader.message());
    else if (next === tag(ENTRIES, BYTES))
      body = { $case: 'entries', value: decodeEntries(reader.message()) };
    else if (next === tag(ACK, BYTES)) body = { $case: 'ack', value: decodeAck(reader.message()) };
    else return PeerFrame.decode(bytes);
  }
  return { header, body };
}

function decodeHeader(reader: WireReader): PeerHeader {
  const header = { clusterId: '', epoch: 0, sender: '', senderIncarnation: 0, recipient: '' };
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, BYTES)) header.clusterId = reader.string();
    else if (next === tag(2, VARINT)) header.epoch = reader.uint();
    else if (next === tag(3, BYTES)) header.sender = reader.string();
    else if (next === tag(4, VARINT)) header.senderIncarnation = reader.uint();
    else if (next === tag(5, BYTES)) header.recipient = reader.string();
    else reader.skip(next & 7);
  }
  return header;
}

function decodeEntries(reader: WireReader): Entries {
  const entries: Entry[] = [];
  let after = 0;
  let through = 0;
  let provisional = false;
  let durableHead = 0;
  let client = NOTHING;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) after = reader.uint();
    else if (next === tag(2, VARINT)) through = reader.uint();
    else if (next === tag(3, BYTES)) {
      const entry = decodeEntry(reader.message(), client);
      client = entry.requestId?.clientId ?? client;
      entries.push(entry);
    } else if (next === tag(4, VARINT)) provisional = reader.uint() !== 0;
    else if (next === tag(5, VARINT)) durableHead = reader.uint();
    else reader.skip(next & 7);
  }
  return { after, through, entries, provisional, durableHead };
}

function decodeEntry(reader: WireReader, lastClient: Buffer): Entry {
  let sequence = 0;
  let key = NOTHING;
  let record = NOTHING;
  let requestId: RequestId | undefined;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) sequence = reader.uint();
    else if (next === tag(2, BYTES)) key = reader.bytes();
    else if (next === tag(3, BYTES)) record = reader.bytes();
    else if (next === tag(4, BYTES)) requestId = decodeRequestId(reader.message(), lastClient);
    else reader.skip(next & 7);
  }
  return { sequence, key, record, requestId };
}

function decodeAck(reader: WireReader): Ack {
  const superseded: Superseded[] = [];
  let incarnation = 0;
  let applied = 0;
  let provisional = false;
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) incarnation = reader.uint();
    else if (next === tag(2, VARINT)) applied = reader.uint();
    else if (next === tag(3, BYTES)) superseded.push(decodeSuperseded(reader.message()));
    else if (next === tag(4, VARINT)) provisional = reader.uint() !== 0;
    else reader.skip(next & 7);
  }
  return { incarnation, applied, superseded, provisional };
}

function decodeSuperseded(reader: WireReader): Superseded {
  let sequence = 0;
  let version: Superseded['version'];
  while (!reader.atEnd) {
    const next = reader.uint();
    if (next === tag(1, VARINT)) sequence = reader.uint();
    else if (next === tag(2, BYTES)) version = decodeVersion(reader.message());
    else reader.skip(next & 7);
  }
  return { sequence, version };
}

export function encodePeerFrame(frame: PeerFrame): Buffer {
  const { header, body } = frame;
  if (header === undefined || (body?.$case !== 'entries' && body?.$case !== 'ack')) {
    return Buffer.from(PeerFrame.encode(frame).finish());
  }
  return body.$case === 'entries' ? encodeEntries(header, body.value) : encodeAck(header, body.value);
}

function encodeEntries(header: PeerHeader, body: Entries): Buffer {
  const { after, through, entries, provisional, durableHead } = body;
  const sizes = entries.map(sizeOfEntry);
  let inner =
    sizeOfUintField(after) + sizeOfUintField(through) + (provisional ? 2 : 0) + sizeOfUintField(durableHead);
  for (const size of sizes) inner += sizeOfBytesField(size);
  const writer = begin(header, ENTRIES, inner);
  writer.uintField(1, after);
  writer.uintField(2, through);
  entries.forEach((entry, index) => {
    writer.messageField(3, sizes[index] ?? 0);
    writeEntry(writer, entry);
  });
  if (provisional) writer.uintField(4, 1);
  writer.uintField(5, durableHead);
  return writer.finish();
}

function encodeAck(header: PeerHeader, body: Ack): Buffer {
  const { incarnation, applied, superseded, provisional } = body;
  const sizes = superseded.map(
    ({ sequence, version }) => sizeOfUintField(sequence) + sizeOfVersionField(version),
  );
  let inner = sizeOfUintField(incarnation) + sizeOfUintField(applied) + (provisional ? 2 : 0);
  for (const size of sizes) inner += sizeOfBytesField(size);
  const writer = begin(header, ACK, inner);
  writer.uintField(1, incarnation);
  writer.uintField(2, applied);
  superseded.forEach(({ sequence, version }, index) => {
    writer.messageField(3, sizes[index] ?? 0);
    writer.uintField(1, sequence);
    writeVersion(writer, 2, version);
  });
  if (provisional) writer.uintField(4, 1);
  return writer.finish();
}

/** A frame of that header, begun up to a body of that many bytes. */
function begin(header: PeerHeader, field: number, bodySize: number): WireWriter {
  const { clusterId, epoch, sender, senderIncarnation, recipient } = header;
  const lengths = [clusterId, sender, recipient].map((text) => Buffer.byteLength(text));
  const [clusterLength = 0, senderLength = 0, recipientLength = 0] = lengths;
  const headerSize =
    lengths.reduce((sum, length) => sum + (length === 0 ? 0 : sizeOfBytesField(length)), 0) +
    sizeOfUintField(epoch) +
    sizeOfUintField(senderIncarnation);
  const writer = new WireWriter(sizeOfBytesField(headerSize) + sizeOfBytesField(bodySize));
  writer.messageField(HEADER, headerSize);
  if (clusterLength > 0) writer.stringField(1, clusterId, clusterLength);
  writer.uintField(2, epoch);
  if (senderLength > 0) writer.stringField(3, sender, senderLength);
  writer.uintField(4, senderIncarnation);
  if (recipientLength > 0) writer.stringField(5, recipient, recipientLength);
  writer.messageField(field, bodySize);
  return writer;
}

function sizeOfEntry({ sequence, key, record, requestId }: Entry): number {
  return (
    sizeOfUintField(sequence) +
    sizeOfBytes(key) +
    sizeOfBytes(record) +
    (requestId === undefined ? 0 : sizeOfBytesField(sizeOfRequestId(requestId)))
  );
}

function sizeOfRequestId({ clientId, number, clientStartMs, attempt }: RequestId): number {
  return (
    sizeOfBytes(clientId) +
    sizeOfUintField(number) +
    sizeOfUintField(clientStartMs) +
    sizeOfUintField(attempt)
  );
}

function writeEntry(writer: WireWriter, { sequence, key, record, requestId }: Entry): void {
  writer.uintField(1, sequence);
  writeBytes(writer, 2, key);
  writeBytes(writer, 3, record);
  if (requestId !== undefined) {
    writer.messageField(4, sizeOfRequestId(requestId));
    writeBytes(writer, 1, requestId.clientId);
    writer.uintField(2, requestId.number);
    writer.uintField(3, requestId.clientStartMs);
    writer.uintField(4, requestId.attempt);
  }
}
