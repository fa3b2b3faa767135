import type { AdminClient, AdminTarget } from '../../client/admin-client.ts';
import { askVolume } from '../../client/ask-volume.ts';
import { type Scheduler, sleep } from '../../common/clock.ts';
import { KvError, messageOf } from '../../common/errors.ts';
import type { Random } from '../../common/random.ts';
import { type BootstrapDecision, decideBootstrap } from '../../model/bootstrap.ts';
import { type ClusterMap, type Member, canonicalJson, memberOf } from '../../model/cluster-map.ts';
import type { KVCluster } from '../../model/kvcluster.ts';
import { firstMap, mintClusterId, nextMap, withInitialised } from '../../model/next-map.ts';

export interface StartClusterOptions {
  readonly cluster: KVCluster;
  /** As the layout has them: where they are now. */
  readonly members: readonly Member[];
  readonly targets: readonly AdminTarget[];
  readonly admin: AdminClient;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** Told what is waited for, when that changes. */
  readonly waiting: (what: string) => void;
  readonly signal: AbortSignal;
}

const LOOK_AGAIN_MS = 100;

/**
 * Gives the nodes a cluster map: their newest one where there is one, else a first one; resolves with it when every node
 * has it and is ready.
 *
 * @throws KvError FAILED_PRECONDITION when the volumes contradict each other; the signal's reason.
 */
export async function startCluster(options: StartClusterOptions): Promise<ClusterMap> {
  const map = await agreeOnMap(options);
  const initialised = withInitialised(map);
  if (initialised !== map) await propose(options, initialised);
  await untilReady({ ...options, targets: targetsOf(options, initialised) });
  return initialised;
}

async function agreeOnMap(options: StartClusterOptions): Promise<ClusterMap> {
  for (;;) {
    const decision = await decide(options);
    switch (decision.kind) {
      case 'mint': {
        const { cluster, members } = options;
        const map = firstMap({
          clusterId: decision.clusterId ?? mintClusterId(options.random),
          namespace: cluster.namespace,
          name: cluster.name,
          partitions: cluster.spec.partitions,
          replicationFactor: cluster.spec.replicationFactor,
          members,
        });
        await propose(options, map);
        return map;
      }
      case 'adopt': {
        const map = withAddresses(decision.map, options.members);
        await propose(options, map);
        return map;
      }
      case 'ambiguous':
        throw new KvError('FAILED_PRECONDITION', decision.message);
      case 'wait':
        options.waiting(decision.why);
        await sleep(options.scheduler, LOOK_AGAIN_MS, options.signal);
    }
  }
}

async function decide({ admin, targets, signal }: StartClusterOptions): Promise<BootstrapDecision> {
  const members = await Promise.all(
    targets.map(async (target) => ({
      nodeId: target.nodeId,
      answer: await askVolume(admin, target, signal),
    })),
  );
  return decideBootstrap({ members });
}

/** The map with the ports that the nodes have now; the same map when they have not changed. */
function withAddresses(map: ClusterMap, members: readonly Member[]): ClusterMap {
  const current = map.members.map((member) => {
    const now = members.find(({ nodeId }) => nodeId === member.nodeId);
    return now === undefined ? member : { ...member, ...now, state: member.state };
  });
  return canonicalJson(current) === canonicalJson(map.members) ? map : nextMap(map, { members: current });
}

/** The nodes that a map lists: others have nothing to do with it before it lists them. */
function targetsOf({ targets }: StartClusterOptions, map: ClusterMap): readonly AdminTarget[] {
  return targets.filter(({ nodeId }) => memberOf(map, nodeId) !== undefined);
}

/** Proposes a map until every node that it lists has it. */
async function propose(options: StartClusterOptions, map: ClusterMap): Promise<void> {
  const { admin, scheduler, signal } = options;
  const targets = targetsOf(options, map);
  for (;;) {
    const refusals = await Promise.all(targets.map((target) => proposeTo(admin, target, map, signal)));
    const open = refusals.filter((refusal) => refusal !== undefined);
    if (open.length === 0) return;
    options.waiting(open.join('; '));
    await sleep(scheduler, LOOK_AGAIN_MS, signal);
  }
}

/** Undefined when the node has the map, otherwise why not. */
async function proposeTo(
  admin: AdminClient,
  target: AdminTarget,
  map: ClusterMap,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const held = await admin.getMap(target, signal);
    // A first map that came from a peer does not make a blank node serve: it must come from here.
    if (held?.hash === map.hash && map.initialised) return undefined;
    const expected = { epoch: held?.epoch ?? 0, hash: held?.hash ?? '' };
    const answer = await admin.proposeMap(target, map, expected, signal);
    return answer.accepted ? undefined : `${target.nodeId} refuses the cluster map: ${answer.message}`;
  } catch (error) {
    signal.throwIfAborted();
    return `${target.nodeId}: ${messageOf(error)}`;
  }
}

async function untilReady({
  admin,
  targets,
  scheduler,
  waiting,
  signal,
}: StartClusterOptions): Promise<void> {
  for (;;) {
    const reasons = await Promise.all(
      targets.map(async (target) => {
        try {
          const { ready, notReadyReason } = await admin.status(target, signal);
          return ready ? undefined : `${target.nodeId}: ${notReadyReason}`;
        } catch (error) {
          signal.throwIfAborted();
          return `${target.nodeId}: ${messageOf(error)}`;
        }
      }),
    );
    const open = reasons.filter((reason) => reason !== undefined);
    if (open.length === 0) return;
    waiting(open.join('; '));
    await sleep(scheduler, LOOK_AGAIN_MS, signal);
  }
}
