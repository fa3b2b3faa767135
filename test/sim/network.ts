import { KvError } from '../../common/errors.ts';
import {
  type PeerFrame,
  PullRecordsRequest,
  RecordsChunk,
  WatchChunk,
  WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import type { Replica } from '../../node/replication/engine.ts';
import type { PeerAddress, PeerStream, PeerTransport } from '../../node/replication/transport.ts';
import type { Dice } from './dice.ts';
import { Link } from './link.ts';
import type { SimProcess } from './process.ts';
import { RemoteCall } from './remote-call.ts';
import { SimStream, type StreamContext } from './stream.ts';
import type { SimTime } from './time.ts';

/** A replica that can be reached under its name. */
export interface Host {
  readonly name: string;
  readonly process: SimProcess;
  readonly replica: Replica;
  /** Of the machine. */
  readonly monotonicMs: () => number;
}

/** A call whose answer comes in parts, each of them through the real encoding. */
interface StreamedCall<Chunk> {
  readonly begin: (replica: Replica, ended: AbortSignal) => AsyncIterable<Chunk>;
  readonly codec: {
    encode(chunk: Chunk): { finish(): Uint8Array };
    decode(bytes: Uint8Array): Chunk;
  };
  readonly signal: AbortSignal;
}

/** Who makes a request, and how long it waits for the answer. */
export interface Caller {
  readonly name: string;
  readonly process: SimProcess;
  readonly timeoutMs: number;
}

/** No answer came back: the request never reached anybody (`not-sent`), or nobody knows. */
export class CallLost extends Error {
  override readonly name = 'CallLost';
  readonly stage: 'not-sent' | 'lost';

  constructor(stage: 'not-sent' | 'lost') {
    super(stage === 'lost' ? 'no answer came back' : 'nobody was there');
    this.stage = stage;
  }
}

interface WaitingRequest {
  host: Host | undefined;
  readonly lost: () => void;
}

export interface NetworkOptions {
  readonly time: SimTime;
  readonly dice: Dice;
  /** What a passage takes, milliseconds, plus up to `jitterMs`. */
  readonly baseMs: number;
  readonly jitterMs: number;
  /** How long an attempt to connect goes on, milliseconds. */
  readonly connectTimeoutMs: number;
  readonly highWaterBytes: number;
  readonly onDelivered: (frame: PeerFrame, bytes: Buffer, from: string, to: string) => void;
}

/** The network between all machines: the real encoding, streams in order, and whatever may befall them. */
export class SimNetwork {
  private readonly options: NetworkOptions;
  private readonly context: StreamContext;
  private readonly links = new Map<string, Link>();
  private readonly hosts = new Map<string, Host>();
  /** Pairs of ends of which one at least is open. */
  private streams: SimStream[] = [];
  private readonly calls = new Set<RemoteCall>();
  private readonly requests = new Set<WaitingRequest>();

  constructor(options: NetworkOptions) {
    this.options = options;
    this.context = options;
  }

  link(from: string, to: string): Link {
    const name = `${from}>${to}`;
    let link = this.links.get(name);
    if (link === undefined) this.links.set(name, (link = new Link(this.options.dice.fork(), this.options)));
    return link;
  }

  host(name: string): Host | undefined {
    return this.hosts.get(name);
  }

  /** The replica answers under that name from now on. */
  attach(host: Host): void {
    this.hosts.set(host.name, host);
  }

  /**
   * The process of that name is gone. A machine that goes on ends the streams behind what was sent; one that lost power
   * loses what was under way, and may leave the other ends to find out.
   */
  detach(name: string, how: 'killed' | 'power-cut'): void {
    this.hosts.delete(name);
    const { dice } = this.options;
    for (const end of this.streams) {
      if (end.owner !== name || end.closed) continue;
      if (how === 'killed') end.abandon(Infinity, true);
      else end.abandon(dice.below(end.underWay + 1), dice.chance(0.5));
    }
    for (const call of this.calls) call.lostProcess(name);
    for (const request of this.requests) {
      if (request.host?.name === name) this.options.time.after(this.options.baseMs, request.lost);
    }
    this.tidy();
  }

  /** How the process of that name reaches others. */
  transport(name: string, process: SimProcess): PeerTransport {
    return {
      connect: (peer) => this.connect(name, process, peer),
      pullRecords: (peer, request, signal) => {
        const wire = PullRecordsRequest.decode(PullRecordsRequest.encode(request).finish());
        const begin = (replica: Replica, ended: AbortSignal): AsyncIterable<RecordsChunk> =>
          replica.streamRecords(wire, ended);
        return this.call(name, process, peer.host, { begin, codec: RecordsChunk, signal });
      },
      watchPartitions: (peer, request, signal) => {
        const wire = WatchPartitionsRequest.decode(WatchPartitionsRequest.encode(request).finish());
        const begin = (replica: Replica, ended: AbortSignal): AsyncIterable<WatchChunk> =>
          replica.watchPartitions(wire, ended);
        return this.call(name, process, peer.host, { begin, codec: WatchChunk, signal });
      },
    };
  }

  /**
   * One request and its answer. Rejects with what the action rejected with, or with CallLost when the answer did not
   * come back.
   */
  request<T>(caller: Caller, to: string, action: (host: Host) => Promise<T>): Promise<T> {
    const { time } = this.options;
    const there = this.link(caller.name, to);
    const back = this.link(to, caller.name);
    return new Promise((resolve, reject) => {
      const lost = (stage: CallLost['stage']): void => {
        this.requests.delete(waiting);
        caller.process.enter(() => reject(new CallLost(stage)));
      };
      const timer = caller.process.after(caller.timeoutMs, () => lost('lost'));
      const answer = (give: () => void): void => {
        if (waiting.host?.process.alive !== true) return;
        time.after(back.passageMs(), () => {
          if (back.blocked) return; // The caller gives up in time.
          timer.cancel();
          this.requests.delete(waiting);
          caller.process.enter(give);
        });
      };
      const waiting: WaitingRequest = { host: undefined, lost: () => lost('lost') };
      time.after(there.passageMs(), () => {
        if (there.blocked) return;
        const host = this.hosts.get(to);
        if (host === undefined) {
          timer.cancel();
          time.after(back.passageMs(), () => lost('not-sent'));
          return;
        }
        waiting.host = host;
        this.requests.add(waiting);
        host.process.enter(() => {
          action(host).then(
            (value) => answer(() => resolve(value)),
            (error: unknown) =>
              answer(() => reject(error instanceof Error ? error : new Error(String(error)))),
          );
        });
      });
    });
  }

  /** Ends of streams that are open now. */
  openStreams(): readonly SimStream[] {
    this.tidy();
    return this.streams.filter((end) => !end.closed);
  }

  /** Breaks the stream that `end` belongs to: each direction keeps its first frames, each end hears of it or not. */
  breakStream(
    end: SimStream,
    how: { keptFrom: number; keptTo: number; tellOwner: boolean; tellPeer: boolean },
  ): void {
    const error = new Error('the stream broke');
    const { other } = end;
    end.reset(how.keptFrom, error, how.tellPeer);
    other?.reset(how.keptTo, error, how.tellOwner);
  }

  /** Ends record streams between two processes. */
  breakCalls(a: string, b: string): void {
    for (const call of this.calls) if (call.isBetween(a, b)) call.fail(new Error('the call broke'));
  }

  private connect(from: string, process: SimProcess, peer: PeerAddress): PeerStream {
    const to = peer.host;
    const { time, connectTimeoutMs } = this.options;
    const dialed = new SimStream(this.context, { owner: from, peer: to, process, link: this.link(from, to) });
    this.streams.push(dialed);
    const there = this.link(from, to);
    const back = this.link(to, from);
    const giveUpMs = time.nowMs + connectTimeoutMs;
    const attempt = (): void => {
      if (dialed.closed || !process.alive) return;
      if (there.blocked || back.blocked) {
        if (time.nowMs >= giveUpMs) dialed.fail(new KvError('UNAVAILABLE', `${to} does not answer`));
        else time.after(connectTimeoutMs / 4, attempt);
        return;
      }
      const host = this.hosts.get(to);
      if (host === undefined) {
        time.after(back.passageMs(), () => dialed.fail(new KvError('UNAVAILABLE', `${to} refuses`)));
        return;
      }
      const answering = new SimStream(this.context, {
        owner: to,
        peer: from,
        process: host.process,
        link: back,
      });
      dialed.other = answering;
      answering.other = dialed;
      answering.stand();
      this.streams.push(answering);
      host.process.enter(() => host.replica.acceptStream(answering));
      time.after(back.passageMs(), () => dialed.stand());
    };
    time.after(there.passageMs(), attempt);
    return dialed;
  }

  private async *call<Chunk>(
    from: string,
    process: SimProcess,
    to: string,
    { begin, codec, signal }: StreamedCall<Chunk>,
  ): AsyncGenerator<Chunk, void, undefined> {
    const { time, connectTimeoutMs } = this.options;
    const call = new RemoteCall({
      time,
      local: { name: from, process },
      remote: { name: to, find: () => this.hosts.get(to) },
      there: this.link(from, to),
      back: this.link(to, from),
      timeoutMs: connectTimeoutMs,
    });
    this.calls.add(call);
    const onAbort = (): void => call.fail(new KvError('ABORTED', 'given up'));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const chunks = await call.begin((host, ended) => begin(host.replica, ended));
      for (;;) {
        const next = await call.next(chunks);
        if (next === undefined) return;
        yield codec.decode(codec.encode(next).finish());
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      call.close();
      this.calls.delete(call);
    }
  }

  private tidy(): void {
    this.streams = this.streams.filter((end) => !end.closed);
  }
}
