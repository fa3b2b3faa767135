import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/**
 * What happens to the bytes that go one way between two nodes. `stall`: they wait, as on a network that loses every
 * packet and whose senders repeat them; `drop`: they are taken and thrown away, and the connection ends when the drop
 * does, for nobody could make sense of what follows.
 */
export interface Direction {
  mode: 'open' | 'stall' | 'drop';
  delayMs: number;
}

/** A direction on which nothing is wrong. */
export function openDirection(): Direction {
  return { mode: 'open', delayMs: 0 };
}

export interface TcpProxyOptions {
  readonly host: string;
  /** Port of the server behind it; undefined: it is not there, and connections are closed. */
  readonly target: () => number | undefined;
  /** Of bytes to the server, and back. Looked at for every piece; call `changed` after changing them. */
  readonly forward: Direction;
  readonly back: Direction;
  /** Whether connections may be there at all. */
  readonly connected: () => boolean;
}

/** Bytes of one direction that may wait for their time before the sender is held back. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** A TCP proxy on a port of its own, whose connections can be cut, stalled, delayed and made to lose bytes. */
export class TcpProxy {
  private readonly options: TcpProxyOptions;
  private readonly server: Server;
  private readonly connections = new Set<ProxiedConnection>();
  /** Bytes that have passed it, both ways. */
  passedBytes = 0;

  private constructor(options: TcpProxyOptions) {
    this.options = options;
    this.server = createServer((client) => this.accept(client));
  }

  static async listen(options: TcpProxyOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.server.once('error', reject);
      proxy.server.listen(0, options.host, resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Applies what was changed about the directions, and about being connected, to the connections there are. */
  changed(): void {
    for (const connection of this.connections) {
      if (this.options.connected()) connection.changed();
      else connection.end();
    }
  }

  endConnections(): void {
    for (const connection of this.connections) connection.end();
  }

  /** Ends every connection, and takes no new one. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.endConnections();
    await closed;
  }

  private accept(client: Socket): void {
    const port = this.options.target();
    if (port === undefined || !this.options.connected()) {
      client.destroy();
      return;
    }
    const server = connect({ host: this.options.host, port });
    const onPassed = (bytes: number): void => void (this.passedBytes += bytes);
    const connection = new ProxiedConnection(
      [
        new Pipe(client, server, this.options.forward, onPassed),
        new Pipe(server, client, this.options.back, onPassed),
      ],
      () => this.connections.delete(connection),
    );
    this.connections.add(connection);
  }
}

class ProxiedConnection {
  private readonly pipes: readonly [Pipe, Pipe];
  private readonly onEnd: () => void;

  constructor(pipes: readonly [Pipe, Pipe], onEnd: () => void) {
    this.pipes = pipes;
    this.onEnd = onEnd;
    for (const { from } of pipes) {
      from.setNoDelay(true);
      // The end of one side is the end of both, as if the network had gone; what is under way is lost.
      from.on('error', () => this.end());
      from.on('close', () => this.end());
    }
  }

  changed(): void {
    for (const pipe of this.pipes) {
      if (pipe.hasLost && pipe.direction.mode !== 'drop') this.end();
      else pipe.changed();
    }
  }

  end(): void {
    for (const pipe of this.pipes) pipe.end();
    this.onEnd();
  }
}

/** One way of a connection. */
class Pipe {
  readonly from: Socket;
  readonly direction: Direction;
  /** Whether it has thrown bytes away. */
  hasLost = false;
  private readonly to: Socket;
  private readonly onPassed: (bytes: number) => void;
  private readonly waiting: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  private waitingBytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket, direction: Direction, onPassed: (bytes: number) => void) {
    this.from = from;
    this.to = to;
    this.direction = direction;
    this.onPassed = onPassed;
    from.on('data', (bytes: Buffer) => this.received(bytes));
    to.on('drain', () => this.changed());
  }

  changed(): void {
    this.deliver();
    if (this.mayReceive()) this.from.resume();
    else this.from.pause();
  }

  end(): void {
    clearTimeout(this.timer);
    this.waiting.length = 0;
    this.from.destroy();
  }

  private received(bytes: Buffer): void {
    if (this.direction.mode === 'drop') {
      this.hasLost = true;
      return;
    }
    this.waiting.push({ bytes, dueMs: performance.now() + this.direction.delayMs });
    this.waitingBytes += bytes.length;
    this.changed();
  }

  private mayReceive(): boolean {
    return (
      this.direction.mode !== 'stall' && this.waitingBytes < MAX_WAITING_BYTES && !this.to.writableNeedDrain
    );
  }

  private deliver(): void {
    clearTimeout(this.timer);
    if (this.direction.mode === 'stall' || this.to.destroyed) return;
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      const leftMs = next.dueMs - performance.now();
      if (leftMs > 0) {
        this.timer = setTimeout(() => this.changed(), leftMs);
        return;
      }
      this.waiting.shift();
      this.waitingBytes -= next.bytes.length;
      this.onPassed(next.bytes.length);
      this.to.write(next.bytes);
    }
  }
}
