import type { Clock, Scheduler, Timer } from '../common/clock.ts';
import type { ClusterMap, Member } from '../model/cluster-map.ts';
import { partitionOf } from '../model/key-hash.ts';
import { replicaSets } from '../model/replica-sets.ts';
import type { Endpoint } from './endpoint.ts';

export interface RouterOptions {
  /** Always there, whether their addresses are a node's or a Service's. */
  readonly seeds: readonly Endpoint[];
  /** Where to start among the seeds. */
  readonly firstSeed: number;
  readonly openEndpoint: (address: string) => Endpoint;
  /** `host:port` of a member as this client reaches it; undefined: it does not. */
  readonly addressOf: (member: Member, map: ClusterMap) => string | undefined;
  /** Asks the cluster for its map. */
  readonly fetchMap: () => Promise<ClusterMap | undefined>;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** What an operation wants of a node. */
export interface Route {
  readonly key: Buffer;
  /** Reads may be served by any replica. */
  readonly isRead: boolean;
}

/** An endpoint that failed, or asked its clients to go, is used again after this long, milliseconds. */
const AVOID_MS = 1000;
/** How often the map is asked for without a reason, and members that are not connected are dialled again, milliseconds. */
const REFRESH_MS = 10_000;
/** Operations that a replica may have waiting more than another one before reads go to that one. */
const LOAD_DIFFERENCE = 256;

/**
 * Decides which node an operation goes to: the preferred replica of its key while it is connected, another replica, any
 * member, and a seed where no member's address is of use (a forwarded port, a load balancer): every node sends on what is
 * not its own. Members are connected to in the background, and nothing ever waits for them.
 */
export class Router {
  private readonly options: RouterOptions;
  private readonly avoidedUntilMs = new Map<Endpoint, number>();
  /** By address; those of the seeds among them. */
  private readonly endpoints = new Map<string, Endpoint>();
  private map: ClusterMap | undefined;
  /** By node id, of the present map. */
  private members = new Map<string, Endpoint>();
  private preferredSeed: number;
  private fetching: Promise<void> | undefined;
  private timer: Timer | undefined;
  private closed = false;

  constructor(options: RouterOptions) {
    this.options = options;
    this.preferredSeed = options.firstSeed;
    for (const seed of options.seeds) this.endpoints.set(seed.address, seed);
  }

  /** Begins to follow the cluster map. */
  follow(): void {
    if (this.closed || this.timer !== undefined) return;
    const turn = (): void => {
      this.timer = this.options.scheduler.after(REFRESH_MS, turn);
      for (const endpoint of this.members.values()) endpoint.dial();
      this.refresh();
    };
    turn();
  }

  /** Whether there is more than one endpoint. */
  get hasAlternatives(): boolean {
    return this.endpoints.size > 1;
  }

  /** A node has a map of this epoch. */
  noteEpoch(epoch: number): void {
    if (this.timer !== undefined && epoch > (this.map?.epoch ?? 0)) this.refresh();
  }

  /** The best endpoint that was not tried; undefined when all were. */
  choose(route: Route | undefined, tried: ReadonlySet<Endpoint>): Endpoint | undefined {
    const replica = route === undefined ? undefined : this.replicaFor(route, tried);
    if (replica !== undefined) return replica;
    const { seeds } = this.options;
    const inTurn = seeds.map((_, index) => seeds[(this.preferredSeed + index) % seeds.length]);
    const untried = [...inTurn, ...this.members.values()].filter(
      (endpoint): endpoint is Endpoint => endpoint !== undefined && !tried.has(endpoint),
    );
    const now = this.options.clock.monotonicMs();
    return (
      untried.find((endpoint) => endpoint.isConnected && !this.isAvoided(endpoint, now)) ??
      // Seeds may be anything, and are dialled when they are needed; a member that is not connected may never be.
      untried.find((endpoint) => seeds.includes(endpoint) && !this.isAvoided(endpoint, now)) ??
      untried.find((endpoint) => seeds.includes(endpoint) || endpoint.isConnected)
    );
  }

  /** It did not answer, or wants to be left alone. */
  avoid(endpoint: Endpoint): void {
    this.avoidedUntilMs.set(endpoint, this.options.clock.monotonicMs() + AVOID_MS);
    const { seeds } = this.options;
    if (seeds[this.preferredSeed] === endpoint) this.preferredSeed = (this.preferredSeed + 1) % seeds.length;
  }

  /** Idempotent. */
  close(): void {
    this.closed = true;
    this.timer?.cancel();
    for (const endpoint of this.endpoints.values()) endpoint.close();
  }

  private replicaFor({ key, isRead }: Route, tried: ReadonlySet<Endpoint>): Endpoint | undefined {
    const { map } = this;
    if (map === undefined || map.assignment.length === 0) return undefined;
    const { read } = replicaSets(map, partitionOf(key, map.assignment.length));
    const now = this.avoidedUntilMs.size === 0 ? 0 : this.options.clock.monotonicMs();
    let chosen: Endpoint | undefined;
    for (const nodeId of read) {
      const endpoint = this.members.get(nodeId);
      if (endpoint?.isConnected !== true || tried.has(endpoint) || this.isAvoided(endpoint, now)) continue;
      if (chosen === undefined) chosen = endpoint;
      else if (isRead && endpoint.load + LOAD_DIFFERENCE < chosen.load) chosen = endpoint;
      if (!isRead) break;
    }
    return chosen;
  }

  private isAvoided(endpoint: Endpoint, now: number): boolean {
    const untilMs = this.avoidedUntilMs.get(endpoint);
    if (untilMs === undefined) return false;
    if (untilMs > now) return true;
    this.avoidedUntilMs.delete(endpoint);
    return false;
  }

  private refresh(): void {
    if (this.closed || this.fetching !== undefined) return;
    this.fetching = this.options
      .fetchMap()
      .then((map) => {
        if (map !== undefined && !this.closed) this.adopt(map);
      })
      .catch(() => undefined) // It is asked for again, and without it the seeds serve.
      .finally(() => {
        this.fetching = undefined;
      });
  }

  private adopt(map: ClusterMap): void {
    // Behind one address another cluster may have come; of one cluster, maps only grow newer.
    if (this.map?.clusterId === map.clusterId && this.map.epoch >= map.epoch) return;
    const { openEndpoint, addressOf, seeds } = this.options;
    const members = new Map<string, Endpoint>();
    for (const member of map.members) {
      const address = addressOf(member, map);
      if (address === undefined) continue;
      const endpoint = this.endpoints.get(address) ?? openEndpoint(address);
      this.endpoints.set(address, endpoint);
      members.set(member.nodeId, endpoint);
      endpoint.dial();
    }
    const used = new Set([...seeds, ...members.values()]);
    for (const [address, endpoint] of this.endpoints) {
      if (used.has(endpoint)) continue;
      this.endpoints.delete(address);
      this.avoidedUntilMs.delete(endpoint);
      endpoint.close();
    }
    this.map = map;
    this.members = members;
  }
}
