import { KvError, messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { StoreCorrupt } from './store-errors.ts';

/** Whether a store can be used: until it is closed, or until its first failure, which is final. */
export class StoreHealth {
  /** Rejects with the first failure. */
  readonly failed: Promise<never>;
  /** What every call throws since then. */
  failure: KvError | undefined;
  private readonly logger: Logger;
  private readonly reject: (failure: KvError) => void;
  private readonly listeners: ((failure: KvError) => void)[] = [];
  private closed = false;

  constructor(logger: Logger) {
    this.logger = logger;
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => undefined);
    this.failed = promise;
    this.reject = reject;
  }

  /** Calls back once, when the store fails. */
  onFailure(listener: (failure: KvError) => void): void {
    this.listeners.push(listener);
  }

  /** The store is being closed. */
  close(): void {
    this.closed = true;
  }

  /** @throws KvError INTERNAL after a failure, UNAVAILABLE after closing. */
  check(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.closed) throw new KvError('UNAVAILABLE', 'the store is closed');
  }

  /** The first failure counts; returns what every later call throws. */
  fail(error: unknown): KvError {
    if (this.failure !== undefined) return this.failure;
    const failure =
      error instanceof StoreCorrupt
        ? error
        : new KvError('INTERNAL', `the store has failed and must be opened anew: ${messageOf(error)}`, {
            cause: error,
          });
    this.failure = failure;
    this.logger.error({ error }, 'the store has failed');
    for (const listener of this.listeners) listener(failure);
    this.reject(failure);
    return failure;
  }

  /** A record that fails its checksum is one key's trouble; a state that cannot be read is the end of the store. */
  guard<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (error instanceof KvError && !(error instanceof StoreCorrupt)) throw error;
      throw this.fail(error);
    }
  }
}
