interface Edge {
  readonly to: number;
  readonly cost: number;
  room: number;
  /** Index of the edge back. */
  readonly back: number;
}

/**
 * Sends as much as possible from one vertex to another at the least cost, by shortest augmenting ways: slow and simple,
 * to check what cleverer code found.
 */
export class MinCostFlow {
  private readonly edges: Edge[] = [];
  private readonly leaving: number[][] = [];

  vertex(): number {
    return this.leaving.push([]) - 1;
  }

  /** @returns the edge, for `used` */
  edge(from: number, to: number, room: number, cost: number): number {
    const edge = this.edges.length;
    this.edges.push({ to, cost, room, back: edge + 1 }, { to: from, cost: -cost, room: 0, back: edge });
    this.leaving[from]!.push(edge);
    this.leaving[to]!.push(edge + 1);
    return edge;
  }

  /** How much flows over an edge. */
  used(edge: number): number {
    return this.edges[this.edges[edge]!.back]!.room;
  }

  /** @returns how much flows, all in all */
  run(source: number, sink: number): number {
    for (let flow = 0; ; flow += 1) {
      const way = this.cheapestWay(source, sink);
      if (way === undefined) return flow;
      for (const edge of way) {
        this.edges[edge]!.room -= 1;
        this.edges[this.edges[edge]!.back]!.room += 1;
      }
    }
  }

  private cheapestWay(source: number, sink: number): readonly number[] | undefined {
    const costs = this.leaving.map(() => Infinity);
    const arrivedBy = this.leaving.map(() => -1);
    const waiting = [source];
    const isWaiting = new Set(waiting);
    costs[source] = 0;
    for (let vertex = waiting.shift(); vertex !== undefined; vertex = waiting.shift()) {
      isWaiting.delete(vertex);
      for (const index of this.leaving[vertex]!) {
        const { to, cost, room } = this.edges[index]!;
        if (room === 0 || costs[vertex]! + cost >= costs[to]!) continue;
        costs[to] = costs[vertex]! + cost;
        arrivedBy[to] = index;
        if (!isWaiting.has(to)) waiting.push(to);
        isWaiting.add(to);
      }
    }
    if (costs[sink] === Infinity) return undefined;
    const way: number[] = [];
    for (let vertex = sink; vertex !== source;) {
      const edge = arrivedBy[vertex]!;
      way.push(edge);
      vertex = this.edges[this.edges[edge]!.back]!.to;
    }
    return way;
  }
}
