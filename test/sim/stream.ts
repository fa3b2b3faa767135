import { PeerFrame } from '../../proto/gen/peer.ts';
import type { PeerStream, PeerStreamHandlers } from '../../node/replication/transport.ts';
import type { Link } from './link.ts';
import type { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';

/** What travels on a stream: frames, then its end. */
type Item = { readonly bytes: Buffer } | { readonly end: Error };

interface InFlight {
  readonly item: Item;
  readonly arrivesMs: number;
}

/** What a stream needs of the network it is in. */
export interface StreamContext {
  readonly time: SimTime;
  /** Bytes under way above which `send` says to wait. */
  readonly highWaterBytes: number;
  /** Told of each frame in the moment it is delivered. */
  readonly onDelivered: (frame: PeerFrame, bytes: Buffer, from: string, to: string) => void;
}

/** One direction of a stream: items arrive in order. */
class Direction {
  bytes = 0;
  private readonly time: SimTime;
  private readonly link: Link;
  private readonly arrive: (item: Item) => void;
  private queue: InFlight[] = [];
  private next = 0;
  private moving = false;
  /** Nothing that is sent arrives any more. */
  private lost = false;

  constructor(time: SimTime, link: Link, arrive: (item: Item) => void) {
    this.time = time;
    this.link = link;
    this.arrive = arrive;
  }

  send(item: Item): void {
    if (this.lost) return;
    if ('bytes' in item) this.bytes += item.bytes.length;
    this.queue.push({ item, arrivesMs: this.time.nowMs + this.link.passageMs() });
    this.move();
  }

  /** What is under way is lost, but for the first `kept` items; later ones as well. */
  lose(kept: number): void {
    this.queue = this.queue.slice(this.next, this.next + kept);
    this.next = 0;
    this.lost = true;
  }

  get underWay(): number {
    return this.queue.length - this.next;
  }

  /** What is under way takes so much longer. */
  delay(byMs: number): void {
    this.queue = this.queue.map(({ item, arrivesMs }) => ({ item, arrivesMs: arrivesMs + byMs }));
  }

  /** The end arrives behind what is under way, even when nothing else can be sent any more. */
  end(error: Error): void {
    this.lost = false;
    this.send({ end: error });
    this.lost = true;
  }

  /** Tells the other side at once that there is no such stream; what is under way may come before or after. */
  reset(tell: () => void): void {
    if (this.link.blocked) return;
    this.time.after(this.link.passageMs(), tell);
  }

  private move(): void {
    const head = this.queue[this.next];
    if (this.moving || head === undefined) return;
    this.moving = true;
    this.time.after(head.arrivesMs - this.time.nowMs, () => this.deliver());
  }

  private deliver(): void {
    this.moving = false;
    const head = this.queue[this.next];
    if (head === undefined) return;
    if (head.arrivesMs > this.time.nowMs) {
      this.move();
      return;
    }
    if (this.link.blocked) {
      this.moving = true;
      this.link.whenOpen(() => {
        this.time.after(this.link.retransmitMs(), () => this.deliver());
      });
      return;
    }
    this.next += 1;
    if (this.next === this.queue.length) {
      this.queue = [];
      this.next = 0;
    }
    if ('bytes' in head.item) this.bytes -= head.item.bytes.length;
    this.arrive(head.item);
    this.move();
  }
}

/** One end of a stream. */
export class SimStream implements PeerStream {
  readonly owner: string;
  readonly peer: string;
  other: SimStream | undefined;
  private readonly context: StreamContext;
  private readonly process: SimProcess;
  private readonly out: Direction;
  private handlers: PeerStreamHandlers | undefined;
  private endReason: { readonly error: Error | undefined } | undefined;
  /** What has arrived and not yet been taken by the process. */
  private readonly inbox: Item[] = [];
  /** What was sent before the stream stood. */
  private early: Buffer[] | undefined = [];
  private waitsForRoom = false;
  private ended = false;
  /** This end was told that the stream broke: its machine knows nothing of it any more. */
  private broke = false;

  constructor(
    context: StreamContext,
    ends: { owner: string; peer: string; process: SimProcess; link: Link },
  ) {
    this.context = context;
    this.owner = ends.owner;
    this.peer = ends.peer;
    this.process = ends.process;
    this.out = new Direction(context.time, ends.link, (item) => this.other?.arrived(item));
  }

  get closed(): boolean {
    return this.ended;
  }

  /** Frames sent from this end and not yet arrived. */
  get underWay(): number {
    return this.out.underWay;
  }

  send(frame: PeerFrame): boolean {
    if (this.ended || !this.process.alive) return false;
    const bytes = Buffer.from(PeerFrame.encode(frame).finish());
    if (this.early === undefined) this.out.send({ bytes });
    else this.early.push(bytes);
    this.waitsForRoom ||= this.out.bytes > this.context.highWaterBytes;
    return !this.waitsForRoom;
  }

  handle(handlers: PeerStreamHandlers): void {
    this.handlers = handlers;
    if (this.endReason !== undefined) handlers.onClose(this.endReason.error);
  }

  close(): void {
    if (this.ended) return;
    this.finish(undefined);
    this.out.end(new Error(`${this.owner} closed the stream`));
  }

  /** The stream stands: what was sent so far goes out. */
  stand(): void {
    const early = this.early ?? [];
    this.early = undefined;
    for (const bytes of early) this.out.send({ bytes });
  }

  /** This end's machine has reset the stream: of what it had sent only the first `kept` frames arrive. */
  reset(kept: number, error: Error, tellOther: boolean): void {
    this.out.lose(kept);
    if (tellOther) this.out.end(error);
  }

  /** This end hears that the stream broke; what it has sent still arrives. */
  fail(error: Error): void {
    this.broke = true;
    this.process.enter(() => this.finish(error));
  }

  /** What this end has sent and has not arrived takes so much longer. */
  delayUnderWay(byMs: number): void {
    this.out.delay(byMs);
  }

  /** This end's process is gone; the machine tells the other end or not. */
  abandon(kept: number, tellOther: boolean): void {
    if (this.ended) return;
    this.ended = true;
    this.reset(kept, new Error(`${this.owner} is gone`), tellOther);
  }

  private arrived(item: Item): void {
    if (this.broke) {
      this.out.reset(() => this.other?.fail(new Error(`${this.owner} reset the stream`)));
      return;
    }
    // In order of arrival, however long the process takes.
    this.inbox.push(item);
    this.process.enter(() => this.take());
    this.other?.makeRoom();
  }

  private take(): void {
    const item = this.inbox.shift();
    if (item === undefined || this.ended) return;
    if ('end' in item) {
      this.finish(item.end);
      return;
    }
    const frame = PeerFrame.decode(item.bytes);
    this.context.onDelivered(frame, item.bytes, this.peer, this.owner);
    this.handlers?.onFrame(frame);
  }

  private makeRoom(): void {
    if (!this.waitsForRoom || this.out.bytes > this.context.highWaterBytes / 4) return;
    this.waitsForRoom = false;
    this.process.enter(() => {
      if (!this.ended) this.handlers?.onDrain();
    });
  }

  private finish(error: Error | undefined): void {
    if (this.ended) return;
    this.ended = true;
    this.endReason = { error };
    this.handlers?.onClose(error);
  }
}
