import { expect } from 'chai';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../..');
const RULES = { P: 36, O: 28 };

/** Rows of the table in docs/design_decisions.md by rule, for example "P 12". */
function rowsOfTable(): Map<string, string> {
  const text = readFileSync(join(root, 'docs/design_decisions.md'), 'utf8');
  const rows = [...text.matchAll(/^\| ([PO] \d+) +\|[^|]*\|(.*)\|$/gm)];
  return new Map(rows.map(([, rule, held]) => [rule!, held!]));
}

function sourceOfTests(): string {
  return globSync('test/**/*.ts', { cwd: root })
    .map((name) => readFileSync(join(root, name), 'utf8'))
    .join('\n')
    .replaceAll("\\'", "'");
}

describe('the table of rules', () => {
  it('has every rule, with a test or the words "not yet"', () => {
    const rows = rowsOfTable();
    const missing = Object.entries(RULES).flatMap(([letter, count]) =>
      Array.from({ length: count }, (_, index) => `${letter} ${index + 1}`).filter((rule) => {
        const held = rows.get(rule) ?? '';
        return !held.includes('“') && !held.includes('not yet');
      }),
    );
    expect(missing).to.deep.equal([]);
  });

  it('names tests that exist', () => {
    const tests = sourceOfTests();
    const unknown = [...rowsOfTable()].flatMap(([rule, held]) =>
      [...held.matchAll(/“([^”]*)”/g)]
        .map(([, title]) => title!)
        .filter((title) => !tests.includes(title))
        .map((title) => `${rule}: ${title}`),
    );
    expect(unknown).to.deep.equal([]);
  });
});
