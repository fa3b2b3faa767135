import { crc32 } from 'node:zlib';

/**
 * The partition of a key: CRC-32 of its bytes, mixed, modulo the number of partitions. Part of the contract with
 * clients that route by key; never changes for a cluster.
 *
 * CRC-32 alone keeps keys that differ in few bits in related partitions; the finalizer of MurmurHash3 (Appleby, public
 * domain) spreads them.
 */
export function partitionOf(key: Uint8Array, partitions: number): number {
  // Everybody on an operation's way asks for the partition of the same key, which nobody writes to meanwhile.
  if (key !== lastKey) {
    lastHash = hashOf(key);
    lastKey = key;
  }
  return lastHash % partitions;
}

let lastKey: Uint8Array | undefined;
let lastHash = 0;

function hashOf(key: Uint8Array): number {
  let hash = crc32(key);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  hash ^= hash >>> 16;
  return hash >>> 0;
}
