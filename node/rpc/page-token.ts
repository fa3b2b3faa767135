import { crc32 } from 'node:zlib';
import { KvError } from '../../common/errors.ts';
import { MAX_KEY_BYTES } from './kv-requests.ts';

/** Format byte of a token: format, CRC-32 over prefix, 0 and last key, last key. */
const FORMAT = 1;
const HEAD_BYTES = 5;
const SEPARATOR = Buffer.from([0]);

/** An opaque token that continues a listing of `prefix` after `lastKey`. */
export function encodePageToken(prefix: Buffer, lastKey: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head[0] = FORMAT;
  head.writeUInt32BE(checksum(prefix, lastKey), 1);
  return Buffer.concat([head, lastKey]);
}

/**
 * The key after which a listing of `prefix` continues.
 *
 * @throws KvError INVALID_ARGUMENT for a token that is damaged, of another listing, or of another version.
 */
export function decodePageToken(prefix: Buffer, token: Buffer): Buffer {
  const lastKey = token.subarray(HEAD_BYTES);
  // Anybody can make a token whose checksum fits; no store takes a longer key, not even to look for it.
  const possible = token[0] === FORMAT && lastKey.length > 0 && lastKey.length <= MAX_KEY_BYTES;
  if (!possible || token.readUInt32BE(1) !== checksum(prefix, lastKey)) {
    throw new KvError(
      'INVALID_ARGUMENT',
      'page_token is not one that a listing of this prefix answered: pass next_page_token unchanged, or start again without a token',
    );
  }
  return lastKey;
}

function checksum(prefix: Buffer, lastKey: Buffer): number {
  return crc32(lastKey, crc32(SEPARATOR, crc32(prefix)));
}
