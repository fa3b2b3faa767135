import { KvError, messageOf } from '../common/errors.ts';
import { type ClusterMap, quorumOf } from '../model/cluster-map.ts';
import type { AdminClient, AdminTarget } from './admin-client.ts';

export interface PublishMapOptions {
  readonly admin: AdminClient;
  /** The map that the new one was made from. */
  readonly from: ClusterMap;
  readonly map: ClusterMap;
  readonly targetOf: (nodeId: string) => AdminTarget | undefined;
  readonly signal: AbortSignal;
}

/**
 * Changes the map where there is no Kubernetes to keep it: by compare-and-set at every member, and it counts when a
 * majority of the members of the map before it hold it durably (PROTOCOL 29). The others get it from those.
 *
 * @throws KvError FAILED_PRECONDITION when somebody else has changed the map meanwhile; UNAVAILABLE when too few members
 * answer: it may or may not take effect then.
 */
export async function publishMap({ admin, from, map, targetOf, signal }: PublishMapOptions): Promise<void> {
  const members = from.members.filter(({ state }) => state !== 'down');
  const joining = map.members.filter(({ nodeId }) => from.members.every((old) => old.nodeId !== nodeId));
  const propose = async (nodeId: string): Promise<string | undefined> => {
    const target = targetOf(nodeId);
    if (target === undefined) return `${nodeId}: its address is not known`;
    try {
      const expected = { epoch: from.epoch, hash: from.hash };
      const { accepted, message } = await admin.proposeMap(target, map, expected, signal);
      return accepted ? undefined : `${nodeId} refuses: ${message}`;
    } catch (error) {
      signal.throwIfAborted();
      return `${nodeId}: ${messageOf(error)}`;
    }
  };
  const outcomes = await Promise.all(members.map(({ nodeId }) => propose(nodeId)));
  const failures = outcomes.filter((failure) => failure !== undefined);
  const refused = failures.find((failure) => failure.includes(' refuses: '));
  if (members.length - failures.length < quorumOf(members.length)) {
    throw new KvError(
      refused === undefined ? 'UNAVAILABLE' : 'FAILED_PRECONDITION',
      `the cluster map of epoch ${map.epoch} was not taken by a majority of the members: ${failures.join('; ')}`,
    );
  }
  await Promise.all(joining.map(({ nodeId }) => propose(nodeId)));
}
