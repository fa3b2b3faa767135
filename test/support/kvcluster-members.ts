import { setTimeout as delay } from 'node:timers/promises';
import { type AdminClient, type AdminTarget, createAdminClient } from '../../client/admin-client.ts';
import { systemClock } from '../../common/clock.ts';
import { systemRandom } from '../../common/random.ts';
import { workerNames, workerPorts } from '../../model/workers.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import type { KubernetesObject } from './kubernetes-objects.ts';
import type { KVClusterUnderTest } from './kvcluster.ts';

interface Secret extends KubernetesObject {
  data: Record<string, string>;
}

const lookEveryMs = 250;

/**
 * What the nodes said about themselves at a moment, by name, which is the pod's for the first one of each; a node that did
 * not answer is missing.
 */
export interface MembersSighting {
  readonly atMs: number;
  readonly byPod: ReadonlyMap<string, GetStatusResponse>;
}

/**
 * Asks the nodes of a cluster for their status again and again, beside the operator and by the same admin service, so
 * that what the operator reports can be compared with what was so.
 */
export class MembersObserver implements AsyncDisposable {
  readonly sightings: MembersSighting[] = [];
  readonly #cluster: KVClusterUnderTest;
  readonly #admin: AdminClient;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #addresses = new Map<string, string>();

  private constructor(cluster: KVClusterUnderTest, admin: AdminClient) {
    this.#cluster = cluster;
    this.#admin = admin;
    this.#loop = this.#observe();
  }

  static async start(cluster: KVClusterUnderTest): Promise<MembersObserver> {
    const secret = await cluster.kubectl.get<Secret>('secret', `${cluster.name}-internal`);
    const admin = createAdminClient({
      secret: Buffer.from(secret.data['key'] ?? '', 'base64'),
      sender: 'kvctl',
      clock: systemClock,
      random: systemRandom,
      deadlineMs: 1000,
    });
    return new MembersObserver(cluster, admin);
  }

  /** The first sighting, past or to come, from then on that is as wanted. */
  async until(
    options: { what: string; timeoutMs: number; sinceMs?: number },
    wanted: (byPod: MembersSighting['byPod']) => boolean,
  ): Promise<MembersSighting> {
    const { what, timeoutMs, sinceMs = 0 } = options;
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const found = this.sightings.find(({ atMs, byPod }) => atMs >= sinceMs && wanted(byPod));
      if (found !== undefined) return found;
      if (performance.now() > deadlineMs) {
        throw new Error(
          `waited ${timeoutMs / 1000} s for ${what}; last seen: ${text(this.sightings.at(-1))}`,
        );
      }
      await delay(lookEveryMs / 2);
    }
  }

  /** Waits until every member has said at one look that it is in sync. */
  async allInSync(sinceMs: number, timeoutMs = 60_000): Promise<MembersSighting> {
    return this.until({ what: 'all members to be in sync', timeoutMs, sinceMs }, (byPod) =>
      inSync(byPod, this.#members),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    this.#admin.close();
  }

  get #members(): number {
    return this.#cluster.replicas * this.#cluster.workers;
  }

  #targets(): readonly AdminTarget[] {
    const { workers } = this.#cluster;
    const pod = { client: 50_051, peer: 50_052, http: 9090 };
    return [...this.#addresses].flatMap(([podName, address]) =>
      workerNames(podName, workers).map((nodeId, worker) => ({
        nodeId,
        address: `${address}:${workerPorts(pod, worker, workers).peer}`,
      })),
    );
  }

  async #observe(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const byPod = await this.#look();
      this.sightings.push({ atMs: performance.now(), byPod });
      // A pod that came back has another address.
      if (byPod.size < this.#members) {
        this.#addresses = await this.#cluster.podAddresses().catch(() => new Map<string, string>());
      }
      await delay(lookEveryMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  async #look(): Promise<Map<string, GetStatusResponse>> {
    const answers = await Promise.all(
      this.#targets().map(async (target) => {
        const status = await this.#admin.status(target, this.#stop.signal).catch(() => undefined);
        return status === undefined ? [] : ([[target.nodeId, status]] as const);
      }),
    );
    return new Map(answers.flat());
  }
}

export function inSync(byPod: MembersSighting['byPod'], members: number): boolean {
  return byPod.size === members && [...byPod.values()].every((status) => status.inSync);
}

function text(sighting: MembersSighting | undefined): string {
  const members = [...(sighting?.byPod ?? [])].map(
    ([pod, { inSync, ready, notReadyReason }]) => `${pod} inSync=${inSync} ready=${ready} ${notReadyReason}`,
  );
  return members.length === 0 ? 'nobody answered' : members.join('; ');
}
