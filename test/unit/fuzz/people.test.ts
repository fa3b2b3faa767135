import { expect } from 'chai';
import fc from 'fast-check';
import { parseEndpoints } from '../../../client/endpoint-list.ts';
import { requireBackupId } from '../../../client/backup/backup-path.ts';
import { parseDurationMs } from '../../../client/kvctl/duration.ts';
import { refuseSchedule } from '../../../model/cron-schedule.ts';
import { parseKVCluster } from '../../../model/kvcluster.ts';
import { parseQuantity, sameQuantity } from '../../../model/quantity.ts';
import { ConfigError, parseConfig, type NodeConfig } from '../../../node/config.ts';
import { FLAGS } from '../../../node/flags.ts';
import { parseRunnerArguments } from '../../../node/local/arguments.ts';
import { parseOperatorConfig } from '../../../operator/config.ts';
import { attempt, RUNS, within } from './hostile.ts';

/** Names that every object has without having been given them. */
const inherited = fc.constantFrom('constructor', 'toString', '__proto__', 'hasOwnProperty', 'valueOf');
const text = fc.oneof(
  fc.string({ maxLength: 30 }),
  fc.string({ unit: 'binary', maxLength: 10 }),
  fc.constantFrom('', '-', '--', '=', '0', '-1', '1e9', '0x10', 'NaN', '９', '9'.repeat(400), ' 1', '1 '),
);

