import {
  PeerFrame,
  PullRecordsRequest,
  RecordsChunk,
  WatchChunk,
  WatchPartitionsRequest,
} from '../../proto/gen/peer.ts';
import { abortReason, type Scheduler } from '../../common/clock.ts';
import type { Replica } from '../../node/replication/engine.ts';
import type {
  PeerAddress,
  PeerStream,
  PeerStreamHandlers,
  PeerTransport,
} from '../../node/replication/transport.ts';

/** What may be done to a frame on its way. */
export type FrameFilter = (frame: PeerFrame, from: string, to: string) => 'deliver' | 'hold';

interface Process {
  readonly name: string;
  readonly replica: Replica;
  alive: boolean;
}

/**
 * The network between replicas in one process: frames go through the real encoding and arrive in order, after a
 * latency. A cut holds what is under way, as TCP would, until it heals or somebody gives the stream up.
 */
export class MemoryNetwork {
  latencyMs = 1;
  /** Decides about each frame; `hold` keeps it and everything after it on its stream. */
  filter: FrameFilter = () => 'deliver';
  private readonly scheduler: Scheduler;
  private readonly processes = new Map<string, Process>();
  private readonly cuts = new Set<string>();
  private readonly connections = new Set<Connection>();
  private readonly watches = new Set<WatchCall>();

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
  }

  /** The replica answers under that name from now on. */
  attach(name: string, replica: Replica): void {
    this.processes.set(name, { name, replica, alive: true });
  }

  /** The process is gone: the other ends of its streams see them close. */
  detach(name: string): void {
    const process = this.processes.get(name);
    if (process !== undefined) process.alive = false;
    this.processes.delete(name);
    for (const connection of this.connections) connection.abandon(name);
    for (const { to, fail } of this.watches) {
      if (to === name) this.later(() => fail(new Error(`${name} is gone`)));
    }
  }

  /** Nothing passes between the two any more. */
  cut(a: string, b: string): void {
    this.cuts.add(`${a}>${b}`).add(`${b}>${a}`);
  }

  /** Cuts a node off from all others. */
  isolate(name: string, others: readonly string[]): void {
    for (const other of others) if (other !== name) this.cut(name, other);
  }

  /** Joins the two again; what was held between others stays held. */
  join(a: string, b: string): void {
    this.cuts.delete(`${a}>${b}`);
    this.cuts.delete(`${b}>${a}`);
    this.flush();
  }

  heal(): void {
    this.cuts.clear();
    this.flush();
  }

  /** Tries again to deliver what was held. */
  flush(): void {
    for (const connection of this.connections) connection.flush();
  }

  /** How the process of that name reaches others. */
  transport(name: string): PeerTransport {
    return {
      connect: (peer) => this.connect(name, peer),
      pullRecords: (peer, request, signal) => this.pull(name, peer, request, signal),
      watchPartitions: (peer, request, signal) => this.watch(name, peer.host, request, signal),
    };
  }

  passes(frame: PeerFrame, from: string, to: string): boolean {
    return !this.cuts.has(`${from}>${to}`) && this.filter(frame, from, to) === 'deliver';
  }

  later(task: () => void): void {
    this.scheduler.after(this.latencyMs, task);
  }

  forget(connection: Connection): void {
    this.connections.delete(connection);
  }

  isCut(from: string, to: string): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  private connect(from: string, peer: PeerAddress): PeerStream {
    const to = peer.host;
    const connection = new Connection(this, from, to);
    this.connections.add(connection);
    this.later(() => {
      const process = this.processes.get(to);
      if (this.isCut(from, to)) return; // A connection attempt into a cut hangs until somebody gives it up.
      if (process === undefined) connection.ends[0].fail(new Error(`nobody answers at ${to}`));
      else process.replica.acceptStream(connection.ends[1]);
      connection.flush();
    });
    return connection.ends[0];
  }

  private async *pull(
    from: string,
    peer: PeerAddress,
    request: PullRecordsRequest,
    signal: AbortSignal,
  ): AsyncIterable<RecordsChunk> {
    const to = peer.host;
    const reach = (): Process => {
      const process = this.processes.get(to);
      if (process === undefined || this.isCut(from, to)) throw new Error(`nobody answers at ${to}`);
      return process;
    };
    const process = reach();
    const wire = PullRecordsRequest.decode(PullRecordsRequest.encode(request).finish());
    for await (const chunk of process.replica.streamRecords(wire, signal)) {
      await new Promise<void>((resolve) => this.later(resolve));
      if (reach() !== process) throw new Error(`${to} was restarted`);
      yield RecordsChunk.decode(RecordsChunk.encode(chunk).finish());
    }
  }

  /** A cut holds what is under way, as TCP would; a process that is gone ends the call. */
  private async *watch(
    from: string,
    to: string,
    request: WatchPartitionsRequest,
    signal: AbortSignal,
  ): AsyncIterable<WatchChunk> {
    const process = this.processes.get(to);
    if (process === undefined) throw new Error(`nobody answers at ${to}`);
    const broken = Promise.withResolvers<never>();
    broken.promise.catch(() => undefined);
    const call: WatchCall = { to, fail: broken.reject };
    const onAbort = (): void => broken.reject(abortReason(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    this.watches.add(call);
    const ended = new AbortController();
    const passage = async (): Promise<void> => {
      do await Promise.race([new Promise<void>((resolve) => this.later(resolve)), broken.promise]);
      while (this.isCut(from, to) || this.isCut(to, from));
    };
    const wire = WatchPartitionsRequest.decode(WatchPartitionsRequest.encode(request).finish());
    const chunks = process.replica.watchPartitions(wire, ended.signal)[Symbol.asyncIterator]();
    try {
      await passage();
      for (;;) {
        const next: IteratorResult<WatchChunk, unknown> = await Promise.race([chunks.next(), broken.promise]);
        await passage();
        if (next.done === true) return;
        yield WatchChunk.decode(WatchChunk.encode(next.value).finish());
      }
    } finally {
      this.watches.delete(call);
      signal.removeEventListener('abort', onAbort);
      ended.abort(new Error('the caller has gone'));
      chunks.return?.().catch(() => undefined);
    }
  }
}

/** A call of WatchPartitions that is under way. */
interface WatchCall {
  readonly to: string;
  readonly fail: (error: Error) => void;
}

class Connection {
  readonly ends: readonly [MemoryStream, MemoryStream];
  private readonly network: MemoryNetwork;

  constructor(network: MemoryNetwork, from: string, to: string) {
    this.network = network;
    const first = new MemoryStream(network, from, to);
    const second = new MemoryStream(network, to, from);
    first.other = second;
    second.other = first;
    this.ends = [first, second];
  }

  /** One side's process is gone without having closed anything. */
  abandon(name: string): void {
    for (const end of this.ends) {
      if (end.owner !== name) continue;
      end.silence();
      this.network.later(() => end.other?.fail(new Error(`${name} is gone`)));
    }
  }

  flush(): void {
    for (const end of this.ends) end.flush();
  }
}

class MemoryStream implements PeerStream {
  readonly owner: string;
  other: MemoryStream | undefined;
  private readonly network: MemoryNetwork;
  private readonly peer: string;
  private readonly queue: Buffer[] = [];
  private handlers: PeerStreamHandlers | undefined;
  private closed = false;

  constructor(network: MemoryNetwork, owner: string, peer: string) {
    this.network = network;
    this.owner = owner;
    this.peer = peer;
  }

  send(frame: PeerFrame): boolean {
    if (this.closed) return false;
    this.queue.push(Buffer.from(PeerFrame.encode(frame).finish()));
    this.network.later(() => this.flush());
    return true;
  }

  handle(handlers: PeerStreamHandlers): void {
    this.handlers = handlers;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.handlers?.onClose(undefined);
    this.network.later(() => this.endOther());
  }

  /** The stream broke. */
  fail(reason: Error): void {
    if (this.closed) return;
    // Neither end of a cut hears from the other.
    if (this.network.isCut(this.peer, this.owner)) return;
    this.closed = true;
    this.handlers?.onClose(reason);
  }

  /** The process that had this end is gone. */
  silence(): void {
    this.closed = true;
    this.handlers = undefined;
    this.queue.length = 0;
  }

  /** Delivers what is waiting, in order, as far as it passes. */
  flush(): void {
    const target = this.other;
    while (target?.handlers !== undefined && this.queue.length > 0) {
      const bytes = this.queue[0];
      if (bytes === undefined) return;
      const frame = PeerFrame.decode(bytes);
      if (!this.network.passes(frame, this.owner, this.peer)) return;
      this.queue.shift();
      if (!target.closed) target.handlers.onFrame(frame);
    }
  }

  /** What was sent before the close still arrives. */
  private endOther(): void {
    this.flush();
    if (this.queue.length === 0 || this.other?.closed === true)
      this.other?.fail(new Error(`${this.owner} closed`));
  }
}
