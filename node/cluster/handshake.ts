import { type ClusterMap, memberOf } from '../../model/cluster-map.ts';
import { type Hello, type PeerHeader, Refusal_Reason } from '../../proto/gen/peer.ts';
import type { PeerMemory } from './peer-memory.ts';

/** Versions of the peer protocol that this software speaks. */
export const PROTOCOL = { min: 1, max: 1 } as const;

/** What a node judges a peer's Hello by. */
export interface HandshakeSelf {
  readonly nodeId: string;
  /** Empty on a volume that belongs to no cluster yet. */
  readonly clusterId: string;
  readonly namespace: string;
  readonly name: string;
  readonly map: ClusterMap | undefined;
}

export type HelloVerdict =
  | { readonly kind: 'accept' }
  /** The peer has a newer map, which may name it a member: it sends the map when it sees this node's Hello. */
  | { readonly kind: 'await-map' }
  | {
      readonly kind: 'refuse';
      readonly reason: Refusal_Reason;
      readonly message: string;
      /** Send the own map along. */
      readonly withMap: boolean;
    };

/** Decides about a peer's Hello; everything that does not fit is refused with a sentence for a person. */
export function judgeHello(
  self: HandshakeSelf,
  header: PeerHeader,
  hello: Hello,
  memory: PeerMemory | undefined,
): HelloVerdict {
  return (
    judgeAddressing(self, header, hello) ??
    judgeMembership(self, header, hello) ??
    judgeVolume(header, hello, memory) ?? { kind: 'accept' }
  );
}

function refuse(reason: Refusal_Reason, message: string, withMap = false): HelloVerdict {
  return { kind: 'refuse', reason, message, withMap };
}

function judgeAddressing(self: HandshakeSelf, header: PeerHeader, hello: Hello): HelloVerdict | undefined {
  if (hello.minProtocol > PROTOCOL.max || hello.maxProtocol < PROTOCOL.min) {
    return refuse(
      Refusal_Reason.UNSUPPORTED_PROTOCOL,
      `you speak protocol ${hello.minProtocol} to ${hello.maxProtocol}, I speak ${PROTOCOL.min} to ${PROTOCOL.max}`,
    );
  }
  if (header.recipient !== self.nodeId) {
    return refuse(Refusal_Reason.WRONG_RECIPIENT, `this is ${self.nodeId}, not ${header.recipient}`);
  }
  if (hello.namespace !== self.namespace || hello.name !== self.name) {
    return refuse(Refusal_Reason.WRONG_CLUSTER, `this node belongs to ${self.namespace}/${self.name}`);
  }
  if (header.clusterId !== '' && self.clusterId !== '' && header.clusterId !== self.clusterId) {
    return refuse(Refusal_Reason.WRONG_CLUSTER, `this node belongs to cluster ${self.clusterId}`);
  }
  return undefined;
}

function judgeMembership(self: HandshakeSelf, header: PeerHeader, hello: Hello): HelloVerdict | undefined {
  const { map } = self;
  // Hash and epoch are empty together: the sender has no map.
  const senderHasMap = hello.mapHash !== '';
  if (map === undefined) {
    return senderHasMap
      ? { kind: 'await-map' }
      : refuse(Refusal_Reason.NOT_A_MEMBER, `${self.nodeId} has no cluster map either`);
  }
  const member = memberOf(map, header.sender);
  if (!senderHasMap) {
    return member === undefined
      ? refuse(Refusal_Reason.NOT_A_MEMBER, `the map of epoch ${map.epoch} does not list ${header.sender}`)
      : refuse(Refusal_Reason.STALE_EPOCH, 'here is the cluster map', true);
  }
  if (header.epoch === map.epoch && hello.mapHash !== map.hash) {
    return refuse(Refusal_Reason.MAP_CONFLICT, `epoch ${map.epoch} has hash ${map.hash} here`);
  }
  if (isRetired(map, header)) {
    return refuse(
      Refusal_Reason.RETIRED_INCARNATION,
      'this incarnation was retired by the cluster map',
      true,
    );
  }
  // Streams begin under one map, so that what is said on them is never judged by an older one than it was said under.
  if (header.epoch > map.epoch) return { kind: 'await-map' };
  if (header.epoch < map.epoch) {
    const message =
      member === undefined
        ? 'the newer cluster map does not list you'
        : `your map is of epoch ${header.epoch}, here is the one of epoch ${map.epoch}`;
    return refuse(Refusal_Reason.STALE_EPOCH, message, true);
  }
  if (member !== undefined) return undefined;
  return refuse(Refusal_Reason.NOT_A_MEMBER, `the map of epoch ${map.epoch} does not list ${header.sender}`);
}

function isRetired(map: ClusterMap, header: PeerHeader): boolean {
  return map.retired.some(
    ({ nodeId, incarnation }) => nodeId === header.sender && incarnation === header.senderIncarnation,
  );
}

/** Whether this is the volume, and the process on it, that the name stood for so far (PROTOCOL 28). */
function judgeVolume(
  header: PeerHeader,
  hello: Hello,
  memory: PeerMemory | undefined,
): HelloVerdict | undefined {
  if (memory === undefined) return undefined;
  if (memory.incarnation !== header.senderIncarnation) {
    return memory.replaced.includes(header.senderIncarnation)
      ? refuse(Refusal_Reason.RETIRED_INCARNATION, 'another volume has taken the place of this one')
      : undefined;
  }
  if (hello.bootCounter < memory.bootCounter) {
    return refuse(
      Refusal_Reason.ROLLED_BACK,
      `start ${hello.bootCounter} of this volume comes after start ${memory.bootCounter}: it is an older copy`,
    );
  }
  return hello.bootCounter === memory.bootCounter && hello.nonce !== memory.nonce
    ? refuse(
        Refusal_Reason.COPIED_VOLUME,
        `start ${hello.bootCounter} of this volume is another process: the volume was copied`,
      )
    : undefined;
}
