import type { AdminClient, AdminTarget } from '../../client/admin-client.ts';
import { isWantedMember, type WantedCluster } from '../../client/local-cluster.ts';
import { moveReportOf } from '../../client/move-reports.ts';
import { publishMap } from '../../client/publish-map.ts';
import { messageOf } from '../../common/errors.ts';
import { newestMap } from '../../model/bootstrap.ts';
import type { ClusterMap, Member } from '../../model/cluster-map.ts';
import { nextStep, type Reports } from '../../model/moves.ts';

export interface SteerOptions {
  readonly admin: AdminClient;
  /** Members whose processes run. */
  readonly nodes: () => readonly Member[];
  readonly targetOf: (nodeId: string) => AdminTarget | undefined;
  readonly wanted: () => WantedCluster;
  readonly print: (line: string) => void;
  readonly signal: AbortSignal;
}

/** What a look came to. */
export interface Steered {
  /** The map is what is wanted. */
  readonly done: boolean;
  readonly map: ClusterMap | undefined;
}

/** Brings the map of a local cluster nearer to what is wanted of it, as the operator does on Kubernetes. */
export class Steering {
  private readonly options: SteerOptions;
  private told = '';

  constructor(options: SteerOptions) {
    this.options = options;
  }

  /** One look and, where one is due, one step. */
  async look(): Promise<Steered> {
    const { admin, nodes, targetOf, wanted, signal } = this.options;
    try {
      const { reports, map } = await this.ask();
      if (map === undefined) return { done: false, map };
      const wish = wanted();
      const members = nodes().filter((member) => isWantedMember(wish, member));
      const step = nextStep(map, { members, replicationFactor: wish.replicationFactor }, reports);
      if (step.kind === 'done') {
        if (this.told !== '') this.tell(`the cluster has ${map.members.length} members and is in order`);
        this.told = '';
        return { done: true, map };
      }
      this.tell(step.why);
      if (step.kind === 'publish') await publishMap({ admin, from: map, map: step.map, targetOf, signal });
      return { done: false, map };
    } catch (error) {
      signal.throwIfAborted();
      this.tell(messageOf(error));
      return { done: false, map: undefined };
    }
  }

  private async ask(): Promise<{ reports: Reports; map: ClusterMap | undefined }> {
    const { admin, nodes, targetOf, signal } = this.options;
    const answers = await Promise.all(
      nodes().map(async ({ nodeId }) => {
        const target = targetOf(nodeId);
        if (target === undefined) return [];
        try {
          return [{ target, status: await admin.status(target, signal) }];
        } catch {
          signal.throwIfAborted();
          return [];
        }
      }),
    );
    const statuses = answers.flat();
    const epoch = Math.max(0, ...statuses.map(({ status }) => status.epoch));
    const holders = statuses.filter(({ status }) => status.epoch === epoch && epoch > 0);
    const maps = await Promise.all(holders.map(({ target }) => admin.getMap(target, signal)));
    const newest = newestMap(maps.filter((map) => map !== undefined));
    return {
      reports: new Map(statuses.map(({ target, status }) => [target.nodeId, moveReportOf(status)])),
      map: newest === 'conflict' ? undefined : newest,
    };
  }

  private tell(what: string): void {
    if (what === this.told) return;
    this.told = what;
    this.options.print(what);
  }
}