describe('fuzzed command lines of a node', () => {
  const flag = fc.oneof(fc.constantFrom(...Object.keys(FLAGS)), inherited, fc.string({ maxLength: 8 }));
  const argument = fc.oneof(
    flag.map((name) => `--${name}`),
    fc.tuple(flag, text).map(([name, value]) => `--${name}=${value}`),
    text,
  );

  const parse = (argv: readonly string[]): NodeConfig | 'help' | 'version' | ConfigError => {
    try {
      return within(500, () => parseConfig(argv));
    } catch (error) {
      if (error instanceof ConfigError) return error;
      throw error;
    }
  };

  it('are a configuration or refused with every problem in words', () => {
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 12 }), (argv) => {
        const result = parse(argv);
        if (!(result instanceof ConfigError)) return;
        expect(result.problems).to.not.have.length(0);
        for (const problem of result.problems) expect(problem).to.match(/\S{2}/);
      }),
      { numRuns: RUNS },
    );
  });

  const good = ['--node-id=kv-0', '--cluster-name=kv', '--data-dir=/d', '--secret-file=/s'];

  it('are refused when they have a flag that there is not, whatever its name', () => {
    const unknown = fc
      .oneof(inherited, fc.stringMatching(/^[a-z]{1,10}$/))
      .filter((name) => !Object.hasOwn(FLAGS, name));
    fc.assert(
      fc.property(unknown, fc.option(text, { nil: undefined }), (name, value) => {
        const given = value === undefined ? `--${name}` : `--${name}=${value}`;
        const result = parse([...good, given]);
        expect(result).to.be.instanceOf(ConfigError);
        expect((result as ConfigError).problems).to.include(`unknown flag --${name}`);
      }),
      { numRuns: RUNS },
    );
  });

  it('give numbers that are numbers within their bounds', () => {
    const numeric = [
      ['partitions', 1, 65_536, (config: NodeConfig) => config.partitions],
      ['peer-port', 0, 65_535, (config: NodeConfig) => config.peerPort],
      ['max-value-bytes', 1, 16 * 1024 * 1024, (config: NodeConfig) => config.maxValueBytes],
    ] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...numeric),
        fc.oneof(text, fc.integer().map(String)),
        ([name, least, most, read], value) => {
          const result = parse([...good, `--${name}=${value}`]);
          if (result instanceof ConfigError || typeof result === 'string') return;
          expect(read(result)).to.satisfy(Number.isSafeInteger).and.within(least, most);
        },
      ),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed words of people', () => {
  it('are refused as flags of the operator that there are not, whatever their name', () => {
    fc.assert(
      fc.property(fc.oneof(inherited, fc.stringMatching(/^[a-z]{1,8}$/)), (name) => {
        fc.pre(name !== 'concurrency' && name !== 'namespaces');
        const outcome = attempt(['INVALID_ARGUMENT'], () =>
          parseOperatorConfig(['--default-image=i', `--${name}=1`], {}),
        );
        expect(outcome)
          .to.have.property('error')
          .with.property('message')
          .that.contains(`unknown flag --${name}`);
      }),
      { numRuns: RUNS / 4 },
    );
  });

  it('are arguments of the runner or INVALID_ARGUMENT', () => {
    const argument = fc.oneof(
      fc.constantFrom('--nodes', '--base-port', '--manifest', '--verbose', '--help'),
      fc.tuple(fc.oneof(inherited, fc.constant('nodes')), text).map(([name, value]) => `--${name}=${value}`),
      text,
    );
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 5 }), (argv) => {
        const outcome = attempt(['INVALID_ARGUMENT'], () => parseRunnerArguments(argv, '/root'));
        if ('error' in outcome || outcome.value === 'help') return;
        expect(outcome.value.nodes ?? 1).to.be.within(1, 100);
        expect(outcome.value.basePort).to.be.within(0, 63_000);
      }),
      { numRuns: RUNS },
    );
  });

  it('are endpoints that read the same again, or INVALID_ARGUMENT', () => {
    const part = fc.oneof(text, fc.constantFrom('a:1', '[::1]:5', 'kv.default', ',', ':', '1.2.3.4'));
    fc.assert(
      fc.property(fc.array(part, { maxLength: 4 }), (parts) => {
        const outcome = attempt(['INVALID_ARGUMENT'], () => parseEndpoints(parts.join(',')));
        if ('value' in outcome) expect(parseEndpoints(outcome.value)).to.deep.equal(outcome.value);
      }),
      { numRuns: RUNS },
    );
  });

  it('are ids of backups without a way out of their directory, or INVALID_ARGUMENT', () => {
    const id = fc.oneof(
      text,
      fc.constantFrom(
        '..',
        '20260101t000000z-abcd',
        '20260101t000000z-abcd/..',
        '/',
        '20260101t000000z-abcd\n',
      ),
    );
    fc.assert(
      fc.property(id, (given) => {
        const outcome = attempt(['INVALID_ARGUMENT'], () => requireBackupId(given));
        if ('value' in outcome)
          expect(outcome.value)
            .to.match(/^[0-9a-z-]+$/)
            .and.not.contain('\n');
      }),
      { numRuns: RUNS },
    );
  });

  it('are durations of whole milliseconds or nothing', () => {
    const part = fc
      .tuple(fc.oneof(fc.nat().map(String), text), fc.constantFrom('ms', 's', 'm', 'h', 'd', ''))
      .map(([n, unit]) => n + unit);
    fc.assert(
      fc.property(fc.array(part, { maxLength: 3 }), (parts) => {
        const ms = parseDurationMs(parts.join(''));
        if (ms !== undefined) expect(ms).to.satisfy(Number.isSafeInteger).and.be.at.least(0);
      }),
      { numRuns: RUNS },
    );
  });

  it('are quantities or nothing, and a quantity equals itself however it is written', () => {
    const suffixes = [
      '',
      'n',
      'u',
      'm',
      'k',
      'M',
      'G',
      'T',
      'P',
      'E',
      'Ki',
      'Mi',
      'Gi',
      'Ti',
      'Pi',
      'Ei',
      'e3',
      'E-3',
    ];
    fc.assert(
      fc.property(fc.oneof(text, fc.nat().map(String)), fc.constantFrom(...suffixes), (digits, suffix) => {
        const written = digits + suffix;
        const value = within(100, () => parseQuantity(written));
        if (value === undefined) expect(sameQuantity(written, written)).to.equal(false);
        else expect(parseQuantity(`${value}n`)).to.equal(value);
      }),
      { numRuns: RUNS },
    );
  });

  it('are schedules or refused in words, in no time', () => {
    const field = fc.oneof(
      text,
      fc.constantFrom('*', '*/5', '1-5', '1,2,3', 'mon', '0-59/7', '1-', '?', `${'1,'.repeat(3000)}1`),
    );
    fc.assert(
      fc.property(fc.array(field, { maxLength: 6 }), (fields) => {
        const refusal = within(200, () => refuseSchedule(fields.join(' ')));
        if (refusal !== undefined) expect(refusal).to.match(/\w/);
      }),
      { numRuns: RUNS },
    );
  });

  it('are a KVCluster with its defaults or refused with every problem in words', () => {
    const spec = fc.dictionary(
      fc.oneof(
        fc.constantFrom('replicas', 'replicationFactor', 'partitions', 'storage', 'backup', 'tls', 'image'),
        inherited,
        fc.string(),
      ),
      fc.jsonValue({ maxDepth: 3 }),
      { maxKeys: 5 },
    );
    const object = fc.oneof(
      fc.anything({ maxDepth: 3 }),
      spec.map((given) => ({
        apiVersion: 'kvcluster.io/v1alpha1',
        kind: 'KVCluster',
        metadata: { name: 'kv' },
        spec: given,
      })),
    );
    fc.assert(
      fc.property(object, fc.constantFrom('refuse' as const, 'drop' as const), (given, unknown) => {
        const parsed = parseKVCluster(given, unknown);
        if (parsed.ok) {
          const again = parseKVCluster({
            apiVersion: 'kvcluster.io/v1alpha1',
            kind: 'KVCluster',
            metadata: { name: parsed.cluster.name, namespace: parsed.cluster.namespace },
            spec: parsed.cluster.spec,
          });
          expect(again).to.deep.equal(parsed);
          return;
        }
        expect(parsed.problems).to.not.have.length(0);
        for (const problem of parsed.problems) expect(problem).to.match(/\w/);
      }),
      { numRuns: 2 * RUNS },
    );
  });
});
