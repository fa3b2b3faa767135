import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../common/random.ts';
import type { ProcessCluster } from '../support/process-cluster.ts';
import type { SupervisedNode } from '../support/supervised-node.ts';

/** Something bad that can be done to a cluster. */
interface FaultKind {
  readonly name: string;
  /** How often it is drawn, against the others. */
  readonly weight: number;
  /** Does it, waits, and takes it back; undefined: not possible now, and nothing was done. */
  begin(site: Site): Promise<(() => Promise<void>) | undefined>;
}

/** Where a fault happens: a node, and another one for those of the network. */
interface Site {
  readonly cluster: ProcessCluster;
  readonly node: SupervisedNode;
  readonly other: SupervisedNode;
  /** How long it lasts. */
  readonly durationMs: number;
  /** 0 to 1, for whatever else a fault has to choose. */
  readonly choice: number;
}

const kill: FaultKind = {
  name: 'kill -9',
  weight: 4,
  begin: async ({ node, durationMs }) => {
    await node.end('SIGKILL');
    return async () => {
      await delay(durationMs / 2);
      node.release();
    };
  },
};

const stop: FaultKind = {
  name: 'SIGTERM',
  weight: 1,
  begin: ({ node, durationMs }) =>
    Promise.resolve(async () => {
      await node.end('SIGTERM');
      await delay(durationMs / 4);
      node.release();
    }),
};

const pause: FaultKind = {
  name: 'SIGSTOP',
  weight: 3,
  begin: ({ node, durationMs }) => {
    node.signal('SIGSTOP');
    return Promise.resolve(async () => {
      await delay(durationMs);
      node.signal('SIGCONT');
    });
  },
};

const cut: FaultKind = network('cut', 3, ({ cluster, node, other }) =>
  cluster.mesh.sever(node.nodeId, other.nodeId),
);

const isolate: FaultKind = {
  name: 'isolate',
  weight: 3,
  begin: ({ cluster, node, durationMs, choice }) => {
    const others = cluster.nodes.filter((other) => other !== node).map(({ nodeId }) => nodeId);
    for (const other of others) {
      if (choice < 0.5) cluster.mesh.sever(node.nodeId, other);
      else {
        cluster.mesh.disturb(node.nodeId, other, { mode: 'stall' });
        cluster.mesh.disturb(other, node.nodeId, { mode: 'stall' });
      }
    }
    return Promise.resolve(async () => {
      await delay(durationMs);
      for (const other of others) cluster.mesh.heal(node.nodeId, other);
    });
  },
};

const slow: FaultKind = network('delay', 2, ({ cluster, node, other, choice }) => {
  const delayMs = 20 + choice * 1500;
  cluster.mesh.disturb(node.nodeId, other.nodeId, { delayMs });
  cluster.mesh.disturb(other.nodeId, node.nodeId, { delayMs });
});

const dropOneWay: FaultKind = network('drop one way', 2, ({ cluster, node, other }) =>
  cluster.mesh.disturb(node.nodeId, other.nodeId, { mode: 'drop' }),
);

const stallOneWay: FaultKind = network('stall one way', 2, ({ cluster, node, other }) =>
  cluster.mesh.disturb(node.nodeId, other.nodeId, { mode: 'stall' }),
);

const fullDisk: FaultKind = {
  name: 'full disk',
  weight: 2,
  begin: ({ cluster, node, durationMs }) => {
    const { volume } = cluster;
    if (volume === undefined || node !== cluster.nodes.at(-1)) return Promise.resolve(undefined);
    volume.fill();
    return Promise.resolve(async () => {
      await delay(durationMs);
      volume.free();
    });
  },
};

/** Only while all others are whole: what was acknowledged at QUORUM survives the loss of one disk at a time. */
const lostDisk: FaultKind = {
  name: 'lost disk',
  weight: 2,
  begin: async ({ cluster, node }) => {
    const others = cluster.nodes.filter((other) => other !== node);
    const whole = await Promise.all(others.map((other) => cluster.isWhole(other)));
    if (whole.includes(false)) return undefined;
    await node.end('SIGKILL');
    node.wipe();
    return () => {
      node.release();
      return Promise.resolve();
    };
  },
};

