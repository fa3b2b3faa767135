import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { NO_VERSION } from '../../model/version.ts';
import {
  type DigestReply,
  type DigestRequest,
  type ForwardReply,
  type ForwardRequest,
  type LeafReply,
  type LeafRequest,
  type ListReply,
  type ListRequest,
  type LookupReply,
  type LookupRequest,
  type ReadReply,
  ReadResult_Outcome,
  type ReadResult,
} from '../../proto/gen/peer.ts';
import { decodeRecord } from '../storage/record.ts';
import type { RequestId } from '../../proto/gen/kvstore.ts';
import type { StoredRecord } from '../storage/store.ts';
import type { ListedPage } from './local-listing.ts';
import type { FrameBody } from './peer-link.ts';
import type { NamedWrite, RepairReason, SentRecord } from './repairs.ts';

/** A record as a replica has it, with the horizon of its partition there (PROTOCOL 24). */
export interface RemoteRecord {
  readonly record: StoredRecord | undefined;
  readonly horizonMs: number;
  /** Of a write of the replica's that is not acknowledged. */
  readonly requestId: RequestId | undefined;
}

/** What a peer answers. */
export type ReplyBody = Extract<FrameBody, { $case: `${string}Reply` }>;

interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

interface Asked extends Waiting<ReplyBody> {
  readonly askedAtMs: number;
}

interface WaitingRead extends Waiting<RemoteRecord> {
  readonly key: Buffer;
}

const MOST_KEYS_PER_FRAME = 512;

/** Questions to one peer over its stream, answered by id; all of them fail when the stream ends. */
export class RemoteRequests {
  private readonly peer: string;
  private readonly scheduler: Scheduler;
  private readonly clock: Clock;
  private readonly send: (body: FrameBody) => void;
  private nextId = 1;
  /** In the order they were asked. */
  private readonly waiting = new Map<number, Asked>();
  private collecting: WaitingRead[] = [];
  private ended: Error | undefined;

  constructor(
    peer: string,
    time: { readonly clock: Clock; readonly scheduler: Scheduler },
    send: (body: FrameBody) => void,
  ) {
    this.peer = peer;
    this.clock = time.clock;
    this.scheduler = time.scheduler;
    this.send = send;
  }

