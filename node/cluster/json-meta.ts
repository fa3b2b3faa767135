import { KvError, messageOf } from '../../common/errors.ts';
import type { Store } from '../storage/store.ts';

/**
 * Reads a value that `writeJsonMeta` wrote, in the shape it was written; undefined when there is none.
 *
 * @throws KvError DATA_LOSS when it cannot be read, FAILED_PRECONDITION when its format is unknown.
 */
export function readJsonMeta(store: Pick<Store, 'readMeta'>, name: string, format: number): unknown {
  const bytes = store.readMeta(name);
  if (bytes === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new KvError('DATA_LOSS', `the stored ${name} is not readable: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const found = (value as { format?: unknown } | null)?.format;
  if (found !== format) {
    throw new KvError(
      'FAILED_PRECONDITION',
      `the stored ${name} has format ${String(found)}, and this version knows ${format}: use the version that wrote it`,
    );
  }
  return value;
}

/** Writes a small value as JSON with a `format` number; resolves when it is synced. */
export async function writeJsonMeta(
  store: Pick<Store, 'writeMeta'>,
  name: string,
  format: number,
  value: object,
): Promise<void> {
  await store.writeMeta(name, Buffer.from(JSON.stringify({ format, ...value })));
}
