import { join } from 'node:path';
import { parseArgs } from 'node:util';

/** What `npm run bench -- ...` was told. */
export interface Options {
  readonly quick: boolean;
  /** Where results and plots are written. */
  readonly out: string;
  /** Parts to run; empty: all. */
  readonly only: readonly string[];
}

export const PARTS = ['one-node', 'three-nodes', 'growth', 'operator'] as const;

export const USAGE = `usage: npm run bench -- [--quick] [--only PART,...] [--out DIRECTORY]
  --quick          the cells of the goals only, in less than five minutes
  --only PART,...  of ${PARTS.join(', ')}
  --out DIRECTORY  where to write results.json, results.md and the plots
                   (default: docs/bench for a full run of all parts, otherwise build/bench-results)`;

const root = join(import.meta.dirname, '../..');

/** @throws Error of one line for what is not understood. */
export function parseOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const only = values.only.split(',').filter((part) => part !== '');
  const unknown = only.filter((part) => !(PARTS as readonly string[]).includes(part));
  if (unknown.length > 0)
    throw new Error(`unknown part ${unknown.join(', ')}: choose from ${PARTS.join(', ')}`);
  const isWhole = !values.quick && only.length === 0;
  const out = values.out ?? join(root, isWhole ? 'docs/bench' : 'build/bench-results');
  return { quick: values.quick, out, only };
}
