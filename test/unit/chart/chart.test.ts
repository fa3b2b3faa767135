import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { isMap, isScalar, parse, parseDocument, type YAMLMap } from 'yaml';
import { z } from 'zod';

const root = join(import.meta.dirname, '../../..');
const chart = join(root, 'charts/kvcluster');
const read = (path: string): string => readFileSync(join(chart, path), 'utf8');

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
}

/** Dotted paths of the values that the schema knows, `global` excepted, which parent charts bring. */
function valuesOfSchema(node: SchemaNode, prefix = ''): string[] {
  return Object.entries(node.properties ?? {})
    .filter(([name]) => name !== 'global')
    .flatMap(([name, inner]) =>
      inner.properties === undefined ? [prefix + name] : valuesOfSchema(inner, `${prefix}${name}.`),
    );
}

/** The comment above a value; the first key of a map carries its comment on the map. */
function commentAbove(document: YAMLMap, path: readonly string[]): string | null | undefined {
  const last = path.at(-1);
  const parent = path.length === 1 ? document : document.getIn(path.slice(0, -1), true);
  if (!isMap(parent)) throw new Error(`no group ${path.slice(0, -1).join('.')} in values.yaml`);
  const index = parent.items.findIndex(({ key }) => isScalar(key) && key.value === last);
  const key = parent.items[index]?.key;
  if (!isScalar(key)) throw new Error(`no value ${path.join('.')} in values.yaml`);
  return key.commentBefore ?? (index === 0 ? parent.commentBefore : undefined);
}

describe('the chart', () => {
  const schemaText: unknown = JSON.parse(read('values.schema.json'));
  const schema = z.fromJSONSchema(schemaText as Parameters<typeof z.fromJSONSchema>[0]);
  const schemaValues = valuesOfSchema(schemaText as SchemaNode);
  const values = parse(read('values.yaml')) as Record<string, unknown>;

  it('has defaults that its schema accepts', () => {
    expect(schema.safeParse(values).error?.issues).to.equal(undefined);
  });

  for (const [what, refused] of [
    ['an unknown value', { replica: 2 }],
    ['an unknown value in a group', { image: { name: 'x' } }],
    ['a number in place of a truth value', { crds: { create: 1 } }],
    ['a namespace in place of a list', { watchNamespaces: 'team-a' }],
    ['a namespace that cannot exist', { watchNamespaces: ['Team A'] }],
    ['an unknown pull policy', { image: { pullPolicy: 'Sometimes' } }],
    ['an image with a space', { nodeImage: 'a b' }],
    ['fewer than no replicas', { replicas: -1 }],
    ['more at a time than the operator takes', { concurrency: 1000 }],
    ['an unknown log level', { logLevel: 'loud' }],
    ['a label that is no string', { podLabels: { a: 1 } }],
    ['something other than requests and limits', { resources: { cpu: 1 } }],
  ] as const) {
    it(`refuses ${what}`, () => {
      expect(schema.safeParse(refused).success).to.equal(false);
    });
  }

  it('accepts what a parent chart shares', () => {
    expect(schema.safeParse({ ...values, global: { anything: 1 } }).success).to.equal(true);
  });

  it('has a default and a comment for every value of the schema', () => {
    const { contents } = parseDocument(read('values.yaml'));
    if (!isMap(contents)) throw new Error('values.yaml is no map');
    for (const path of schemaValues) {
      expect(contents.hasIn(path.split('.')), path).to.equal(true);
      expect(commentAbove(contents, path.split('.')), path).to.be.a('string');
    }
  });

  it('uses every value in a template', () => {
    const templates = readdirSync(join(chart, 'templates'), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(yaml|tpl|txt)$/.test(name))
      .map((name) => read(join('templates', name)))
      .join('\n');
    // resources.requests and .limits are passed on together.
    const passedOn = (path: string): string => path.replace(/^resources\..*/, 'resources');
    const unused = schemaValues.filter((path) => !templates.includes(`.Values.${passedOn(path)}`));
    expect(unused).to.deep.equal([]);
  });

  it('carries the CustomResourceDefinition as it is in deploy/crd', () => {
    const name = 'kvclusters.kvcluster.io.yaml';
    expect(read(`files/${name}`), 'run npm run generate').to.equal(
      readFileSync(join(root, 'deploy/crd', name), 'utf8'),
    );
  });

  it('installs the version of this package', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    const { appVersion } = parse(read('Chart.yaml')) as { appVersion: string };
    expect(appVersion).to.equal(version);
  });
});
