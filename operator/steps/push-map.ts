import { messageOf } from '../../common/errors.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { StepContext } from './step.ts';

/** Proposes the map to every reachable member that has another one; gives who does not have it now, and why. */
export async function pushMap(context: StepContext, map: ClusterMap): Promise<readonly string[]> {
  const outcomes = await Promise.all(
    map.members.map(async ({ nodeId }) => {
      const why = await pushTo(context, map, nodeId);
      return why === undefined ? [] : [`${nodeId}: ${why}`];
    }),
  );
  return outcomes.flat();
}

async function pushTo(
  { nodes, memory, signal }: StepContext,
  map: ClusterMap,
  nodeId: string,
): Promise<string | undefined> {
  const node = nodes.find((view) => view.nodeId === nodeId);
  if (node?.answer === undefined || node.target === undefined || memory.admin === undefined) {
    return node?.silence ?? 'there is no pod';
  }
  const { epoch, mapHash, state } = node.answer;
  const isHeld = epoch === map.epoch && mapHash === map.hash;
  // A first map that came from a peer does not make a blank node serve: it must come from here.
  if (epoch > map.epoch || (isHeld && (map.initialised || state === StoreState.READABLE))) return undefined;
  try {
    const expected = { epoch, hash: mapHash };
    const { accepted, message } = await memory.admin.proposeMap(node.target, map, expected, signal);
    return accepted ? undefined : message;
  } catch (error) {
    signal.throwIfAborted();
    return messageOf(error);
  }
}
