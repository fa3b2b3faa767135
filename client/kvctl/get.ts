import { type Command, Option } from 'commander';
import type { Consistency } from '../kv-client.ts';
import {
  type ClientOptions,
  consistencyOption,
  usingClient,
  withClientOptions,
} from './connection-options.ts';
import { CommandFailed, type KvctlContext } from './context.ts';
import { jsonBytes, write, writeJson } from './output.ts';

interface GetCommandOptions extends ClientOptions {
  readonly consistency?: Consistency;
  readonly output: 'raw' | 'json';
}

export function addGet(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('get'))
    .description('print a value, byte by byte; a newline follows only on a terminal')
    .argument('<key>')
    .addOption(consistencyOption())
    .addOption(new Option('-o, --output <form>', 'what to print').choices(['raw', 'json']).default('raw'))
    .action(async (key: string, options: GetCommandOptions) => {
      const { signal } = context;
      const consistency = options.consistency === undefined ? {} : { consistency: options.consistency };
      const found = await usingClient(context, options, (client) =>
        client.get(key, { signal, ...consistency }),
      );
      if (found === undefined) throw new CommandFailed(`key not found: ${key}`);
      if (options.output === 'json') {
        const { value, version, remainingTtlMs } = found;
        await writeJson(context, { key, value: jsonBytes(value), version, remainingTtlMs });
        return;
      }
      await write(context, found.value);
      if (context.stdout.isTTY === true) await write(context, '\n');
    });
}
