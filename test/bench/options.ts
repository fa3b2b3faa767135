import { join } from 'node:path';
import { parseArgs } from 'node:util';

/** What `npm run bench -- ...` was told. */
export interface Options {
  readonly quick: boolean;
  /** Where results and plots are written. */
  readonly out: string;
  /** Parts to run; empty: all. */
  readonly only: readonly string[];
  /** Other than the usual number of rounds, and length of each. */
  readonly rounds: number | undefined;
  readonly durationMs: number | undefined;
}

export const PARTS = ['one-node', 'three-nodes', 'growth', 'operator'] as const;

export const USAGE = `usage: npm run bench -- [--quick] [--only PART,...] [--out DIRECTORY]
  --quick          the cells of the goals only, in less than five minutes
  --only PART,...  of ${PARTS.join(', ')}
  --rounds N       how often each cell is measured (default: 5, quick 3)
  --seconds S      for how long each time (default: 2, quick 0.7)
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
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const only = values.only.split(',').filter((part) => part !== '');
  const unknown = only.filter((part) => !(PARTS as readonly string[]).includes(part));
  if (unknown.length > 0)
    throw new Error(`unknown part ${unknown.join(', ')}: choose from ${PARTS.join(', ')}`);
  const rounds = positive('--rounds', values.rounds);
  const seconds = positive('--seconds', values.seconds);
  // Only a run as it should be replaces what the repository shows.
  const isWhole = !values.quick && only.length === 0 && rounds === undefined && seconds === undefined;
  const out = values.out ?? join(root, isWhole ? 'docs/bench' : 'build/bench-results');
  const durationMs = seconds === undefined ? undefined : seconds * 1000;
  return { quick: values.quick, out, only, rounds, durationMs };
}

function positive(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0)) throw new Error(`${flag} must be a number above 0`);
  return value;
}
