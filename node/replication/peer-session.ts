import type { Clock, Scheduler } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { type Entries, type Hello, Refusal_Reason } from '../../proto/gen/peer.ts';
import type { VolumeIdentity } from '../cluster/identity.ts';
import type { PeerMemories } from '../cluster/peer-memory.ts';
import { holdsPartition } from '../../model/replica-sets.ts';
import { compareVersions, type Version } from '../../model/version.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Store, StoredRecord } from '../storage/store.ts';
import type { HybridClock } from './hybrid-clock.ts';
import type { LogFloor } from './log-floor.ts';
import { LogReceiver } from './log-receiver.ts';
import { LogSender } from './log-sender.ts';
import type { ReplicationMetrics } from './metrics.ts';
import type { OwnLog } from './own-log.ts';
import type { FrameBody, PeerLink } from './peer-link.ts';
import { type PeerState, stateOfHeartbeat, stateOfHello } from './peer-state.ts';
import type { PendingWrites } from './pending-writes.ts';
import { RemoteRequests } from './remote-requests.ts';
import type { NamedWrite, SentRecord } from './repairs.ts';
import type { RequestIndex } from './requests/request-index.ts';
import type { RequestBody, RequestHandler } from './request-handler.ts';
import type { SafetyRules } from './safety-rules.ts';
import type { ReplicationSettings } from './settings.ts';
import type { Topology } from './topology.ts';
import type { UnsyncedTail } from './unsynced-tail.ts';

/** What sessions of all peers share. */
export interface SessionOptions {
  readonly store: Store;
  readonly ownLog: OwnLog;
  readonly floor: LogFloor;
  readonly identity: VolumeIdentity;
  readonly memories: PeerMemories;
  readonly hybridClock: HybridClock;
  readonly pending: PendingWrites;
  readonly requests: RequestHandler;
  readonly topology: Topology;
  /** What a record of the live log that must not come back is superseded by. */
  readonly collected: (key: Buffer, record: StoredRecord) => Version | undefined;
  /** Whether an own entry is of a key that has been collected since. */
  readonly isOutlived: (key: Buffer) => boolean;
  /** A record of the live log was applied. */
  readonly onApplied: (key: Buffer, record: StoredRecord) => void;
  /** A member has told its wall clock. */
  readonly onClock: (peer: string, wallMs: number) => void;
  /** Which partitions this node holds everything of. */
  readonly standing: Pick<Standing, 'isReadable'>;
  /** What is remembered of writes, for retries. */
  readonly writes: Pick<RequestIndex, 'note' | 'noteVersion' | 'hasStood'>;
  /** This node's horizon of a partition, for peers to judge its records by. */
  readonly horizonMs: (partition: number) => number;
  readonly rules: SafetyRules;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly settings: ReplicationSettings;
  readonly metrics: ReplicationMetrics;
  readonly logger: Logger;
}

/** Records given back in one frame. */
const RETURNED_PER_FRAME = 256;
const RETURNED_BYTES_PER_FRAME = 1024 * 1024;

/** Everything between two members while their stream is up, after both have accepted each other's Hello. */
export class PeerSession {
  readonly peer: string;
  readonly incarnation: number;
  readonly link: PeerLink;
  readonly remote: RemoteRequests;
  /** Boot counter of the peer's last start after an unclean end. */
  readonly uncleanBoot: number;
  private readonly options: SessionOptions;
  private readonly onStateChange: () => void;
  private readonly tail: UnsyncedTail;
  private readonly sender: LogSender;
  private readonly receiver: LogReceiver;
  private current: PeerState;
  private heardOf = false;

  constructor(
    options: SessionOptions,
    link: PeerLink,
    hello: Hello,
    tail: UnsyncedTail,
    onStateChange: () => void,
  ) {
    this.options = options;
    this.onStateChange = onStateChange;
    this.tail = tail;
    this.link = link;
    this.peer = link.peer;
    this.incarnation = link.peerIncarnation;
    this.uncleanBoot = hello.uncleanBoot;
    options.onClock(this.peer, hello.wallMs);
    this.current = stateOfHello(hello, options.clock.wallMs(), options.store.partitions);
    this.remote = new RemoteRequests(this.peer, options, (body) => void link.send(body));
    const cursor = cursorOn(options.store, this.peer, this.incarnation) ?? hello.logBase;
    tail.begin({
      incarnation: this.incarnation,
      bootCounter: hello.bootCounter,
      recoveredHead: hello.recoveredHead,
      cursor,
    });
    this.receiver = this.receive(cursor);
    this.sender = this.sendLog(hello);
    void this.returnTail();
  }

