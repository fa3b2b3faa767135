import { type ClusterMap, sealMap } from '../../model/cluster-map.ts';
import { firstMap, mintClusterId, nextMap, withInitialised } from '../../model/next-map.ts';
import { memberNamed } from '../support/member.ts';
import type { Dice } from './dice.ts';
import { CLUSTER_NAME, NAMESPACE } from './member.ts';
import type { SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { Settings } from './settings.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';

/** Where the map is published, by compare-and-set: outlives the writer. */
interface Published {
  map: ClusterMap | undefined;
}

export interface MapWriterOptions {
  readonly time: SimTime;
  readonly dice: Dice;
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly settings: Settings;
  readonly names: () => readonly string[];
}

const ROUND_MS = 40;
const CALL_TIMEOUT_MS = 300;

/** The one writer of the map: publishes it, brings it to every member, and may die and begin again at any step. */
export class MapWriter {
  private readonly options: MapWriterOptions;
  private readonly published: Published = { map: undefined };
  private process: SimProcess | undefined;
  private wantsChange = 0;

  constructor(options: MapWriterOptions) {
    this.options = options;
  }

  get map(): ClusterMap | undefined {
    return this.published.map;
  }

  /** Whether nothing is left to do. */
  get idle(): boolean {
    return this.wantsChange === 0 && this.published.map?.initialised === true;
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

  /** Publishes a further map soon. */
  change(): void {
    this.wantsChange += 1;
  }

  private async work(process: SimProcess): Promise<void> {
    while (process.alive) {
      await this.round(process);
      await pause(process, ROUND_MS);
    }
  }

  private async round(process: SimProcess): Promise<void> {
    const { trace, names } = this.options;
    const statuses = await Promise.all(names().map((name) => this.statusOf(process, name)));
    const { map } = this.published;
    if (map === undefined) {
      const blank = statuses.every((status) => status?.epoch === 0 && status.clusterId === '');
      if (blank) this.publish(undefined, this.first());
      return;
    }
    const behind = names().filter((_, index) => statuses[index]?.epoch !== map.epoch);
    const answers = await Promise.all(behind.map((name) => this.propose(process, name, map)));
    if (answers.some((accepted) => !accepted)) return;
    if (!map.initialised) this.publish(map, withInitialised(map));
    else if (this.wantsChange > 0) {
      this.wantsChange -= 1;
      trace.note('map changed');
      this.publish(map, nextMap(map, {}));
    }
  }

  private first(): ClusterMap {
    const { settings, names, dice } = this.options;
    return sealMap(
      firstMap({
        clusterId: mintClusterId(dice),
        namespace: NAMESPACE,
        name: CLUSTER_NAME,
        partitions: settings.partitions,
        replicationFactor: settings.replicationFactor,
        members: names().map(memberNamed),
      }),
    );
  }

  private publish(held: ClusterMap | undefined, map: ClusterMap): void {
    if (this.published.map !== held) return;
    this.published.map = map;
  }

  private async statusOf(
    process: SimProcess,
    name: string,
  ): Promise<{ epoch: number; clusterId: string } | undefined> {
    try {
      return await this.options.network.request(this.caller(process), name, ({ replica }) => {
        const { epoch, volume } = replica.status();
        return Promise.resolve({ epoch, clusterId: volume?.clusterId ?? '' });
      });
    } catch {
      return undefined; // Asked again in the next round.
    }
  }

  private async propose(process: SimProcess, name: string, map: ClusterMap): Promise<boolean> {
    try {
      const result = await this.options.network.request(this.caller(process), name, ({ replica }) =>
        replica.proposeMap(map, { epoch: map.epoch - 1, hash: '' }),
      );
      return result.accepted;
    } catch {
      return false;
    }
  }

  private caller(process: SimProcess): { name: string; process: SimProcess; timeoutMs: number } {
    return { name: 'writer', process, timeoutMs: CALL_TIMEOUT_MS };
  }
}

function pause(process: SimProcess, forMs: number): Promise<void> {
  return new Promise((resolve) => process.after(forMs, () => resolve()));
}
