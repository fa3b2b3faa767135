import { mapToProto } from '../../client/cluster-map-codec.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import {
  type Hello,
  PeerFrame,
  type PeerHeader,
  type Refusal,
  Refusal_Reason,
} from '../../proto/gen/peer.ts';
import { problemWithFrame, problemWithHeader } from './frame-validation.ts';
import type { PeerStream } from './transport.ts';

/** Frames that wait for a map or for the end of a handshake: a sound peer sends fewer, its window is full before. */
const MOST_HELD = 4096;
const MOST_HELD_BYTES = 32 * 1024 * 1024;
const LONGEST_HOLD_MS = 30_000;

/** What a frame carries after the handshake. */
export type FrameBody = Exclude<NonNullable<PeerFrame['body']>, { $case: 'hello' } | { $case: 'refusal' }>;

/** What a link needs to know of the node it belongs to; read at every frame. */
export interface LinkSelf {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly epoch: number;
  readonly incarnation: number;
}

/** Who a link reports to. */
export interface LinkEvents {
  onHello(link: PeerLink, header: PeerHeader, hello: Hello): void;
  onBody(link: PeerLink, body: FrameBody, header: PeerHeader): void;
  onRefusal(refusal: Refusal, header: PeerHeader): void;
  onDrain(link: PeerLink): void;
  onClosed(link: PeerLink, reason: Error | undefined): void;
}

export interface LinkOptions {
  readonly stream: PeerStream;
  readonly self: LinkSelf;
  readonly events: LinkEvents;
  /** Whom this node has dialed; undefined on the answering end, which learns it from the Hello. */
  readonly dialed: string | undefined;
  readonly now: () => number;
  /** Number of hash partitions. */
  readonly partitions: number;
  /** Told of a frame that no sound peer sends. */
  readonly onBadFrame: (problem: string) => void;
}

/**
 * One stream to a peer: puts the header on what goes out, checks it on what comes in, and closes with a Refusal that
 * says why when it does not fit. Knows nothing of what frames mean.
 */
export class PeerLink {
  /** Monotonic time of the last frame. */
  heardAtMs: number;
  private readonly options: LinkOptions;
  private peerId: string;
  private peerHello: { readonly header: PeerHeader; readonly hello: Hello } | undefined;
  private held: PeerFrame[] | undefined;
  private heldSinceMs = 0;
  private heldBytes = 0;
  private isClosed = false;
  private announcedEpoch = 0;

  constructor(options: LinkOptions) {
    this.options = options;
    this.peerId = options.dialed ?? '';
    this.heardAtMs = options.now();
    options.stream.handle({
      onFrame: (frame) => this.receive(frame),
      onDrain: () => {
        if (!this.isClosed) options.events.onDrain(this);
      },
      onClose: (reason) => this.finish(reason),
    });
  }

  /** Name of the peer; empty on the answering end before its Hello. */
  get peer(): string {
    return this.peerId;
  }

  /** Whether this node opened the stream. */
  get dialed(): boolean {
    return this.options.dialed !== undefined;
  }

  /** Incarnation that the peer's Hello gave; 0 before it. */
  get peerIncarnation(): number {
    return this.peerHello?.header.senderIncarnation ?? 0;
  }

  get hello(): Hello | undefined {
    return this.peerHello?.hello;
  }

  get closed(): boolean {
    return this.isClosed;
  }

  /** False when the stream's buffer is full: wait for `onDrain` before sending data again. */
  send(body: NonNullable<PeerFrame['body']>): boolean {
    if (this.isClosed) return false;
    const { stream, self } = this.options;
    return stream.send({
      header: {
        clusterId: self.clusterId,
        epoch: self.epoch,
        sender: self.nodeId,
        senderIncarnation: self.incarnation,
        recipient: this.peerId,
      },
      body,
    });
  }

  /** Tells the peer why, and ends the stream. */
  refuse(reason: Refusal_Reason, message: string, map?: ClusterMap): void {
    this.send({
      $case: 'refusal',
      value: { reason, message, map: map === undefined ? undefined : mapToProto(map) },
    });
    this.close(new Error(message));
  }

  close(reason?: Error): void {
    if (this.isClosed) return;
    this.options.stream.close();
    this.finish(reason);
  }

  /** Newest epoch that the peer has announced; 0 before its Hello. */
  get peerEpoch(): number {
    return this.announcedEpoch;
  }

  /** Keeps frames back until `release`, from `first` on, so that what the Hello led to can become durable first. */
  hold(first?: PeerFrame): void {
    if (this.held === undefined) {
      this.heldSinceMs = this.options.now();
      this.heldBytes = 0;
    }
    this.held ??= [];
    if (first !== undefined) this.keep(first);
  }

