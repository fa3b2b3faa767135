import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { z } from 'zod';
import { refuseSchedule } from '../../../model/cron-schedule.ts';
import { kvClusterSpecSchema, parseKVCluster } from '../../../model/kvcluster.ts';

const crdPath = join(import.meta.dirname, '../../../deploy/crd/kvclusters.kvcluster.io.yaml');

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  items?: Schema;
  anyOf?: Schema[];
  [keyword: string]: unknown;
}

interface Crd {
  spec: { versions: { schema: { openAPIV3Schema: { properties: { spec: Schema } } } }[] };
}

const manifest = (spec: unknown, name = 'demo'): unknown => ({
  apiVersion: 'kvcluster.io/v1alpha1',
  kind: 'KVCluster',
  metadata: { name },
  spec,
});

function problemsOf(spec: unknown, name?: string): readonly string[] {
  const parsed = parseKVCluster(manifest(spec, name));
  return parsed.ok ? [] : parsed.problems;
}

describe('parseKVCluster', () => {
  it('fills in every default', () => {
    const parsed = parseKVCluster(manifest({ backup: { schedule: '@daily' } }));
    expect(parsed).to.deep.equal({
      ok: true,
      cluster: {
        name: 'demo',
        namespace: 'default',
        spec: {
          replicas: 3,
          replicationFactor: 3,
          partitions: 256,
          workersPerPod: 1,
          storage: { size: '1Gi' },
          resources: { requests: { cpu: '100m', memory: '256Mi' } },
          backup: { schedule: '@daily', suspend: false, storage: { size: '1Gi' } },
          paused: false,
        },
      },
    });
  });

  it('takes a null for nothing, as the API server does', () => {
    expect(parseKVCluster(manifest({ replicas: null, backup: null }))).to.deep.equal(
      parseKVCluster(manifest({})),
    );
    expect(parseKVCluster(manifest(null))).to.deep.equal(parseKVCluster(manifest({})));
  });

  it('reports all problems together, each with its place', () => {
    const problems = problemsOf(
      { replicas: 5, storage: { size: 'big' }, backup: { schedule: '0 30 * * *' }, colour: 'red' },
      'Demo',
    );
    expect(problems).to.have.length(4);
    expect(problems.join('\n')).to.match(/metadata\.name: must be at most 40 characters/);
    expect(problems.join('\n')).to.match(/spec\.storage\.size: must be a quantity such as 10Gi, not "big"/);
    expect(problems.join('\n')).to.match(/spec\.backup\.schedule: hour takes/);
    expect(problems.join('\n')).to.match(/spec: unknown field "colour"/);
  });

  it('drops unknown fields when told to, and still reports the rest', () => {
    const lenient = parseKVCluster(manifest({ colour: 'red', storage: { speed: 9 } }), 'drop');
    expect(lenient).to.deep.equal(parseKVCluster(manifest({})));
    const wrong = parseKVCluster(manifest({ colour: 'red', replicas: 0 }), 'drop');
    expect(wrong.ok ? [] : wrong.problems).to.have.length(1);
  });

  for (const [what, object] of [
    ['another kind', { ...(manifest({}) as object), kind: 'Deployment' }],
    ['another version', { ...(manifest({}) as object), apiVersion: 'kvcluster.io/v9' }],
    ['no object', 'text'],
    ['no name', { ...(manifest({}) as object), metadata: {} }],
    ['a name that begins with a digit', manifest({}, '1demo')],
    ['a name of 41 characters', manifest({}, 'a'.repeat(41))],
  ] as const) {
    it(`refuses ${what}`, () => {
      expect(parseKVCluster(object).ok).to.equal(false);
    });
  }

  it('takes a name of 40 characters', () => {
    expect(problemsOf({}, 'a'.repeat(40))).to.deep.equal([]);
  });

  for (const size of ['0', '-1Gi', '', 'Gi']) {
    it(`refuses a volume of "${size}"`, () => {
      expect(problemsOf({ storage: { size } })).to.not.deep.equal([]);
    });
  }
});

