import { Backoff } from '../common/backoff.ts';
import { byteString } from '../common/bytes.ts';
import { type Clock, type Scheduler, sleep } from '../common/clock.ts';
import { KvError } from '../common/errors.ts';
import type { Random } from '../common/random.ts';
import { compareVersions, type Version } from '../model/version.ts';
import {
  type WatchEvent as WireEvent,
  WatchEvent_Kind as Kind,
  type WatchResponse,
} from '../proto/gen/kvstore.ts';
import { type Failover, mayResume } from './failover.ts';
import { CallFailure } from './grpc.ts';
import type { MessageStream } from './message-stream.ts';

/** What a watch tells. */
export type WatchEvent =
  | {
      readonly kind: 'put';
      readonly key: Buffer;
      readonly value: Buffer;
      readonly version: Version;
      /** When the event was sent; undefined when the value does not expire. */
      readonly remainingTtlMs: number | undefined;
    }
  /** The key was deleted, or was given a value that has expired since. */
  | { readonly kind: 'delete'; readonly key: Buffer; readonly version: Version }
  /** Everything before has been told. The first one of a watch without a token: everything from now on will be. */
  | {
      readonly kind: 'progress';
      /** A watch with this token goes on from here. */
      readonly token: Buffer;
    };

export interface ResumedWatchOptions {
  readonly run: Failover['run'];
  readonly prefix: Buffer;
  /** Empty: from now on. */
  readonly token: Buffer;
  /** For finding a node that goes on, milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
}

/** Nodes say something every other second, also when nothing changes. */
const SILENCE_MS = 8_000;
/** Of one node, before another one is asked. */
const FIRST_MESSAGE_MS = 5_000;
/** A stream that lasts this long was no failure, milliseconds. */
const LASTING_MS = 5_000;
/** Keys whose newest version is remembered, so that a stream that resumes repeats and takes back nothing. */
const MOST_REMEMBERED = 100_000;

/** A watch that goes on from its last token, at this or another node, when its stream breaks. Ends only by error. */
export async function* resumedWatch(
  options: ResumedWatchOptions,
): AsyncGenerator<WatchEvent, void, undefined> {
  const { clock, scheduler, random, signal } = options;
  const newest = new NewestVersions(MOST_REMEMBERED);
  const backoff = new Backoff({ initialMs: 50, maxMs: 2000 }, random);
  let { token } = options;
  for (;;) {
    const { stream, first } = await open(options, token);
    const openedMs = clock.monotonicMs();
    try {
      for (let message = first; message !== undefined;) {
        for (const event of message.events) {
          const told = eventOf(event);
          if (newest.admit(told)) yield told;
        }
        if (message.token.length > 0) {
          ({ token } = message);
          yield { kind: 'progress', token };
        }
        message = await stream.next(SILENCE_MS);
      }
    } catch (error) {
      if (!(error instanceof CallFailure)) throw error;
      if (!mayResume(error)) throw error.error;
    } finally {
      stream.close();
    }
    if (clock.monotonicMs() - openedMs >= LASTING_MS) backoff.reset();
    await sleep(scheduler, backoff.nextMs(), signal);
  }
}

function open(
  { run, prefix, timeoutMs, signal }: ResumedWatchOptions,
  token: Buffer,
): Promise<{ stream: MessageStream<WatchResponse>; first: WatchResponse | undefined }> {
  return run({
    kind: 'read',
    timeoutMs,
    signal,
    call: async (endpoint, call) => {
      const stream = endpoint.watch({ prefix, token }, call);
      try {
        return { stream, first: await stream.next(Math.min(call.timeoutMs, FIRST_MESSAGE_MS)) };
      } catch (error) {
        stream.close();
        throw error;
      }
    },
  });
}

function eventOf({
  kind,
  key,
  value,
  version,
  remainingTtlMs,
}: WireEvent): Exclude<WatchEvent, { kind: 'progress' }> {
  if (version === undefined) throw new KvError('INTERNAL', 'the node sent an event without a version');
  if (kind === Kind.PUT) return { kind: 'put', key, value, version, remainingTtlMs };
  if (kind === Kind.DELETE) return { kind: 'delete', key, version };
  throw new KvError('INTERNAL', `the node sent an event of a kind that this client does not know: ${kind}`);
}

/** The newest version seen of each of the keys that changed last. */
class NewestVersions {
  private readonly most: number;
  private readonly versions = new Map<string, Version>();

  constructor(most: number) {
    this.most = most;
  }

  /** Whether the version is newer than what was seen of its key. */
  admit({ key, version }: { readonly key: Buffer; readonly version: Version }): boolean {
    const name = byteString(key);
    const known = this.versions.get(name);
    if (known !== undefined && compareVersions(version, known) <= 0) return false;
    this.versions.delete(name);
    this.versions.set(name, version);
    const [oldest] = this.versions.keys();
    if (this.versions.size > this.most && oldest !== undefined) this.versions.delete(oldest);
    return true;
  }
}
