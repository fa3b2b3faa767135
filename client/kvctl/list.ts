import type { Command } from 'commander';
import type { Consistency } from '../kv-client.ts';
import {
  type ClientOptions,
  consistencyOption,
  countOption,
  usingClient,
  withClientOptions,
} from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { write } from './output.ts';

interface ListCommandOptions extends ClientOptions {
  readonly consistency?: Consistency;
  readonly startAfter?: string;
  readonly limit?: number;
  readonly pageSize?: number;
  readonly print0?: boolean;
}

export function addList(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('list'))
    .alias('ls')
    .description('print keys in byte order, one a line')
    .argument('[prefix]', 'only keys that begin with this')
    .option('--start-after <key>', 'only keys after this one')
    .addOption(countOption('--limit <n>', 'print at most this many'))
    .addOption(countOption('--page-size <n>', 'fetch this many at a time (default: 1000)'))
    .option('-0, --print0', 'end keys with a zero byte instead of a newline')
    .addOption(consistencyOption())
    .action(async (prefix: string | undefined, options: ListCommandOptions) => {
      const end = options.print0 === true ? '\0' : '\n';
      const limit = options.limit ?? Number.POSITIVE_INFINITY;
      await usingClient(context, options, async (client) => {
        let printed = 0;
        const keys = client.listKeys({
          prefix: prefix ?? '',
          startAfter: options.startAfter ?? '',
          pageSize: Math.min(options.pageSize ?? 1000, limit),
          signal: context.signal,
          ...(options.consistency === undefined ? {} : { consistency: options.consistency }),
        });
        for await (const key of keys) {
          await write(context, Buffer.concat([key, Buffer.from(end)]));
          printed += 1;
          if (printed >= limit) return;
        }
      });
    });
}