/** A disturbance between two nodes that ends by healing all that is between them. */
function network(name: string, weight: number, disturb: (site: Site) => void): FaultKind {
  return {
    name,
    weight,
    begin: (site) => {
      disturb(site);
      const { cluster, node, other, durationMs } = site;
      return Promise.resolve(async () => {
        await delay(durationMs);
        cluster.mesh.heal(node.nodeId, other.nodeId);
      });
    },
  };
}

const KINDS = [kill, stop, pause, cut, isolate, slow, dropOneWay, stallOneWay, fullDisk, lostDisk] as const;
const LONGEST_MS = 5000;
const LONGEST_GAP_MS = 2000;
const AT_ONCE = 2;

/** Draws faults and lets them happen, some at the same time, but at most one at a node. */
export class Chaos {
  /** How often each kind happened. */
  readonly happened = new Map<string, number>();
  private readonly cluster: ProcessCluster;
  private readonly random: Random;
  private readonly tell: (line: string) => void;
  /** Nodes that a fault is at, and nodes at the other end of a disturbed network. */
  private readonly disturbed = new Set<SupervisedNode>();
  private readonly underWay = new Set<Promise<void>>();
  /** Each kind once, before any comes twice. */
  private due: FaultKind[];

  constructor(cluster: ProcessCluster, random: Random, tell: (line: string) => void) {
    this.cluster = cluster;
    this.random = random;
    this.tell = tell;
    this.due = this.possible().toSorted(() => random.fraction() - 0.5);
  }

  /** Lets faults happen for a time; in the end all of them are over, and every node is up or on its way. */
  async run(durationMs: number): Promise<void> {
    const endMs = performance.now() + durationMs;
    try {
      while (performance.now() < endMs) {
        await this.begin();
        await delay(this.random.fraction() * LONGEST_GAP_MS);
        if (this.underWay.size >= AT_ONCE) await Promise.race(this.underWay);
      }
    } finally {
      await Promise.all(this.underWay);
    }
  }

  private possible(): FaultKind[] {
    return KINDS.filter((kind) => kind !== fullDisk || this.cluster.volume !== undefined);
  }

  private async begin(): Promise<void> {
    // Some are not possible at the moment, and must not keep back the others.
    const kind = (this.random.fraction() < 0.7 ? this.due.shift() : undefined) ?? this.draw();
    const free = this.cluster.nodes.filter((node) => !this.disturbed.has(node));
    const last = this.cluster.nodes.at(-1);
    const node = kind === fullDisk ? free.find((one) => one === last) : this.pick(free);
    const other = this.pick(this.cluster.nodes.filter((one) => one !== node));
    if (node === undefined || other === undefined) {
      this.later(kind);
      return;
    }
    const site = {
      cluster: this.cluster,
      node,
      other,
      durationMs: 300 + this.random.fraction() * (LONGEST_MS - 300),
      choice: this.random.fraction(),
    };
    this.disturbed.add(node);
    const end = await kind.begin(site);
    if (end === undefined) {
      this.disturbed.delete(node);
      this.later(kind);
      return;
    }
    this.happened.set(kind.name, (this.happened.get(kind.name) ?? 0) + 1);
    this.tell(`${kind.name}: ${node.nodeId}, ${other.nodeId}, ${Math.round(site.durationMs)} ms`);
    const done = end().finally(() => {
      this.disturbed.delete(node);
      this.underWay.delete(done);
    });
    this.underWay.add(done);
  }

  /** One that is still to come once, and cannot now, comes after the others. */
  private later(kind: FaultKind): void {
    if (!this.happened.has(kind.name)) this.due.push(kind);
  }

  private draw(): FaultKind {
    const kinds = this.possible();
    let dice = this.random.fraction() * kinds.reduce((sum, { weight }) => sum + weight, 0);
    for (const kind of kinds) {
      dice -= kind.weight;
      if (dice < 0) return kind;
    }
    return kill;
  }

  private pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random.fraction() * from.length)];
  }
}
