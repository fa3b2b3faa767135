import { crc32 } from 'node:zlib';
import { KvError } from '../../../common/errors.ts';
import { hasMoreElements, shapeOf } from '../../../common/message-elements.ts';
import { WatchTokenBody } from '../../../proto/gen/peer.ts';
import { MAX_UINT48 } from '../field-bounds.ts';
import { decodeMarks, encodeMarks, type Marks } from './marks.ts';

/** A place in the log of one incarnation of a node. */
export interface LogPlace {
  readonly nodeId: string;
  readonly incarnation: number;
  readonly sequence: number;
}

/** How far some partitions have been told: a log through a place, and whoever else takes over, from the marks on. */
export interface ToldThrough {
  readonly place: LogPlace | undefined;
  readonly marks: Marks;
}

export interface WatchToken {
  readonly clusterId: string;
  /** Every partition is in one of them. */
  readonly told: readonly ToldThrough[];
}

/** Format u8, CRC-32 over prefix, 0 and body, then the body as a protobuf message. */
const FORMAT = 1;
const HEAD_BYTES = 5;
const SEPARATOR = Buffer.from([0]);
/** Places (2) and their marks (4). */
const BODY_SHAPE = shapeOf({ 2: shapeOf([4]) });

/** An opaque token that resumes a watch of `prefix`. */
export function encodeWatchToken(prefix: Buffer, token: WatchToken, partitions: number): Buffer {
  const body = Buffer.from(
    WatchTokenBody.encode({
      clusterId: token.clusterId,
      places: token.told.map(({ place, marks }) => ({
        nodeId: place?.nodeId ?? '',
        incarnation: place?.incarnation ?? 0,
        sequence: place?.sequence ?? 0,
        marks: encodeMarks(marks, partitions),
      })),
    }).finish(),
  );
  const head = Buffer.alloc(HEAD_BYTES);
  head[0] = FORMAT;
  head.writeUInt32BE(checksum(prefix, body), 1);
  return Buffer.concat([head, body]);
}

/** @throws KvError INVALID_ARGUMENT for a token that is damaged, of another prefix, or of another version. */
export function decodeWatchToken(prefix: Buffer, token: Buffer, partitions: number): WatchToken {
  const body = token.subarray(HEAD_BYTES);
  if (token[0] !== FORMAT || token.length < HEAD_BYTES || token.readUInt32BE(1) !== checksum(prefix, body)) {
    throw invalid();
  }
  // Anybody can make a token whose checksum fits. In a sound one each place and each mark names a partition.
  if (hasMoreElements(body, BODY_SHAPE, 8 * partitions + 16)) throw invalid();
  const { clusterId, places } = decodeBody(body);
  const told = places.map(({ nodeId, incarnation, sequence, marks }): ToldThrough => {
    if (incarnation > MAX_UINT48 || sequence > MAX_UINT48) throw invalid();
    const place = nodeId === '' ? undefined : { nodeId, incarnation, sequence };
    return { place, marks: decodeMarks(marks, partitions) };
  });
  const named = told.flatMap(({ marks }) => [...marks.keys()]);
  if (named.length !== partitions || new Set(named).size !== partitions) throw invalid();
  return { clusterId, told };
}

function decodeBody(body: Buffer): WatchTokenBody {
  try {
    return WatchTokenBody.decode(body);
  } catch {
    throw invalid();
  }
}

function checksum(prefix: Buffer, body: Buffer): number {
  return crc32(body, crc32(SEPARATOR, crc32(prefix)));
}

function invalid(): KvError {
  return new KvError(
    'INVALID_ARGUMENT',
    'token is not one that a watch of this prefix gave: pass it unchanged, or watch without one and scan',
  );
}
