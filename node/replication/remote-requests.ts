import type { Scheduler } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { NO_VERSION } from '../../model/version.ts';
import {
  type ListReply,
  type ListRequest,
  ReadResult_Outcome,
  type ReadResult,
} from '../../proto/gen/peer.ts';
import { decodeRecord } from '../storage/record.ts';
import type { KeyedRecord, StoredRecord } from '../storage/store.ts';
import type { ListedPage } from './local-listing.ts';
import type { FrameBody } from './peer-link.ts';

interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

interface WaitingRead extends Waiting<StoredRecord | undefined> {
  readonly key: Buffer;
}

const MOST_KEYS_PER_FRAME = 512;

/** Questions to one peer over its stream, answered by id; all of them fail when the stream ends. */
export class RemoteRequests {
  private readonly peer: string;
  private readonly scheduler: Scheduler;
  private readonly send: (body: FrameBody) => void;
  private nextId = 1;
  private readonly reads = new Map<number, readonly WaitingRead[]>();
  private readonly repairs = new Map<number, Waiting<undefined>>();
  private readonly lists = new Map<number, Waiting<ListedPage>>();
  private collecting: WaitingRead[] = [];
  private ended: Error | undefined;

  constructor(peer: string, scheduler: Scheduler, send: (body: FrameBody) => void) {
    this.peer = peer;
    this.scheduler = scheduler;
    this.send = send;
  }

  /**
   * The peer's synced record of a key. Reads of one turn travel in one frame.
   *
   * @throws KvError UNAVAILABLE when the peer is not a readable replica or the stream ends, DATA_LOSS when its record is damaged.
   */
  read(key: Buffer): Promise<StoredRecord | undefined> {
    return this.wait((waiting) => {
      this.collecting.push({ key, ...waiting });
      if (this.collecting.length === 1) this.scheduler.soon(() => this.sendReads());
    });
  }

  /** Resolves when the peer durably holds these records or newer ones. `returned`: they are entries of its own that it lost. */
  repair(records: readonly KeyedRecord[], returned = false): Promise<void> {
    return this.wait((waiting) => {
      const id = this.nextId++;
      this.repairs.set(id, waiting);
      const wire = records.map(({ key, record }) => ({ key, record: record.bytes, horizonMs: 0 }));
      this.send({ $case: 'repair', value: { id, records: wire, returned } });
    });
  }

  /** A page of the peer's keys, tombstones included. */
  list(request: Omit<ListRequest, 'id'>): Promise<ListedPage> {
    return this.wait((waiting) => {
      const id = this.nextId++;
      this.lists.set(id, waiting);
      this.send({ $case: 'list', value: { id, ...request } });
    });
  }

  /** Takes a reply; one that nobody waits for is ignored. */
  onReply(body: Extract<FrameBody, { $case: 'readReply' | 'repairReply' | 'listReply' }>): void {
    const { id } = body.value;
    switch (body.$case) {
      case 'readReply':
        this.take(this.reads, id)?.forEach((waiting, index) =>
          this.settleRead(waiting, body.value.results[index]),
        );
        return;
      case 'repairReply':
        this.take(this.repairs, id)?.resolve(undefined);
        return;
      case 'listReply': {
        const waiting = this.take(this.lists, id);
        if (body.value.wrongReplica) waiting?.reject(this.notReadable());
        else waiting?.resolve(pageOf(body.value));
        return;
      }
    }
  }

  end(reason: string): void {
    this.ended ??= new KvError('UNAVAILABLE', `the stream to ${this.peer} ended: ${reason}`);
    const all: Waiting<never>[] = [
      ...[...this.reads.values()].flat(),
      ...this.collecting.splice(0),
      ...this.repairs.values(),
      ...this.lists.values(),
    ];
    for (const map of [this.reads, this.repairs, this.lists]) map.clear();
    for (const waiting of all) waiting.reject(this.ended);
  }

  private wait<T>(begin: (waiting: Waiting<T>) => void): Promise<T> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => begin({ resolve, reject }));
  }

  private take<T>(map: Map<number, T>, id: number): T | undefined {
    const found = map.get(id);
    map.delete(id);
    return found;
  }

  private sendReads(): void {
    while (this.collecting.length > 0 && this.ended === undefined) {
      const batch = this.collecting.splice(0, MOST_KEYS_PER_FRAME);
      const id = this.nextId++;
      this.reads.set(id, batch);
      this.send({ $case: 'read', value: { id, keys: batch.map(({ key }) => key), stored: false } });
    }
  }

  private settleRead(waiting: WaitingRead, result: ReadResult | undefined): void {
    if (result?.outcome === ReadResult_Outcome.ABSENT) {
      waiting.resolve(undefined);
    } else if (result?.outcome === ReadResult_Outcome.RECORD) {
      try {
        waiting.resolve(decodeRecord(waiting.key, result.record));
      } catch (error) {
        waiting.reject(error as Error);
      }
    } else if (result?.outcome === ReadResult_Outcome.DATA_LOSS) {
      waiting.reject(new KvError('DATA_LOSS', `the record of ${this.peer} fails its checksum`));
    } else {
      waiting.reject(this.notReadable());
    }
  }

  private notReadable(): KvError {
    return new KvError('UNAVAILABLE', `${this.peer} is not a readable replica`);
  }
}

function pageOf({ keys, more }: ListReply): ListedPage {
  return {
    keys: keys.map(({ key, version, tombstone, expiresAtMs }) => ({
      key,
      version: version ?? NO_VERSION,
      tombstone,
      expiresAtMs,
    })),
    more: more && keys.length > 0,
  };
}
