import { type Direction, openDirection, TcpProxy } from './tcp-proxy.ts';

const HOST = '127.0.0.1';
/** Stands for a node that dials where the map says, and not where its own list of peers does. */
const ANYBODY = 'anybody';

/**
 * Proxies between the peer ports of nodes, one for each that dials and each that is dialled, so that the network between
 * any two can be disturbed, each way by itself. Ports stay the same while nodes come back on others.
 */
export class PeerMesh implements AsyncDisposable {
  private readonly nodeIds: readonly string[];
  private readonly proxies = new Map<string, TcpProxy>();
  private readonly directions = new Map<string, Direction>();
  private readonly cut = new Set<string>();
  private readonly targets = new Map<string, number>();

  private constructor(nodeIds: readonly string[]) {
    this.nodeIds = nodeIds;
  }

  static async open(nodeIds: readonly string[]): Promise<PeerMesh> {
    const mesh = new PeerMesh(nodeIds);
    for (const to of nodeIds) {
      for (const from of [...nodeIds, ANYBODY]) if (from !== to) await mesh.addProxy(from, to);
    }
    return mesh;
  }

  /** Where `from` reaches `to`; without `from`: for the map, where everybody does that was told nothing else. */
  port(to: string, from = ANYBODY): number {
    return this.proxy(from, to).port;
  }

  /** Value of a node's flag `--peers`. */
  peersFlag(nodeId: string): string {
    return this.nodeIds
      .filter((to) => to !== nodeId)
      .map((to) => `${to}=${HOST}:${this.port(to, nodeId)}`)
      .join(',');
  }

  /** Where a node's peer port really is; undefined: nowhere. */
  setTarget(nodeId: string, port: number | undefined): void {
    if (port === undefined) this.targets.delete(nodeId);
    else this.targets.set(nodeId, port);
  }

  /** Disturbs the bytes that go from one node to another, whoever dialled; in all other ways they stay as they are. */
  disturb(from: string, to: string, change: Partial<Direction>): void {
    Object.assign(this.direction(from, to), change);
    this.changed(from, to);
  }

  /** Ends the connections between two nodes and lets no new one be, until `heal`. */
  sever(a: string, b: string): void {
    this.cut.add(linkName(a, b));
    this.changed(a, b);
  }

  /** Nothing is wrong between the two any more. */
  heal(a: string, b: string): void {
    this.cut.delete(linkName(a, b));
    Object.assign(this.direction(a, b), openDirection());
    Object.assign(this.direction(b, a), openDirection());
    this.changed(a, b);
  }

  /** Nothing is wrong between any two any more. */
  healAll(): void {
    for (const a of this.nodeIds) for (const b of this.nodeIds) if (a < b) this.heal(a, b);
  }

  /** Ends all connections; nodes make them anew, to wherever the targets are now. */
  reconnect(): void {
    for (const proxy of this.proxies.values()) proxy.endConnections();
  }

  /** Bytes between two nodes so far, both ways. */
  passedBytes(a: string, b: string): number {
    return this.proxy(a, b).passedBytes + this.proxy(b, a).passedBytes;
  }

  /** Bytes of nodes that dialled where the map says: nothing here could disturb them by direction. */
  get undirectedBytes(): number {
    return this.nodeIds.reduce((sum, to) => sum + this.proxy(ANYBODY, to).passedBytes, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.proxies.values()].map((proxy) => proxy.close()));
  }

  private async addProxy(from: string, to: string): Promise<void> {
    const proxy = await TcpProxy.listen({
      host: HOST,
      target: () => this.targets.get(to),
      forward: this.direction(from, to),
      back: this.direction(to, from),
      connected: () => !this.cut.has(linkName(from, to)),
    });
    this.proxies.set(wayName(from, to), proxy);
  }

  private proxy(from: string, to: string): TcpProxy {
    const proxy = this.proxies.get(wayName(from, to));
    if (proxy === undefined) throw new Error(`there is no proxy from ${from} to ${to}`);
    return proxy;
  }

  private direction(from: string, to: string): Direction {
    let direction = this.directions.get(wayName(from, to));
    if (direction === undefined) this.directions.set(wayName(from, to), (direction = openDirection()));
    return direction;
  }

  private changed(a: string, b: string): void {
    this.proxy(a, b).changed();
    this.proxy(b, a).changed();
  }
}

function wayName(from: string, to: string): string {
  return `${from}>${to}`;
}

function linkName(a: string, b: string): string {
  return a < b ? wayName(a, b) : wayName(b, a);
}