  /**
   * The peer's synced record of a key. Reads of one turn travel in one frame.
   *
   * @throws KvError UNAVAILABLE when the peer is not a readable replica or the stream ends, DATA_LOSS when its record is damaged.
   */
  read(key: Buffer): Promise<RemoteRecord> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.collecting.push({ key, resolve, reject });
      if (this.collecting.length === 1) this.scheduler.soon(() => this.sendReads());
    });
  }

  /**
   * What the peer stores of some keys, whether or not it serves reads of them; fewer results than keys when the answer
   * would be too large: ask again for the rest.
   *
   * @throws KvError UNAVAILABLE when the stream ends.
   */
  async fetch(keys: readonly Buffer[]): Promise<readonly ReadResult[]> {
    const body = (id: number): FrameBody => ({ $case: 'read', value: { id, keys: [...keys], stored: true } });
    return (await this.ask(body, readReply)).results;
  }

  /**
   * Resolves when the peer durably holds these records or newer ones. `returnedWrites`: they are entries of its own that it
   * lost, of these writes among others.
   */
  async repair(
    records: readonly SentRecord[],
    {
      finished,
      forRead = false,
      returnedWrites,
    }: RepairReason & { readonly returnedWrites?: readonly NamedWrite[] } = {},
  ): Promise<void> {
    const wire = records.map(({ key, record, horizonMs }) => ({ key, record: record.bytes, horizonMs }));
    await this.ask(
      (id) => ({
        $case: 'repair',
        value: {
          id,
          records: wire,
          returned: returnedWrites !== undefined,
          returnedWrites: [...(returnedWrites ?? [])],
          finished,
          forRead,
        },
      }),
      (reply) => (reply.$case === 'repairReply' ? reply.value : undefined),
    );
  }

  /** A page of the peer's keys, tombstones included. */
  async list(request: Omit<ListRequest, 'id'>): Promise<ListedPage> {
    const reply = await this.ask(
      (id) => ({ $case: 'list', value: { id, ...request } }),
      (body) => (body.$case === 'listReply' ? body.value : undefined),
    );
    if (reply.wrongReplica) throw this.notReadable();
    return pageOf(reply);
  }

  forward(request: Omit<ForwardRequest, 'id'>): Promise<ForwardReply> {
    return this.ask(
      (id) => ({ $case: 'forward', value: { id, ...request } }),
      (reply) => (reply.$case === 'forwardReply' ? reply.value : undefined),
    );
  }

  digests(request: Omit<DigestRequest, 'id'>): Promise<DigestReply> {
    return this.ask(
      (id) => ({ $case: 'digest', value: { id, ...request } }),
      (reply) => (reply.$case === 'digestReply' ? reply.value : undefined),
    );
  }

  leaves(request: Omit<LeafRequest, 'id'>): Promise<LeafReply> {
    return this.ask(
      (id) => ({ $case: 'leaf', value: { id, ...request } }),
      (reply) => (reply.$case === 'leafReply' ? reply.value : undefined),
    );
  }

  lookup(request: Omit<LookupRequest, 'id'>): Promise<LookupReply> {
    return this.ask(
      (id) => ({ $case: 'lookup', value: { id, ...request } }),
      (reply) => (reply.$case === 'lookupReply' ? reply.value : undefined),
    );
  }

  /** Takes a reply; one that nobody waits for is ignored. */
  onReply(body: ReplyBody): void {
    const { id } = body.value;
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    waiting?.resolve(body);
  }

  /** Gives up what the peer has not answered for so long; call now and then. */
  expire(limitMs: number): void {
    const nowMs = this.clock.monotonicMs();
    for (const [id, { askedAtMs, reject }] of this.waiting) {
      if (nowMs - askedAtMs < limitMs) return;
      this.waiting.delete(id);
      reject(new KvError('UNAVAILABLE', `${this.peer} has not answered for ${limitMs / 1000} s`));
    }
  }

  end(reason: string): void {
    this.ended ??= new KvError('UNAVAILABLE', `the stream to ${this.peer} ended: ${reason}`);
    const all: Waiting<never>[] = [...this.waiting.values(), ...this.collecting.splice(0)];
    this.waiting.clear();
    for (const waiting of all) waiting.reject(this.ended);
  }

  /** @throws KvError INTERNAL when the peer answers another kind of question. */
  private async ask<T>(
    make: (id: number) => FrameBody,
    pick: (reply: ReplyBody) => T | undefined,
  ): Promise<T> {
    if (this.ended !== undefined) throw this.ended;
    const id = this.nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<ReplyBody>();
    this.send(make(id));
    this.waiting.set(id, { resolve, reject, askedAtMs: this.clock.monotonicMs() });
    const reply = await promise;
    const picked = pick(reply);
    if (picked === undefined) {
      throw new KvError('INTERNAL', `${this.peer} answered request ${id} with ${reply.$case}`);
    }
    return picked;
  }

  private sendReads(): void {
    while (this.collecting.length > 0 && this.ended === undefined) {
      const batch = this.collecting.splice(0, MOST_KEYS_PER_FRAME);
      const keys = batch.map(({ key }) => key);
      this.ask((id) => ({ $case: 'read', value: { id, keys, stored: false } }), readReply).then(
        ({ results }) => this.settleReads(batch, results),
        (error: unknown) => batch.forEach(({ reject }) => reject(error as Error)),
      );
    }
  }

  /** An answer that would be too large for a frame is cut: the rest is asked for again. */
  private settleReads(batch: readonly WaitingRead[], results: readonly ReadResult[]): void {
    const answered = Math.max(1, results.length);
    for (const [index, waiting] of batch.slice(0, answered).entries())
      this.settleRead(waiting, results[index]);
    this.collecting.push(...batch.slice(answered));
    this.sendReads();
  }

  private settleRead(waiting: WaitingRead, result: ReadResult | undefined): void {
    try {
      if (result?.outcome === ReadResult_Outcome.DATA_LOSS) {
        throw new KvError('DATA_LOSS', `the record of ${this.peer} fails its checksum`);
      }
      waiting.resolve(this.recordOf(waiting.key, result));
    } catch (error) {
      waiting.reject(error as Error);
    }
  }

  private recordOf(key: Buffer, result: ReadResult | undefined): RemoteRecord {
    if (result?.outcome === ReadResult_Outcome.ABSENT)
      return { record: undefined, horizonMs: result.horizonMs, requestId: undefined };
    if (result?.outcome === ReadResult_Outcome.RECORD) {
      const { horizonMs, requestId } = result;
      return { record: decodeRecord(key, result.record), horizonMs, requestId };
    }
    throw this.notReadable();
  }

  private notReadable(): KvError {
    return new KvError('UNAVAILABLE', `${this.peer} is not a readable replica`);
  }
}

function readReply(reply: ReplyBody): ReadReply | undefined {
  return reply.$case === 'readReply' ? reply.value : undefined;
}

function pageOf({ keys, more }: ListReply): ListedPage {
  return {
    keys: keys.map(({ key, version, tombstone, expiresAtMs, record }) => ({
      key,
      version: version ?? NO_VERSION,
      tombstone,
      expiresAtMs,
      record: record.length === 0 ? undefined : decodeRecord(key, record),
    })),
    more: more && keys.length > 0,
  };
}
