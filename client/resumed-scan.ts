import type { Version } from '../model/version.ts';
import type { ScanEntry, ScanRequest, ScanResponse } from '../proto/gen/kvstore.ts';
import { KvError } from '../common/errors.ts';
import { type Failover, mayResume } from './failover.ts';
import { CallFailure } from './grpc.ts';
import type { MessageStream } from './message-stream.ts';

export interface ScannedEntry {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly version: Version;
  /** When the entry was sent; undefined when it does not expire. */
  readonly remainingTtlMs: number | undefined;
}

export interface ResumedScanOptions {
  readonly run: Failover['run'];
  readonly request: ScanRequest;
  /** For each message, and for finding a node that goes on, milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** A scan that goes on at another node, after the last key, when its stream breaks. */
export async function* resumedScan(
  options: ResumedScanOptions,
): AsyncGenerator<ScannedEntry, void, undefined> {
  const { timeoutMs } = options;
  const { limit } = options.request;
  let startAfter = options.request.startAfter;
  let received = 0;
  for (;;) {
    const rest = limit === 0 ? 0 : limit - received;
    const opened = await open(options, { ...options.request, startAfter, limit: rest });
    try {
      for (let message = opened.first; message !== undefined;) {
        for (const entry of message.entries) {
          startAfter = entry.key;
          received += 1;
          yield scanned(entry);
        }
        message = await opened.stream.next(timeoutMs);
      }
      return;
    } catch (error) {
      // Every stream that was opened has brought something: this comes to an end.
      if (!(error instanceof CallFailure)) throw error;
      if (!mayResume(error)) throw error.error;
    } finally {
      opened.stream.close();
    }
    if (limit > 0 && received >= limit) return;
  }
}

function open(
  { run, timeoutMs, signal }: ResumedScanOptions,
  request: ScanRequest,
): Promise<{ stream: MessageStream<ScanResponse>; first: ScanResponse | undefined }> {
  return run({
    kind: 'read',
    timeoutMs,
    signal,
    call: async (endpoint, call) => {
      const stream = endpoint.scan(request, call);
      try {
        return { stream, first: await stream.next(call.timeoutMs) };
      } catch (error) {
        stream.close();
        throw error;
      }
    },
  });
}

function scanned({ key, value, version, remainingTtlMs }: ScanEntry): ScannedEntry {
  if (version === undefined) throw new KvError('INTERNAL', 'the node sent an entry without a version');
  return { key, value, version, remainingTtlMs };
}
