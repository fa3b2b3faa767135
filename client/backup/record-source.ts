import { Backoff } from '../../common/backoff.ts';
import { type Scheduler, sleep } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';
import { partitionOf } from '../../model/key-hash.ts';
import type { RecordPosition, RecordsChunk } from '../../proto/gen/peer.ts';
import type { AdminClient, AdminTarget } from '../admin-client.ts';
import type { PlacedRecord } from './merge.ts';

/** A replica that is read for a backup. */
export interface RecordSourceOptions {
  readonly admin: AdminClient;
  readonly target: AdminTarget;
  /** Of the store that was found readable; another one behind the same address is not read. */
  readonly incarnation: number;
  readonly partitions: number;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** Tries without a single chunk in between before a source counts as lost. */
const MAX_FUTILE_TRIES = 6;

/** A replica's records in order; a cut stream is resumed where it ended. */
export class RecordSource {
  readonly target: AdminTarget;
  readonly incarnation: number;
  /** Head of the replica's log when its stream began; 0 before that. */
  head = 0;
  private readonly options: RecordSourceOptions;
  private begun = false;

  constructor(options: RecordSourceOptions) {
    this.options = options;
    this.target = options.target;
    this.incarnation = options.incarnation;
  }

  /**
   * @throws KvError UNAVAILABLE naming the replica when it cannot be read to its end, ABORTED when its store has been
   * replaced; the signal's reason.
   */
  async *records(): AsyncGenerator<PlacedRecord, void, undefined> {
    const { scheduler, random, signal, target } = this.options;
    const backoff = new Backoff({ initialMs: 200, maxMs: 3000 }, random);
    let after: RecordPosition | undefined;
    for (let futile = 0; ; futile += 1) {
      try {
        for await (const chunk of this.open(after)) {
          futile = 0;
          backoff.reset();
          for (const { key, record } of chunk.records) {
            yield { partition: partitionOf(key, this.options.partitions), key, record };
          }
          after = chunk.last ?? after;
        }
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (futile >= MAX_FUTILE_TRIES || !mayResume(error)) {
          const message = `${target.nodeId} could not be read to its end: ${messageOf(error)}`;
          throw new KvError('UNAVAILABLE', message, { cause: error });
        }
        await sleep(scheduler, backoff.nextMs(), signal);
      }
    }
  }

  private async *open(after: RecordPosition | undefined): AsyncGenerator<RecordsChunk, void, undefined> {
    const { admin, target, signal } = this.options;
    for await (const chunk of admin.streamRecords(target, { after }, signal)) {
      if (chunk.incarnation !== 0 && chunk.incarnation !== this.incarnation) {
        throw new KvError('ABORTED', 'its store was replaced meanwhile');
      }
      if (!this.begun && chunk.head !== undefined) {
        this.begun = true;
        this.head = chunk.head;
      }
      yield chunk;
    }
  }
}

function mayResume(error: unknown): boolean {
  return error instanceof KvError && (error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED');
}