  release(): void {
    const held = this.held ?? [];
    this.held = undefined;
    for (const frame of held) {
      // One that must wait on holds back everything after it.
      if (this.holds) this.hold(frame);
      else this.handle(frame);
    }
  }

  private get holds(): boolean {
    return this.held !== undefined;
  }

  private receive(frame: PeerFrame): void {
    this.heardAtMs = this.options.now();
    // A map is what frames of a newer epoch wait for.
    if (this.held === undefined || frame.body?.$case === 'map') this.handle(frame);
    else this.keep(frame);
  }

  /** What a peer sends without being heard is bounded, and so is the time until it is heard. */
  private keep(frame: PeerFrame): void {
    const { held } = this;
    if (held === undefined) return;
    held.push(frame);
    this.heldBytes += PeerFrame.encode(frame).finish().length;
    const inTime = this.options.now() - this.heldSinceMs <= LONGEST_HOLD_MS;
    if (inTime && held.length <= MOST_HELD && this.heldBytes <= MOST_HELD_BYTES) return;
    this.refuse(Refusal_Reason.BAD_FRAME, 'too much was sent before it could be handled');
  }

  /**
   * What a peer says under a newer map counts only when this node has that map as well: the peer sends it first
   * (PROTOCOL 20). So an answer is never judged by an older map than the one it was given under.
   */
  private mustWait(header: PeerHeader, body: NonNullable<PeerFrame['body']>): boolean {
    if (body.$case === 'map' || body.$case === 'hello' || body.$case === 'refusal') return false;
    return header.epoch > this.options.self.epoch;
  }

  private handle(frame: PeerFrame): void {
    if (this.isClosed) return;
    const { header, body } = frame;
    if (header === undefined || body === undefined) {
      this.refuse(Refusal_Reason.BAD_FRAME, 'a frame needs a header and a body that this version knows');
      return;
    }
    const { partitions, onBadFrame } = this.options;
    const problem = problemWithHeader(header) ?? problemWithFrame(body, { partitions });
    if (problem !== undefined) {
      onBadFrame(problem);
      this.refuse(Refusal_Reason.BAD_FRAME, problem);
      return;
    }
    if (this.mustWait(header, body)) {
      this.hold(frame);
      return;
    }
    this.announcedEpoch = Math.max(this.announcedEpoch, header.epoch);
    if (this.peerId === '') this.peerId = header.sender;
    // Who was not addressed by this node has nothing to refuse.
    if (body.$case === 'refusal' && !this.dialed && this.peerHello === undefined) {
      this.refuse(Refusal_Reason.BAD_FRAME, 'a stream begins with a Hello');
    } else if (body.$case === 'refusal') {
      this.options.events.onRefusal(body.value, header);
      this.close(new Error(`refused by ${header.sender}: ${body.value.message}`));
    } else if (body.$case === 'hello') {
      this.handleHello(header, body.value);
    } else {
      this.handleBody(header, body);
    }
  }

  private handleHello(header: PeerHeader, hello: Hello): void {
    if (this.peerHello !== undefined) {
      this.refuse(Refusal_Reason.BAD_FRAME, 'a stream has one Hello from each side');
    } else if (header.sender !== this.peerId) {
      this.refuse(Refusal_Reason.WRONG_RECIPIENT, `I dialed ${this.peerId}, and ${header.sender} answered`);
    } else {
      this.peerHello = { header, hello };
      this.options.events.onHello(this, header, hello);
    }
  }

  private handleBody(header: PeerHeader, body: FrameBody): void {
    const { self, events } = this.options;
    const expected = this.peerHello?.header;
    if (expected === undefined) {
      this.refuse(Refusal_Reason.BAD_FRAME, 'a stream begins with a Hello');
    } else if (header.recipient !== self.nodeId) {
      this.refuse(Refusal_Reason.WRONG_RECIPIENT, `this is ${self.nodeId}, not ${header.recipient}`);
    } else if (header.clusterId !== self.clusterId && self.clusterId !== '') {
      this.refuse(Refusal_Reason.WRONG_CLUSTER, `this node belongs to cluster ${self.clusterId}`);
    } else if (header.sender !== expected.sender || header.senderIncarnation !== expected.senderIncarnation) {
      this.refuse(Refusal_Reason.BAD_FRAME, 'the sender is not the one of the Hello');
    } else {
      events.onBody(this, body, header);
    }
  }

  private finish(reason: Error | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.options.events.onClosed(this, reason);
  }
}
