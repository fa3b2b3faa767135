import { type Command, Option } from 'commander';
import type { Consistency } from '../kv-client.ts';
import {
  type ClientOptions,
  consistencyOption,
  countOption,
  usingClient,
  withClientOptions,
} from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { jsonBytes, write, writeLine } from './output.ts';

interface ScanCommandOptions extends ClientOptions {
  readonly consistency?: Consistency;
  readonly start?: string;
  readonly end?: string;
  readonly startAfter?: string;
  readonly limit?: number;
  readonly output: 'raw' | 'json';
}

const TAB = Buffer.from('\t');
const NEWLINE = Buffer.from('\n');

export function addScan(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('scan'))
    .description('print keys and values in byte order of keys, one a line')
    .argument('[prefix]', 'only keys that begin with this')
    .option('--start <key>', 'only this key and greater ones')
    .option('--end <key>', 'only keys smaller than this one')
    .option('--start-after <key>', 'only keys after this one')
    .addOption(countOption('--limit <n>', 'print at most this many'))
    .addOption(consistencyOption())
    .addOption(
      new Option('-o, --output <form>', 'key, tab and value as they are, or a JSON object a line')
        .choices(['raw', 'json'])
        .default('raw'),
    )
    .action(async (prefix: string | undefined, options: ScanCommandOptions) => {
      const { start = '', end = '', startAfter = '', limit = 0, consistency, output } = options;
      const { signal } = context;
      const range = { prefix: prefix ?? '', start, end, startAfter, limit, signal };
      await usingClient(context, options, async (client) => {
        const entries = client.scan({ ...range, ...(consistency === undefined ? {} : { consistency }) });
        for await (const { key, value, version, remainingTtlMs } of entries) {
          if (output === 'raw') await write(context, Buffer.concat([key, TAB, value, NEWLINE]));
          else {
            const entry = { key: jsonBytes(key), value: jsonBytes(value), version, remainingTtlMs };
            await writeLine(context, JSON.stringify(entry));
          }
        }
      });
    });
}
