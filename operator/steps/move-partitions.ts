import { moveReportOf } from '../../client/move-reports.ts';
import type { ClusterMap, Member } from '../../model/cluster-map.ts';
import { isSameSet } from '../../model/map-check.ts';
import { nextStep, type Reports } from '../../model/moves.ts';
import { workerNames } from '../../model/workers.ts';
import type { NodeView } from '../nodes.ts';
import { objectNames } from '../resources/names.ts';
import { memberOfNode } from './members.ts';
import { publishMap } from './publish-map.ts';
import { pushMap } from './push-map.ts';
import { proceed, requeueAfter, type StepContext, type StepResult } from './step.ts';

const SOON_MS = 500;
const WAIT_MS = 1000;

/**
 * Takes the next step from the map to what the spec asks for: nodes join, partitions move by barriers, copies are made
 * or dropped, nodes that are not wanted are emptied and leave (PROTOCOL 31). Each step stands by itself: whoever leads
 * next goes on from the published map and what the nodes report.
 */
export async function movePartitions(context: StepContext): Promise<StepResult> {
  const { memory, spec, log } = context;
  const { map } = memory;
  if (map?.initialised !== true) return proceed;
  const desired = { members: wantedMembers(context), replicationFactor: spec.replicationFactor };
  const step = nextStep(map, desired, reportsOf(context.nodes));
  switch (step.kind) {
    case 'done':
      return proceed;
    case 'wait':
      // A member that is down is told of elsewhere; a map that stays as it is waits for nobody.
      return isAsWanted(map, context) ? proceed : requeueAfter(WAIT_MS, 'Scaling', sentence(step.why));
    case 'publish': {
      log.info({ epoch: step.map.epoch, why: step.why }, 'changing the cluster map');
      await publishMap(context, step.map);
      memory.map = step.map;
      await pushMap(context, step.map);
      return requeueAfter(SOON_MS, 'Scaling', sentence(step.why));
    }
  }
}

/** The nodes of the spec. One that the map lists keeps what the map says of it while its pod is away. */
function wantedMembers(context: StepContext): readonly Member[] {
  const { spec, workers, nodes, memory } = context;
  return wantedPods(context).flatMap((podName) =>
    workerNames(podName, spec.workersPerPod).map((nodeId, worker) => {
      const known = memory.map?.members.find((member) => member.nodeId === nodeId);
      const pod = nodes.find((node) => node.podName === podName)?.pod;
      return known !== undefined && pod === undefined
        ? known
        : memberOfNode({ podName, worker, workers, pod });
    }),
  );
}

function wantedPods({ cluster, spec }: StepContext): readonly string[] {
  const names = objectNames(cluster.name);
  return Array.from({ length: spec.replicas }, (_, ordinal) => names.pod(ordinal));
}

function reportsOf(nodes: readonly NodeView[]): Reports {
  return new Map(
    nodes.flatMap(({ nodeId, answer }) =>
      answer === undefined ? [] : [[nodeId, moveReportOf(answer)] as const],
    ),
  );
}

/** Whether nothing has to change, whoever is waited for: a cluster with a node down is not one that scales. */
function isAsWanted(map: ClusterMap, context: StepContext): boolean {
  const { replicationFactor, workersPerPod } = context.spec;
  const wanted = wantedPods(context).flatMap((podName) => workerNames(podName, workersPerPod));
  return (
    map.moving === undefined &&
    map.replicationFactor === replicationFactor &&
    map.members.every(({ state }) => state === 'active') &&
    isSameSet(
      map.members.map(({ nodeId }) => nodeId),
      wanted,
    )
  );
}

function sentence(why: string): string {
  return `${why.charAt(0).toUpperCase()}${why.slice(1)}.`;
}
