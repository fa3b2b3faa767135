import { buffer } from 'node:stream/consumers';
import type { Command } from 'commander';
import type { Consistency } from '../kv-client.ts';
import {
  type ClientOptions,
  consistencyOption,
  durationOption,
  usingClient,
  withClientOptions,
} from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { writeLine } from './output.ts';

interface PutCommandOptions extends ClientOptions {
  readonly consistency?: Consistency;
  readonly ttl?: number;
}

export function addPut(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('put'))
    .description('store a value; without one, or with "-", it is read from standard input, byte by byte')
    .argument('<key>')
    .argument('[value]')
    .addOption(durationOption('--ttl <duration>', 'time to live'))
    .addOption(consistencyOption())
    .action(async (key: string, value: string | undefined, options: PutCommandOptions) => {
      const { signal } = context;
      const bytes = value === undefined || value === '-' ? await buffer(context.stdin) : value;
      await usingClient(context, options, (client) =>
        client.put(key, bytes, {
          signal,
          ...(options.consistency === undefined ? {} : { consistency: options.consistency }),
          ...(options.ttl === undefined ? {} : { ttlMs: options.ttl }),
        }),
      );
      await writeLine(context, 'OK');
    });
}
