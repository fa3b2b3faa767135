import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { Trace } from './trace.ts';

/** What a process logs goes into the history; its constant messages are counted, and tell what has happened. */
export class SimLogger implements Logger {
  private readonly trace: Trace;
  private readonly name: string;
  private readonly onMessage: (message: string) => void;
  private readonly fields: Readonly<Record<string, unknown>>;

  constructor(
    trace: Trace,
    name: string,
    onMessage: (message: string) => void,
    fields: Readonly<Record<string, unknown>> = {},
  ) {
    this.trace = trace;
    this.name = name;
    this.onMessage = onMessage;
    this.fields = fields;
  }

  debug(fields: object, message: string): void {
    this.write(fields, message);
  }

  info(fields: object, message: string): void {
    this.write(fields, message);
  }

  warn(fields: object, message: string): void {
    this.write(fields, message);
  }

  error(fields: object, message: string): void {
    this.write(fields, message);
  }

  child(fields: Record<string, unknown>): Logger {
    return new SimLogger(this.trace, this.name, this.onMessage, { ...this.fields, ...fields });
  }

  private write(fields: object, message: string): void {
    this.trace.note(`log: ${message}`, () => `[${this.name}]${this.text(fields)}`);
    this.onMessage(message);
  }

  private text(fields: object): string {
    const all: Record<string, unknown> = { ...this.fields, ...fields };
    const parts = Object.entries(all).map(([name, value]) =>
      value instanceof Error ? `${name}=${chain(value)}` : `${name}=${JSON.stringify(value)}`,
    );
    return parts.length === 0 ? '' : ` ${parts.join(' ')}`;
  }
}

/** An error with its causes, in words. */
export function chain(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause === undefined ? messageOf(error) : `${messageOf(error)} <- ${chain(cause)}`;
}
