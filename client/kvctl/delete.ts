import type { Command } from 'commander';
import type { Consistency } from '../kv-client.ts';
import {
  type ClientOptions,
  consistencyOption,
  usingClient,
  withClientOptions,
} from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { writeLine } from './output.ts';

interface DeleteCommandOptions extends ClientOptions {
  readonly consistency?: Consistency;
}

export function addDelete(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('delete'))
    .alias('del')
    .description('delete keys; prints how many of them existed')
    .argument('<keys...>')
    .addOption(consistencyOption())
    .action(async (keys: readonly string[], options: DeleteCommandOptions) => {
      const { signal } = context;
      const consistency = options.consistency === undefined ? {} : { consistency: options.consistency };
      const existed = await usingClient(context, options, async (client) => {
        let count = 0;
        for (const key of keys)
          if ((await client.delete(key, { signal, ...consistency })).existed) count += 1;
        return count;
      });
      await writeLine(context, String(existed));
    });
}
