import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { KvError, messageOf } from '../../common/errors.ts';
import { type KVCluster, parseKVCluster } from '../../model/kvcluster.ts';

/**
 * Reads a KVCluster manifest, as `kubectl apply` would take it.
 *
 * @param instead of fields of the manifest's `spec`, where they are defined.
 * @throws KvError INVALID_ARGUMENT with every problem.
 */
export async function readManifest(
  path: string,
  instead: { readonly replicas?: number | undefined; readonly workersPerPod?: number | undefined } = {},
): Promise<KVCluster> {
  const object = await readYaml(path);
  const parsed = parseKVCluster(withSpec(object, instead));
  if (parsed.ok) return parsed.cluster;
  throw new KvError('INVALID_ARGUMENT', `${path}: ${parsed.problems.join('; ')}`);
}

async function readYaml(path: string): Promise<unknown> {
  try {
    return parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new KvError('INVALID_ARGUMENT', `cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

function withSpec(object: unknown, instead: Readonly<Record<string, unknown>>): unknown {
  const defined = Object.entries(instead).filter(([, value]) => value !== undefined);
  if (defined.length === 0 || object === null || typeof object !== 'object') return object;
  const spec = 'spec' in object && object.spec !== null && typeof object.spec === 'object' ? object.spec : {};
  return { ...object, spec: { ...spec, ...Object.fromEntries(defined) } };
}
