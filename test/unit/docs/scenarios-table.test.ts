import { expect } from 'chai';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../..');
const SCENARIOS = Array.from({ length: 20 }, (_, index) => index + 1);
/** Those that a person can see on processes without days, clusters or clocks of their own. */
const ON_PROCESSES = [1, 2, 5, 7, 11, 12, 13, 14, 15, 16, 18, 19, 20];

interface Row {
  readonly simulation: readonly string[];
  readonly processes: readonly string[];
}

function titlesIn(cell: string): readonly string[] {
  return [...cell.matchAll(/“([^”]*)”/g)].map(([, title]) => title!);
}

/** Rows of the table of failure scenarios in docs/design_decisions.md, by number. */
function rowsOfTable(): Map<number, Row> {
  const text = readFileSync(join(root, 'docs/design_decisions.md'), 'utf8');
  const rows = [...text.matchAll(/^\| (\d+) +\|[^|]*\|([^|]*)\|([^|]*)\|$/gm)];
  return new Map(
    rows.map(([, number, simulation, processes]) => [
      Number(number),
      { simulation: titlesIn(simulation!), processes: titlesIn(processes!) },
    ]),
  );
}

function sourceOf(pattern: string): string {
  return globSync(pattern, { cwd: root })
    .map((name) => readFileSync(join(root, name), 'utf8'))
    .join('\n')
    .replaceAll("\\'", "'");
}

describe('the table of failure scenarios', () => {
  it('has a test in the simulation for each, whose title begins with its number', () => {
    const tests = sourceOf('test/unit/replication/scenarios*.test.ts');
    const wrong = SCENARIOS.filter((number) => {
      const titles = rowsOfTable().get(number)?.simulation ?? [];
      return (
        titles.length === 0 ||
        titles.some((title) => !title.startsWith(`${number}: `) || !tests.includes(title))
      );
    });
    expect(wrong).to.deep.equal([]);
  });

  it('names every such test', () => {
    const named = [...rowsOfTable().values()].flatMap(({ simulation }) => simulation);
    const tests = [
      ...sourceOf('test/unit/replication/scenarios*.test.ts').matchAll(/(['`])(\d+: .*)\1, async/g),
    ];
    expect(tests.length).to.be.at.least(SCENARIOS.length);
    expect(tests.map(([, , title]) => title).filter((title) => !named.includes(title!))).to.deep.equal([]);
  });

  it('has a test on real processes where there must be one, and names tests that exist', () => {
    const rows = rowsOfTable();
    expect(ON_PROCESSES.filter((number) => rows.get(number)?.processes.length === 0)).to.deep.equal([]);
    const tests = sourceOf('test/{integration,chaos,soak,kubernetes}/**/*.ts');
    const unknown = [...rows].flatMap(([number, { processes }]) =>
      processes.filter((title) => !tests.includes(title)).map((title) => `${number}: ${title}`),
    );
    expect(unknown).to.deep.equal([]);
  });
});
