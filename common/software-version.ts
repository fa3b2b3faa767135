import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Version of this software, from its package.json; the same in the source tree and in the compiled one. */
export function readSoftwareVersion(): string {
  for (let directory = import.meta.dirname; ; directory = dirname(directory)) {
    const found = versionIn(join(directory, 'package.json'));
    if (found !== undefined) return found;
    if (directory === dirname(directory)) return 'unknown';
  }
}

function versionIn(file: string): string | undefined {
  try {
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown; version?: unknown };
    return name === 'kvcluster' && typeof version === 'string' ? version : undefined;
  } catch {
    return undefined;
  }
}
