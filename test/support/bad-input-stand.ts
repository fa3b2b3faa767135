import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { AdminClient } from '../../client/admin-client.ts';
import { sealMap, type ClusterMap, type MapContent } from '../../model/cluster-map.ts';
import { Refusal_Reason } from '../../proto/gen/peer.ts';
import { firstMap, NodeHome, NodeProcess } from './node-process.ts';
import { RawPeer } from './raw-peer.ts';
import { PlainClient } from './unary.ts';
import { waitFor } from './wait.ts';

/** The member whom no process stands for: tests speak under its name. */
export const STRANGER = 'sample-1';
const STRANGER_INCARNATION = 0xabcdef;
/** An incarnation of the stranger's that the map has retired. */
export const RETIRED_INCARNATION = 99;

/** Name of a reason that a peer is told. */
export type RefusalReason = keyof typeof Refusal_Reason;

/** Everything of a node that bad input must not change. */
export interface Fingerprint {
  /** Of every record, tombstones included. */
  readonly records: string;
  readonly epoch: number;
  readonly mapHash: string;
  readonly incarnation: number;
  readonly state: number;
  readonly readablePartitions: number;
}

/**
 * Two nodes that serve, of a cluster of three: the third place is free for peers that misbehave. What is done to the
 * first node is compared with what it held before.
 */
export class BadInputStand implements AsyncDisposable {
  readonly home: NodeHome;
  readonly node: NodeProcess;
  readonly map: ClusterMap;
  readonly admin: AdminClient;
  private readonly other: NodeProcess;
  private readonly client: PlainClient;
  private readonly memoryAtStart: number;
  private writes = 0;

  private constructor(home: NodeHome, nodes: readonly [NodeProcess, NodeProcess], map: ClusterMap) {
    [this.node, this.other] = nodes;
    this.home = home;
    this.map = map;
    this.admin = home.admin();
    this.client = new PlainClient(this.node.client());
    this.memoryAtStart = anonymousMib(this.node.pid);
  }

  static async open(): Promise<BadInputStand> {
    const home = new NodeHome();
    const starting = [NodeProcess.start({ home }), NodeProcess.start({ home, nodeId: 'sample-2' })] as const;
    try {
      const [node, other] = await Promise.all(starting);
      // Nothing listens on port 1: the nodes look for the stranger there in vain.
      const stranger = { ...node.member, nodeId: STRANGER, pod: STRANGER, peerPort: 1 };
      const first = firstMap([node.member, stranger, other.member]);
      const map = sealMap({
        ...contentOf(first),
        epoch: 2,
        initialised: true,
        retired: [{ nodeId: STRANGER, incarnation: RETIRED_INCARNATION }],
      });
      for (const each of [first, map]) for (const one of [node, other]) await one.propose(each);
      await Promise.all([node.ready(), other.ready()]);
      const stand = new BadInputStand(home, [node, other], map);
      await stand.connection(other.nodeId, true);
      for (let index = 0; index < 40; index += 1) await stand.client.put(`before-${index}`, `value-${index}`);
      return stand;
    } catch (error) {
      for (const started of await Promise.allSettled(starting)) {
        if (started.status === 'fulfilled') await started.value.kill('SIGKILL');
      }
      home[Symbol.dispose]();
      throw error;
    }
  }

  get address(): string {
    return this.node.adminTarget.address;
  }

  /** A stream to the first node by the stranger, once the node has done with the one before. */
  async stranger(): Promise<RawPeer> {
    await this.connection(STRANGER, false);
    return new RawPeer({
      address: this.address,
      secret: this.home.secret,
      recipient: this.node.nodeId,
      sender: STRANGER,
      incarnation: STRANGER_INCARNATION,
      map: this.map,
    });
  }

  /** Does something to the first node, and fails unless everything is as before and it still serves. */
  async unchanged(action: () => Promise<void>): Promise<void> {
    const before = await this.fingerprint();
    await action();
    expect(await this.fingerprint()).to.deep.equal(before);
    await this.serves();
  }

  /** What a stranger does is refused for that reason in words, counted, and changes nothing. */
  async refuses(
    expected: { readonly reason: RefusalReason; readonly words: RegExp },
    act: (peer: RawPeer) => void | Promise<void>,
  ): Promise<void> {
    const label = expected.reason.toLowerCase().replaceAll('_', '-');
    const counted = await this.refusals(label);
    await this.unchanged(async () => {
      using peer = await this.stranger();
      await act(peer);
      const { refusal, status } = await peer.ended();
      expect(refusal?.reason, refusal?.message ?? status.details).to.equal(Refusal_Reason[expected.reason]);
      expect(refusal?.message).to.match(expected.words);
    });
    expect(await this.refusals(label), 'counted').to.equal(counted + 1);
  }

  /** How often calls were refused for a reason so far. */
  async refusals(reason: string, rpc = 'Peer/Exchange'): Promise<number> {
    return this.metric(`kv_refused_calls_total{rpc="${rpc}",reason="${reason}"}`);
  }

  /** A value of /metrics; 0 for one that is not there yet. */
  async metric(name: string): Promise<number> {
    const { body } = await this.node.http('/metrics');
    const line = body.split('\n').find((text) => text.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? 0);
  }

  /** A map that the cluster's own writer would not make. */
  mapWith(change: Partial<MapContent>): ClusterMap {
    return sealMap({ ...contentOf(this.map), epoch: this.map.epoch + 1, ...change });
  }

  async fingerprint(): Promise<Fingerprint> {
    const hash = createHash('sha256');
    const request = { after: undefined };
    const stream = this.admin.streamRecords(this.node.adminTarget, request, new AbortController().signal);
    for await (const { records } of stream) {
      for (const { key, record } of records) hash.update(key).update(record);
    }
    const { epoch, mapHash, volume, state, readablePartitions } = await this.admin.status(
      this.node.adminTarget,
    );
    const incarnation = volume?.incarnation ?? 0;
    return { records: hash.digest('hex'), epoch, mapHash, incarnation, state, readablePartitions };
  }

  /** Memory that the node has taken since it was opened, MiB, beside mapped files. */
  get grownMib(): number {
    return anonymousMib(this.node.pid) - this.memoryAtStart;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    this.admin.close();
    await Promise.all([this.node.kill('SIGKILL'), this.other.kill('SIGKILL')]);
    this.home[Symbol.dispose]();
  }

  private async serves(): Promise<void> {
    this.writes += 1;
    // One key, so that what it holds can be taken out of the comparison by writing it before as well.
    const value = `write-${this.writes}`;
    await this.client.put('alive', value);
    expect(await this.client.get('alive')).to.equal(value);
  }

  /** Waits until a member is connected with the first node, or is not. */
  private async connection(nodeId: string, wanted: boolean): Promise<void> {
    const what = `${nodeId} to be ${wanted ? '' : 'no longer '}connected`;
    await waitFor({ what, timeoutMs: 10_000, intervalMs: 10 }, async () => {
      const { peers } = await this.admin.status(this.node.adminTarget);
      return peers.find((peer) => peer.nodeId === nodeId)?.connected === wanted;
    });
  }
}

function contentOf(map: ClusterMap): MapContent {
  const { hash, ...content } = map;
  expect(hash).to.have.length(64);
  return content;
}

function anonymousMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024;
}
