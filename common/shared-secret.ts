import { readFile } from 'node:fs/promises';
import { KvError, messageOf } from './errors.ts';

/** Bytes of a new cluster's secret. */
export const SECRET_BYTES = 32;
const MIN_SECRET_BYTES = 16;

/**
 * Reads the cluster's shared secret: the file's bytes as they are.
 *
 * @throws KvError FAILED_PRECONDITION when the file cannot be read or is too short to be a secret.
 */
export async function readSharedSecret(path: string): Promise<Buffer> {
  let secret: Buffer;
  try {
    secret = await readFile(path);
  } catch (error) {
    throw new KvError('FAILED_PRECONDITION', `cannot read the cluster's secret: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (secret.length < MIN_SECRET_BYTES) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `the cluster's secret in ${path} has ${secret.length} bytes; at least ${MIN_SECRET_BYTES} are needed`,
    );
  }
  return secret;
}
