/** A binary heap: the smallest first. Vertex numbering as in Williams, "Algorithm 232: Heapsort" (1964). */
export class MergeHeap<T> {
  private readonly compare: (a: T, b: T) => number;
  private readonly items: T[] = [];

  constructor(compare: (a: T, b: T) => number) {
    this.compare = compare;
  }

  push(item: T): void {
    const { items } = this;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent];
      if (above === undefined || this.compare(above, item) <= 0) break;
      items[at] = above;
      at = parent;
    }
    items[at] = item;
  }

  /** The smallest item, taken out. */
  pop(): T | undefined {
    const { items } = this;
    const smallest = items[0];
    const last = items.pop();
    if (last !== undefined && items.length > 0) this.sink(last);
    return smallest;
  }

  private sink(item: T): void {
    const { items } = this;
    let at = 0;
    for (;;) {
      const child = this.smallerChild(at);
      const below = items[child];
      if (below === undefined || this.compare(item, below) <= 0) break;
      items[at] = below;
      at = child;
    }
    items[at] = item;
  }

  private smallerChild(at: number): number {
    const left = this.items[2 * at + 1];
    const right = this.items[2 * at + 2];
    return left !== undefined && right !== undefined && this.compare(right, left) < 0
      ? 2 * at + 2
      : 2 * at + 1;
  }
}