describe('refuseSchedule', () => {
  for (const schedule of [
    '@daily',
    '0 3 * * *',
    '*/5 0-6,22-23 1,15 JAN-Mar mon-FRI',
    '59 23 31 12 6',
    '  0  3 * * ?  ',
    '0-59/2 * * * *',
  ]) {
    it(`takes "${schedule}"`, () => {
      expect(refuseSchedule(schedule)).to.equal(undefined);
    });
  }

  for (const [schedule, why] of [
    ['TZ=UTC 0 3 * * *', /timeZone/],
    ['CRON_TZ=UTC 0 3 * * *', /timeZone/],
    ['@every 1h', /five fields/],
    ['@reboot', /five fields/],
    ['0 3 * *', /five fields/],
    ['0 0 3 * * *', /five fields/],
    ['0\t3 * * *', /five fields/],
    ['60 3 * * *', /minute takes/],
    ['0 24 * * *', /hour takes/],
    ['0 3 0 * *', /day of month takes/],
    ['0 3 32 * *', /day of month takes/],
    ['0 3 * 13 *', /month takes/],
    ['0 3 * * 7', /day of week takes/],
    ['0/0 3 * * *', /minute takes/],
    ['a b c d e', /minute takes.*hour takes.*day of month takes.*month takes.*day of week takes/],
  ] as const) {
    it(`refuses "${schedule}"`, () => {
      expect(refuseSchedule(schedule)).to.match(why);
    });
  }
});

describe('the KVCluster resource', () => {
  const crd = parse(readFileSync(crdPath, 'utf8')) as Crd;
  const inCrd = crd.spec.versions[0]?.schema.openAPIV3Schema.properties.spec ?? {};

  it('has the fields, types, bounds and defaults that the program has', () => {
    const inProgram = z.toJSONSchema(kvClusterSpecSchema, { io: 'input', reused: 'inline' }) as Schema;
    expect(flatten(inProgram, 'spec')).to.deep.equal(flatten(inCrd, 'spec'));
  });

  it('bounds every text, list and map of the spec, and describes every field', () => {
    const loose: string[] = [];
    walk(inCrd, 'spec', (schema, path) => {
      const bounded =
        (schema.type !== 'string' || schema['maxLength'] !== undefined || schema['enum'] !== undefined) &&
        (schema.type !== 'array' || schema['maxItems'] !== undefined) &&
        (schema.additionalProperties === undefined || schema['maxProperties'] !== undefined);
      if (!bounded) loose.push(path);
      const isField = !path.endsWith('[]') && !path.endsWith('{}');
      if (isField && schema['description'] === undefined) loose.push(`${path} has no description`);
    });
    expect(loose).to.deep.equal([]);
  });
});

const compared = [
  'type',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'maxItems',
  'pattern',
  'enum',
] as const;

/** Path -> keywords, for what both descriptions can say. */
function flatten(root: Schema, name: string): Record<string, unknown> {
  const rows: Record<string, unknown> = {};
  walk(root, name, (schema, path) => {
    const isQuantity = schema.anyOf !== undefined;
    const keywords = compared.flatMap((keyword) => {
      const value = schema[keyword];
      // JSON Schema spells out the bounds of exact integers; the API server has 64 bits.
      const isImplied = typeof value === 'number' && Math.abs(value) === Number.MAX_SAFE_INTEGER;
      return value === undefined || isImplied || isQuantity ? [] : [[keyword, value] as const];
    });
    const defaults = schema['default'];
    // Defaults of objects only make the defaults of their fields apply, but for those that carry content of their own.
    const isStructural = schema.properties !== undefined && path !== 'spec.resources';
    rows[path] = {
      ...Object.fromEntries(isQuantity ? [['type', 'quantity']] : keywords),
      ...(defaults === undefined || isStructural ? {} : { default: defaults }),
      ...(schema['required'] === undefined ? {} : { required: schema['required'] }),
    };
  });
  return rows;
}

function walk(schema: Schema, path: string, visit: (schema: Schema, path: string) => void): void {
  visit(schema, path);
  for (const [name, field] of Object.entries(schema.properties ?? {})) walk(field, `${path}.${name}`, visit);
  if (schema.items !== undefined) walk(schema.items, `${path}[]`, visit);
  const { additionalProperties } = schema;
  if (typeof additionalProperties === 'object' && Object.keys(additionalProperties).length > 0) {
    walk(additionalProperties, `${path}{}`, visit);
  }
}
