import { KvError } from '../../common/errors.ts';
import type { Link } from './link.ts';
import type { Host } from './network.ts';
import type { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';

export interface RemoteCallOptions {
  readonly time: SimTime;
  readonly local: { readonly name: string; readonly process: SimProcess };
  readonly remote: { readonly name: string; readonly find: () => Host | undefined };
  readonly there: Link;
  readonly back: Link;
  /** How long silence is borne, milliseconds. */
  readonly timeoutMs: number;
}

/** A call that streams answers from one process to another, and that may break at any time. */
export class RemoteCall {
  private readonly options: RemoteCallOptions;
  private readonly ended = new AbortController();
  private broken: Error | undefined;
  private onBroken: ((error: Error) => void) | undefined;
  private host: Host | undefined;
  private iterator: AsyncIterator<unknown> | undefined;

  constructor(options: RemoteCallOptions) {
    this.options = options;
  }

  isBetween(a: string, b: string): boolean {
    const { local, remote } = this.options;
    return (local.name === a && remote.name === b) || (local.name === b && remote.name === a);
  }

  /** Reaches the other side and begins there. */
  async begin<T>(answer: (host: Host, ended: AbortSignal) => AsyncIterable<T>): Promise<AsyncIterator<T>> {
    const { there, remote } = this.options;
    await this.pass(there);
    const host = remote.find();
    if (host === undefined) throw new KvError('UNAVAILABLE', `${remote.name} refuses the call`);
    this.host = host;
    const iterator = answer(host, this.ended.signal)[Symbol.asyncIterator]();
    this.iterator = iterator;
    return iterator;
  }

  /** The next answer; undefined at the end. */
  async next<T>(iterator: AsyncIterator<T>): Promise<T | undefined> {
    const result = await this.untilBroken<IteratorResult<T>>((resolve, reject) => {
      this.host?.process.enter(() => {
        iterator.next().then(resolve, reject);
      });
    });
    await this.pass(this.options.back);
    return result.done === true ? undefined : result.value;
  }

  fail(error: Error): void {
    // In a dead process nothing happens any more.
    if (!this.options.local.process.alive) return;
    this.broken ??= error;
    this.onBroken?.(error);
  }

  /** One of the two processes is gone. */
  lostProcess(name: string): void {
    const { local, remote, back, time } = this.options;
    if (name === local.name) this.close();
    if (name === remote.name) time.after(back.passageMs(), () => this.fail(new Error(`${name} is gone`)));
  }

  close(): void {
    if (this.ended.signal.aborted) return;
    this.broken ??= new Error('the call is over');
    this.ended.abort(new KvError('ABORTED', 'the caller is gone'));
    this.iterator?.return?.().catch(() => undefined);
  }

  private pass(link: Link): Promise<void> {
    const { time, timeoutMs, local } = this.options;
    return this.untilBroken<undefined>((resolve, reject) => {
      const arrive = (): void => {
        if (link.blocked) {
          const timer = time.after(timeoutMs, () =>
            reject(new KvError('UNAVAILABLE', 'nothing heard from the other side')),
          );
          link.whenOpen(() => {
            timer.cancel();
            time.after(link.retransmitMs(), arrive);
          });
        } else local.process.enter(() => resolve(undefined));
      };
      time.after(link.passageMs(), arrive);
    });
  }

  private untilBroken<T>(
    begin: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.broken !== undefined) {
        reject(this.broken);
        return;
      }
      this.onBroken = reject;
      begin(resolve, reject);
    });
  }
}
