import { moveReportOf } from '../../client/move-reports.ts';
import { type ClusterMap, memberOf, sealMap } from '../../model/cluster-map.ts';
import { markDown } from '../../model/map-commands.ts';
import { nextStep, type MemberReport, type WantedMember } from '../../model/moves.ts';
import { firstMap, mintClusterId } from '../../model/next-map.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { memberNamed } from '../support/member.ts';
import type { Dice } from './dice.ts';
import { CLUSTER_NAME, NAMESPACE } from './member.ts';
import type { SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';

/** What the cluster shall be, and the one map of it: both outlive the writer. */
export interface Wishes {
  readonly members: readonly string[];
  readonly replicationFactor: number;
  /** Partitions that move at once at most. */
  readonly batchPartitions: number;
  /** Of members that are not in the nameless zone. */
  readonly zones: ReadonlyMap<string, string>;
}

export interface MapWriterOptions {
  readonly time: SimTime;
  readonly dice: Dice;
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly partitions: number;
  readonly wishes: Wishes;
  /** Pods that are to exist: those of the map, and those that are wanted. */
  readonly onPods: (names: readonly string[]) => void;
  readonly onPublished: () => void;
  /** Whether no map follows before every member has taken the one before (PROTOCOL 31). */
  readonly awaitsMembers: boolean;
}

/** What a node's process adds to its status. */
const OF_THE_PROCESS = {
  version: '',
  uptimeMs: 0,
  diskFreeBytes: 0,
  diskTotalBytes: 0,
  ready: true,
  notReadyReason: '',
};
const ROUND_MS = 40;
const IDLE_MS = 150;
const CALL_TIMEOUT_MS = 300;

/**
 * The one writer of the map, as the operator is: publishes it by compare-and-set, brings it to every member, and takes
 * the next step towards what is wished for. It may die and begin again at any step.
 */
export class MapWriter {
  wishes: Wishes;
  private readonly options: MapWriterOptions;
  private published: ClusterMap | undefined;
  private process: SimProcess | undefined;
  private done = false;
  private toMarkDown: string | undefined;
  private why = 'nothing has been decided yet';
  /** What each member last answered. */
  private readonly heard = new Map<string, MemberReport>();

  constructor(options: MapWriterOptions) {
    this.options = options;
    this.wishes = options.wishes;
  }

  get map(): ClusterMap | undefined {
    return this.published;
  }

  /** What keeps the map from being as wished, for a person. */
  get waitingFor(): string {
    return this.why;
  }

  /** Whether the map is as wished, and everybody has it. */
  get idle(): boolean {
    return this.done;
  }

  start(): void {
    const process = new SimProcess(this.options.time);
    this.process = process;
    void this.work(process);
  }

  kill(): void {
    this.process?.kill();
    this.process = undefined;
  }

  wish(changes: Partial<Wishes>): void {
    this.wishes = { ...this.wishes, ...changes };
    this.done = false;
    this.announcePods();
  }

  /** Somebody decides that a member is down. */
  markDown(nodeId: string): void {
    this.toMarkDown = nodeId;
    this.done = false;
  }

  private get pods(): readonly string[] {
    const listed = this.published?.members.map(({ nodeId }) => nodeId) ?? [];
    return [...new Set([...listed, ...this.wishes.members])];
  }

  private announcePods(): void {
    this.options.onPods(this.pods);
  }

  private async work(process: SimProcess): Promise<void> {
    while (process.alive) {
      await this.round(process);
      const pauseMs = this.done ? IDLE_MS : ROUND_MS;
      await new Promise<void>((resolve) => process.after(pauseMs, () => resolve()));
    }
  }

  private async round(process: SimProcess): Promise<void> {
    const reports = new Map<string, MemberReport>();
    const statuses = await Promise.all(this.pods.map((name) => this.statusOf(process, name)));
    this.pods.forEach((name, index) => {
      const status = statuses[index];
      if (status === undefined) return;
      const report = moveReportOf(status);
      reports.set(name, report);
      this.heard.set(name, report);
    });
    const map = this.published;
    if (map === undefined) {
      const blank = statuses.every((status) => status?.epoch === 0 && status.volume === undefined);
      if (blank) this.publish(undefined, this.first(), 'the first map');
      return;
    }
    const behind = map.members.filter(({ nodeId }) => {
      const report = reports.get(nodeId);
      // A first map that came from a peer does not make a blank node serve: it must come from here.
      return report?.epoch !== map.epoch || (!map.initialised && report.fillingPartitions > 0);
    });
    await Promise.all(behind.map(({ nodeId }) => this.propose(process, nodeId, map)));
    // What was heard before the proposals is what counts; the next round hears of them.
    if (this.published !== map) return;
    if (this.markAsDown(map)) return;
    const step = nextStep(map, this.desired(), this.options.awaitsMembers ? reports : this.presumed(map));
    this.done = step.kind === 'done';
    this.why = step.kind === 'done' ? 'nothing' : step.why;
    if (step.kind === 'publish') this.publish(map, step.map, step.why);
    else if (step.kind === 'wait') this.options.trace.line(`writer waits: ${step.why}`);
  }

  /** As if every member that has ever answered had taken the map. */
  private presumed(map: ClusterMap): ReadonlyMap<string, MemberReport> {
    const taken = { epoch: map.epoch, mapHash: map.hash };
    return new Map([...this.heard].map(([name, report]) => [name, { ...report, ...taken }]));
  }

  private markAsDown(map: ClusterMap): boolean {
    const nodeId = this.toMarkDown;
    this.toMarkDown = undefined;
    if (nodeId === undefined || !map.initialised || memberOf(map, nodeId)?.state !== 'active') return false;
    if (map.members.filter(({ state }) => state !== 'down').length < 2) return false;
    this.publish(map, markDown(map, nodeId), `${nodeId} is marked down`);
    this.options.trace.note('marked down');
    return true;
  }

  private desired(): Parameters<typeof nextStep>[1] {
    const { members, replicationFactor, batchPartitions } = this.wishes;
    return { members: members.map((name) => this.wanted(name)), replicationFactor, batchPartitions };
  }

  private wanted(name: string): WantedMember {
    return { ...memberNamed(name), zone: this.wishes.zones.get(name) ?? '' };
  }

  private first(): ClusterMap {
    const { partitions, dice } = this.options;
    const { members, replicationFactor } = this.wishes;
    return sealMap(
      firstMap({
        clusterId: mintClusterId(dice),
        namespace: NAMESPACE,
        name: CLUSTER_NAME,
        partitions,
        replicationFactor,
        members: members.map((name) => ({ ...this.wanted(name), state: 'active' as const })),
      }),
    );
  }

  private publish(held: ClusterMap | undefined, map: ClusterMap, why: string): void {
    if (this.published !== held) return;
    const { trace } = this.options;
    this.published = map;
    trace.note('map changed', () => `epoch ${map.epoch}: ${why}`);
    if (map.moving !== undefined) trace.note(`barrier phase ${map.moving.phase}`);
    else if (held?.moving?.phase === 2) trace.note('a move was completed');
    else if (held?.moving?.phase === 1) trace.note('a move was cancelled');
    if (held !== undefined && map.members.length > held.members.length) trace.note('a member joined');
    if (held !== undefined && map.members.length < held.members.length) trace.note('a member left');
    this.announcePods();
    this.options.onPublished();
  }

  private async statusOf(process: SimProcess, name: string): Promise<GetStatusResponse | undefined> {
    try {
      return await this.options.network.request(this.caller(process), name, ({ replica }) =>
        Promise.resolve({ ...replica.status(), ...OF_THE_PROCESS }),
      );
    } catch {
      return undefined; // Asked again in the next round.
    }
  }

  private async propose(process: SimProcess, name: string, map: ClusterMap): Promise<void> {
    try {
      await this.options.network.request(this.caller(process), name, ({ replica }) =>
        replica.proposeMap(map, { epoch: map.epoch - 1, hash: '' }),
      );
    } catch {
      // The next round proposes it again.
    }
  }

  private caller(process: SimProcess): { name: string; process: SimProcess; timeoutMs: number } {
    return { name: 'writer', process, timeoutMs: CALL_TIMEOUT_MS };
  }
}