  /** Whether the peer's end is up: from then on every entry that it appends comes on this stream. */
  get mutual(): boolean {
    return this.heardOf;
  }

  /** The peer's log no longer reaches back to this node's cursor: only a comparison of all records brings what is missing. */
  get hasGap(): boolean {
    return this.receiver.hasGap;
  }

  get state(): PeerState {
    return this.current;
  }

  /** How far the peer's log is durably applied here. */
  get cursor(): number {
    return this.receiver.cursor;
  }

  /** How far the peer has durably applied this node's log. */
  get acknowledged(): number {
    return this.sender.acknowledged;
  }

  onDrain(): void {
    this.sender.onDrain();
  }

  onBody(body: FrameBody): void {
    try {
      this.dispatch(body);
    } catch (error) {
      this.options.logger.warn({ peer: this.peer, error }, 'a frame of a peer could not be applied');
      this.giveUp(error);
    }
  }

  /** The peer's records were merged as of `head` of its log; the stream begins anew when it cannot go on from there. */
  async promote(head: number): Promise<void> {
    if (!(await this.receiver.promote(head))) this.link.close(new Error('resuming after a merge'));
  }

  end(reason: Error | undefined): void {
    this.sender.stop();
    this.receiver.stop();
    this.remote.end(reason?.message ?? 'closed');
  }

  private dispatch(body: FrameBody): void {
    switch (body.$case) {
      case 'entries':
        this.onEntries(body.value);
        this.rememberDurable(body.value.durableHead);
        this.become({ ...this.current, head: Math.max(this.current.head, body.value.through) });
        return;
      case 'ack':
        this.sender.onAck(body.value);
        return;
      case 'heartbeat':
        this.options.onClock(this.peer, body.value.wallMs);
        this.tail.synced(body.value.durableHead);
        this.rememberDurable(body.value.durableHead);
        this.become(
          stateOfHeartbeat(body.value, this.options.clock.wallMs(), this.options.store.partitions),
          true,
        );
        return;
      case 'read':
      case 'repair':
      case 'list':
      case 'forward':
      case 'digest':
      case 'leaf':
      case 'lookup':
        void this.answer(body);
        return;
      case 'readReply':
      case 'repairReply':
      case 'listReply':
      case 'forwardReply':
      case 'digestReply':
      case 'leafReply':
      case 'lookupReply':
        this.remote.onReply(body);
        return;
      case 'map':
        return; // Maps are taken from any link, established or not (peers.ts).
    }
  }

  private onEntries(entries: Entries): void {
    const before = this.receiver.hasGap;
    this.receiver.onEntries(entries);
    if (this.receiver.hasGap !== before) this.onStateChange();
  }

  /** Too much waits for the disk here: nothing is wrong with the peer, which tries again after a while. */
  private giveUp(error: unknown): void {
    if (error instanceof KvError && error.code === 'RESOURCE_EXHAUSTED') this.link.close(error);
    else this.link.refuse(Refusal_Reason.BAD_FRAME, messageOf(error));
  }

  private become(state: PeerState, heartbeat = false): void {
    const before = this.current;
    const first = heartbeat && !this.heardOf;
    this.heardOf ||= heartbeat;
    this.current = state;
    const same =
      before.state === state.state &&
      before.accepting === state.accepting &&
      before.readable.equals(state.readable);
    if (first || !same) this.onStateChange();
  }

  private rememberDurable(durableHead: number): void {
    const { memories } = this.options;
    if ((memories.get(this.peer)?.durableHead ?? 0) < durableHead)
      memories.update(this.peer, { durableHead });
  }

  private async answer(request: RequestBody): Promise<void> {
    try {
      this.link.send(await this.options.requests.answer(request));
    } catch (error) {
      this.options.logger.warn({ peer: this.peer, error }, 'a request of a peer failed');
      this.giveUp(error);
    }
  }

