import { KvClient } from '../../client/kv-client.ts';
import { KVCLUSTER_API_VERSION, KVCLUSTER_KIND } from '../../model/kvcluster.ts';
import type { Condition, ConditionType, KVClusterStatus } from '../../model/kvcluster-status.ts';
import type { Kubectl } from './kubectl.ts';
import { isReady, type KubernetesObject, type Pod } from './kubernetes-objects.ts';
import { ObjectWatch } from './kubernetes-watch.ts';
import { waitFor } from './wait.ts';

export interface KVClusterObject extends KubernetesObject {
  spec: Record<string, unknown>;
  status?: KVClusterStatus;
}

interface Service extends KubernetesObject {
  spec: { clusterIP: string };
}

/** Small, so that several fit on the machine; the rest is as by default. */
const smallSpec = {
  storage: { size: '256Mi' },
  resources: { requests: { cpu: '50m', memory: '128Mi' } },
};

/** A KVCluster in a namespace of the test ground, and how this machine reaches its nodes. */
export class KVClusterUnderTest {
  readonly kubectl: Kubectl;
  readonly name: string;
  readonly replicas: number;
  readonly podNames: readonly string[];
  readonly selector: string;
  /** Nodes of each pod. */
  workers = 1;

  constructor(kubectl: Kubectl, name: string, replicas = 3) {
    this.kubectl = kubectl;
    this.name = name;
    this.replicas = replicas;
    this.podNames = Array.from({ length: replicas }, (_, ordinal) => `${name}-${ordinal}`);
    this.selector = `--selector=app.kubernetes.io/instance=${name},app.kubernetes.io/component=node`;
  }

  /** @param spec - added to a small cluster's. */
  async apply(spec: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await this.kubectl.apply([this.#manifest({ ...smallSpec, replicas: this.replicas, ...spec })]);
  }

  /** A merge patch of the spec. */
  async patch(spec: Readonly<Record<string, unknown>>): Promise<void> {
    await this.kubectl.run([
      'patch',
      'kvcluster',
      this.name,
      '--type=merge',
      `--patch=${JSON.stringify({ spec })}`,
    ]);
  }

  /** Deletes the object; returns when it is gone, not what it owned. */
  async delete(...args: string[]): Promise<void> {
    await this.kubectl.run(['delete', 'kvcluster', this.name, '--ignore-not-found', ...args]);
  }

  async get(): Promise<KVClusterObject> {
    return this.kubectl.get<KVClusterObject>('kvcluster', this.name);
  }

  /** Waits for Ready=True about the newest spec. */
  async ready(timeoutMs = 60_000): Promise<void> {
    await this.kubectl.run(
      ['wait', '--for=condition=Ready', `--timeout=${timeoutMs / 1000}s`, `kvcluster/${this.name}`],
      { timeoutMs: timeoutMs + 10_000 },
    );
  }

  /** Every change of the object, its status above all. */
  watch(): ObjectWatch<KVClusterObject> {
    return new ObjectWatch<KVClusterObject>(
      this.kubectl,
      'kvclusters',
      `--field-selector=metadata.name=${this.name}`,
    );
  }

  watchPods(): ObjectWatch<Pod> {
    return new ObjectWatch<Pod>(this.kubectl, 'pods', this.selector);
  }

  async pods(): Promise<Pod[]> {
    return this.kubectl.list<Pod>('pods', this.selector);
  }

  /** The pods' uids by name: what tells a pod from its successor. */
  async podUids(): Promise<Record<string, string>> {
    return Object.fromEntries((await this.pods()).map(({ metadata: { name, uid } }) => [name, uid]));
  }

  /** Waits until all pods, or those named, are Ready and none is one of these older ones. */
  async podsReady(older: Readonly<Record<string, string>> = {}, names = this.podNames): Promise<Pod[]> {
    const what = `${names.join(', ')} to be Ready again`;
    return waitFor({ what, timeoutMs: 90_000, intervalMs: 500 }, async (see) => {
      const pods = (await this.pods()).filter(({ metadata }) => names.includes(metadata.name));
      see(pods.map((pod) => `${pod.metadata.name} ${JSON.stringify(pod.status.conditions)}`).join('; '));
      const back = pods.filter((pod) => isReady(pod) && older[pod.metadata.name] !== pod.metadata.uid);
      return back.length === names.length && back;
    });
  }

  /** `host:port` of the client Service, reached from this machine as from a pod. */
  async serviceEndpoint(): Promise<string> {
    const { spec } = await this.kubectl.get<Service>('service', this.name);
    return `${spec.clusterIP}:50051`;
  }

  /** Addresses of the pods that have one, by pod. */
  async podAddresses(): Promise<Map<string, string>> {
    const pods = await this.pods();
    return new Map(
      pods.flatMap(({ metadata, status }) =>
        status.podIP === undefined ? [] : [[metadata.name, status.podIP]],
      ),
    );
  }

  /** `host:port` of the client API of every pod. */
  async podEndpoints(): Promise<string[]> {
    return [...(await this.podAddresses()).values()].map((address) => `${address}:50051`);
  }

  /** A client through the Service. */
  async connect(): Promise<KvClient> {
    return KvClient.connect({ endpoints: await this.serviceEndpoint(), timeoutMs: 10_000 });
  }

  /** A client of one pod only. */
  async connectTo(pod: string, timeoutMs = 10_000): Promise<KvClient> {
    const address = (await this.podAddresses()).get(pod);
    if (address === undefined) throw new Error(`pod ${pod} has no address yet`);
    return KvClient.connect({ endpoints: `${address}:50051`, timeoutMs, routing: false });
  }

  #manifest(spec: Readonly<Record<string, unknown>>): object {
    return {
      apiVersion: KVCLUSTER_API_VERSION,
      kind: KVCLUSTER_KIND,
      metadata: { name: this.name },
      spec,
    };
  }
}

export function conditionOf(object: KVClusterObject, type: ConditionType): Condition | undefined {
  return object.status?.conditions?.find((condition) => condition.type === type);
}

/** Whether a condition stands at that status, and reason where one is given, for the object's newest spec. */
export function stands(
  object: KVClusterObject,
  type: ConditionType,
  status: Condition['status'],
  reason?: string,
): boolean {
  const condition = conditionOf(object, type);
  return (
    condition?.status === status &&
    condition.observedGeneration === object.metadata.generation &&
    (reason === undefined || condition.reason === reason)
  );
}
