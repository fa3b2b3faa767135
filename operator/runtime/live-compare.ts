import { parseQuantity } from '../../model/quantity.ts';

/** Fields whose values are quantities: `1000m` and `1` are the same there. */
const quantityMaps = new Set(['requests', 'limits', 'capacity']);

/** Lists whose items are told apart by a field, whatever their order; other programs may add items of their own. */
const listKeys: Readonly<Record<string, readonly string[]>> = {
  containers: ['name'],
  initContainers: ['name'],
  env: ['name'],
  volumes: ['name'],
  volumeMounts: ['mountPath'],
  volumeClaimTemplates: ['metadata.name'],
  ownerReferences: ['uid'],
  ports: ['containerPort', 'port'],
  topologySpreadConstraints: ['topologyKey'],
  conditions: ['type'],
};

/**
 * The first leaf of `rendered` that `live` lacks or has otherwise, as a path; undefined when everything rendered is
 * there. What the live object has beyond that (defaults, other writers' fields) is not looked at.
 */
export function firstDifference(rendered: unknown, live: unknown): string | undefined {
  return compare(rendered, live, [], false);
}

function compare(
  rendered: unknown,
  live: unknown,
  path: readonly string[],
  quantities: boolean,
): string | undefined {
  if (rendered === undefined) return undefined;
  if (Array.isArray(rendered)) return compareLists(rendered, live, path);
  if (rendered !== null && typeof rendered === 'object') {
    const liveObject = isObject(live) ? live : {};
    const inQuantities = quantityMaps.has(path.at(-1) ?? '');
    for (const [key, value] of Object.entries(rendered)) {
      const difference = compare(value, liveObject[key], [...path, key], inQuantities);
      if (difference !== undefined) return difference;
    }
    return undefined;
  }
  if (rendered === live || (quantities && sameAmount(rendered, live))) return undefined;
  return path.join('.');
}

function compareLists(
  rendered: readonly unknown[],
  live: unknown,
  path: readonly string[],
): string | undefined {
  const items = Array.isArray(live) ? (live as unknown[]) : [];
  const keys = listKeys[path.at(-1) ?? ''] ?? [];
  const key = keys.find((candidate) => rendered.every((item) => fieldOf(item, candidate) !== undefined));
  if (key === undefined && rendered.length !== items.length) return path.join('.');
  for (const [index, item] of rendered.entries()) {
    const id = key === undefined ? undefined : fieldOf(item, key);
    const counterpart =
      key === undefined ? items[index] : items.find((candidate) => fieldOf(candidate, key) === id);
    const difference = compare(item, counterpart, [...path, String(id ?? index)], false);
    if (difference !== undefined) return difference;
  }
  return undefined;
}

function fieldOf(item: unknown, path: string): string | number | undefined {
  let value = item;
  for (const step of path.split('.')) value = isObject(value) ? value[step] : undefined;
  return typeof value === 'string' || typeof value === 'number' ? value : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function sameAmount(a: unknown, b: unknown): boolean {
  const left = amountOf(a);
  return left !== undefined && left === amountOf(b);
}

function amountOf(value: unknown): bigint | undefined {
  return typeof value === 'string' || typeof value === 'number' ? parseQuantity(String(value)) : undefined;
}
