import { type Command, InvalidArgumentError, Option } from 'commander';
import type { WatchEvent } from '../kv-client.ts';
import { type ClientOptions, usingClient, withClientOptions } from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { jsonBytes, write, writeLine } from './output.ts';

interface WatchCommandOptions extends ClientOptions {
  readonly token?: Buffer;
  readonly output: 'raw' | 'json';
}

const TAB = Buffer.from('\t');
const NEWLINE = Buffer.from('\n');

export function addWatch(program: Command, context: KvctlContext): void {
  withClientOptions(program.command('watch'))
    .description('print changes as they happen, one a line, until interrupted')
    .argument('[prefix]', 'only keys that begin with this')
    .addOption(
      new Option(
        '--token <base64>',
        'go on from the token of an earlier watch (-o json shows them)',
      ).argParser(parseToken),
    )
    .addOption(
      new Option(
        '-o, --output <form>',
        'put or delete, tab, key, tab and value as they are, or a JSON object a line',
      )
        .choices(['raw', 'json'])
        .default('raw'),
    )
    .action(async (prefix: string | undefined, { token, output, ...options }: WatchCommandOptions) => {
      const { signal } = context;
      const resumed = token === undefined ? {} : { token };
      await usingClient(context, options, async (client) => {
        for await (const event of client.watch({ prefix: prefix ?? '', signal, ...resumed })) {
          if (output === 'json') await writeLine(context, JSON.stringify(jsonOf(event)));
          else if (event.kind !== 'progress') await write(context, rawOf(event));
        }
      });
    });
}

function rawOf(event: Exclude<WatchEvent, { kind: 'progress' }>): Buffer {
  const head = [Buffer.from(event.kind), TAB, event.key];
  return Buffer.concat(event.kind === 'put' ? [...head, TAB, event.value, NEWLINE] : [...head, NEWLINE]);
}

function jsonOf(event: WatchEvent): object {
  switch (event.kind) {
    case 'put': {
      const { kind, key, value, version, remainingTtlMs } = event;
      return { kind, key: jsonBytes(key), value: jsonBytes(value), version, remainingTtlMs };
    }
    case 'delete':
      return { kind: event.kind, key: jsonBytes(event.key), version: event.version };
    case 'progress':
      return { kind: event.kind, token: event.token.toString('base64') };
  }
}

function parseToken(text: string): Buffer {
  const token = Buffer.from(text, 'base64');
  if (token.length === 0 || token.toString('base64') !== text)
    throw new InvalidArgumentError('it is base64, as a watch printed it');
  return token;
}