  private receive(cursor: number): LogReceiver {
    const {
      store,
      standing,
      hybridClock,
      topology,
      collected,
      onApplied,
      writes,
      rules,
      scheduler,
      metrics,
    } = this.options;
    return new LogReceiver({
      peer: this.peer,
      incarnation: this.incarnation,
      cursor,
      store,
      clock: hybridClock,
      tail: this.tail,
      holds: (partition) => topology.holds(partition),
      isReadable: (partition) => standing.isReadable(partition),
      collected,
      onApplied,
      writes,
      rules,
      scheduler,
      metrics,
      send: (ack) => void this.link.send({ $case: 'ack', value: ack }),
    });
  }

  private sendLog(hello: Hello): LogSender {
    const {
      store,
      ownLog,
      floor,
      identity,
      memories,
      pending,
      scheduler,
      settings,
      metrics,
      topology,
      isOutlived,
    } = this.options;
    const { incarnation } = identity;
    const held = hello.applied.find((cursor) => cursor.incarnation === incarnation)?.sequence;
    const after = held ?? identity.logBase;
    // A peer that lost data pulls all records anyway: its acknowledgements of new writes should not wait for history.
    const provisional = this.current.state === 'rebuilding' || after < floor.sequence;
    return new LogSender({
      peer: this.peer,
      store,
      ownLog,
      floor,
      incarnation,
      pending,
      scheduler,
      settings,
      metrics,
      holds: (partition) => topology.map !== undefined && holdsPartition(topology.map, this.peer, partition),
      isOutlived,
      // Synced entries only are in what the peer pulls; what is not yet synced must come on this stream.
      start: provisional ? { after: ownLog.durableHead, provisional } : { after, provisional },
      send: (entries) => this.link.send({ $case: 'entries', value: entries }),
      onAcknowledged: (sequence) => {
        // What is said of the log of an earlier incarnation counts for nothing.
        if (identity.incarnation !== incarnation) return;
        if ((memories.get(this.peer)?.acknowledged ?? 0) < sequence) {
          memories.update(this.peer, { acknowledged: sequence });
        }
      },
      onLost: (reason) => this.link.close(reason),
    });
  }

  /** Gives back what the peer sent before its own sync and then lost (unsynced-tail.ts). */
  private async returnTail(): Promise<void> {
    const { store, metrics, logger, horizonMs, topology, rules } = this.options;
    const entries = this.tail.toReturn;
    if (entries.length === 0 || !rules.returnLostTail) return;
    logger.info(
      { peer: this.peer, entries: entries.length },
      'giving entries back to a peer that had not synced them',
    );
    try {
      const lost = Map.groupBy(entries, ({ key }) => key.toString('latin1'));
      let batch: SentRecord[] = [];
      let named: NamedWrite[] = [];
      let bytes = 0;
      for (const [name, writes] of lost) {
        const key = Buffer.from(name, 'latin1');
        const record = store.latest(key);
        if (record !== undefined) {
          batch.push({ key, record, horizonMs: horizonMs(topology.partitionOf(key)) });
          const write = writes.find(({ version }) => compareVersions(version, record.version) === 0);
          if (write?.requestId !== undefined) named.push({ ...write, requestId: write.requestId });
        }
        bytes += record?.bytes.length ?? 0;
        if (batch.length < RETURNED_PER_FRAME && bytes < RETURNED_BYTES_PER_FRAME) continue;
        await this.remote.repair(batch, { returnedWrites: named });
        batch = [];
        named = [];
        bytes = 0;
      }
      if (batch.length > 0) await this.remote.repair(batch, { returnedWrites: named });
      this.tail.returned();
      metrics.count('returned_entries', lost.size);
    } catch (error) {
      // The next stream tries again.
      logger.warn({ peer: this.peer, error }, 'giving entries back failed');
    }
  }
}

/** How far a peer's log is durably applied; undefined when nothing of that incarnation ever was. */
export function cursorOn(store: Store, origin: string, incarnation: number): number | undefined {
  return store.cursors().find((cursor) => cursor.origin === origin && cursor.incarnation === incarnation)
    ?.sequence;
}
