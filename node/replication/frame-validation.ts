import type {
  Ack,
  Cursor,
  DigestReply,
  DigestRequest,
  Entries,
  ForwardReply,
  ForwardRequest,
  Heartbeat,
  Hello,
  KeyedRecord,
  LeafReply,
  LeafRequest,
  ListedKey,
  ListReply,
  ListRequest,
  NamedWrite,
  LookupReply,
  LookupRequest,
  PeerFrame,
  PeerHeader,
  ReadResult,
} from '../../proto/gen/peer.ts';
import { MAX_WALL_MS } from '../../model/version.ts';
import {
  badKey,
  badKeyBound,
  badName,
  badNumber,
  badPartition,
  badPartitionBits,
  badRecordSize,
  badRequestId,
  badVersion,
  eachOf,
  firstOf,
  type Problem,
} from './field-bounds.ts';

/** What some bounds depend on. */
export interface FrameBounds {
  /** Number of hash partitions of this volume. */
  readonly partitions: number;
}

/** Most items of one repeated field in one frame: well above what a sound peer sends. */
const MOST_ITEMS = 65_536;
/** Most keys of one page, with one to spare (kv-requests.ts). */
const MOST_LISTED = 10_001;
/** Longest that a caller's deadline may be (kv-service.ts), with room for clocks. */
const MAX_TIMEOUT_MS = 2 * 60_000;
/** A time to live that is added to a clock's time must stay a time. */
const MAX_TTL_MS = MAX_WALL_MS / 2;
const MAX_PAGE_BYTES = 64 * 1024 * 1024;
const MAX_MESSAGE_CHARS = 64 * 1024;
const MAX_LABEL_BYTES = 64;
const LEAF_BITS_BYTES = 32;
const LEAVES_BYTES = 256 * 6;

/** Why a header cannot be one that a sound peer sends; undefined when it can. */
export function problemWithHeader(header: PeerHeader): Problem {
  return firstOf(
    () => (/^([0-9a-f]{32})?$/.test(header.clusterId) ? undefined : 'cluster_id is not 32 hex digits'),
    () => badNumber('epoch', header.epoch, 0),
    () => badName('sender', header.sender),
    () => badNumber('incarnation', header.senderIncarnation, 1),
    // Empty in a refusal by somebody who was not told to whom it speaks.
    () => (header.recipient === '' ? undefined : badName('recipient', header.recipient)),
  );
}

/**
 * Why a frame cannot be one that a sound peer sends, whatever it means; undefined when it can. Looks at bounds only: what
 * does not pass must not reach log, clock or state. Checksums of records are for `decodeRecord`, maps for `mapFromProto`.
 */
export function problemWithFrame(body: NonNullable<PeerFrame['body']>, bounds: FrameBounds): Problem {
  switch (body.$case) {
    case 'hello':
      return problemWithHello(body.value, bounds);
    case 'refusal':
      return badLength('the message of a refusal', body.value.message.length, MAX_MESSAGE_CHARS);
    case 'entries':
      return problemWithEntries(body.value);
    case 'ack':
      return problemWithAck(body.value);
    case 'heartbeat':
      return problemWithHeartbeat(body.value, bounds);
    case 'map':
      return body.value.map === undefined ? 'a map is missing' : undefined;
    case 'read':
      return eachOf('keys', body.value.keys, MOST_ITEMS, badKey);
    case 'readReply':
      return eachOf('results', body.value.results, MOST_ITEMS, problemWithResult);
    case 'repair':
      return (
        eachOf('records', body.value.records, MOST_ITEMS, problemWithRecord) ??
        eachOf('returned writes', body.value.returnedWrites, MOST_ITEMS, problemWithWrite) ??
        unlessAbsent(body.value.finished, problemWithWrite)
      );
    case 'repairReply':
      return undefined;
    case 'list':
      return problemWithList(body.value, bounds);
    case 'listReply':
      return problemWithListReply(body.value);
    case 'forward':
      return problemWithForward(body.value);
    case 'forwardReply':
      return problemWithForwardReply(body.value);
    case 'digest':
      return problemWithDigest(body.value, bounds);
    case 'digestReply':
      return problemWithDigests(body.value, bounds);
    case 'leaf':
      return problemWithLeaf(body.value, bounds);
    case 'leafReply':
      return problemWithLeafReply(body.value);
    case 'lookup':
      return problemWithLookup(body.value);
    case 'lookupReply':
      return problemWithLookupReply(body.value);
  }
}

function problemWithHello(hello: Hello, { partitions }: FrameBounds): Problem {
  return firstOf(
    () => (hello.minProtocol <= hello.maxProtocol ? undefined : 'the range of protocols is empty'),
    () => badName('namespace', hello.namespace),
    () => badName('name', hello.name),
    () => (/^([0-9a-f]{64})?$/.test(hello.mapHash) ? undefined : 'map_hash is not 64 hex digits'),
    () => badNumber('boot counter', hello.bootCounter, 1),
    () => badNumber('unclean boot', hello.uncleanBoot, 0, hello.bootCounter),
    () => badNumber('nonce', hello.nonce, 0),
    () => badNumber('sequence ceiling', hello.sequenceCeiling, 0),
    () => badNumber('head', hello.head, 0, hello.sequenceCeiling),
    () => badNumber('recovered head', hello.recoveredHead, 0, hello.sequenceCeiling),
    () => badNumber('log start', hello.logStart, 0, hello.sequenceCeiling),
    () => badNumber('log base', hello.logBase, 0, hello.sequenceCeiling),
    () => badNumber('acknowledged sequence', hello.ackedByRecipient, 0),
    () => badNumber('acknowledged incarnation', hello.ackedIncarnation, 0),
    () => badNumber('time', hello.wallMs, 0, MAX_WALL_MS),
    () => eachOf('features', hello.features, 256, (feature) => badName('a feature', feature)),
    () => eachOf('cursors', hello.applied, MOST_ITEMS, problemWithCursor),
    () => badPartitionBits('readable', hello.readable, partitions),
    () =>
      eachOf('replaced incarnations', hello.replaced, MOST_ITEMS, (each) =>
        badNumber('a replaced incarnation', each, 1),
      ),
  );
}

function problemWithCursor(cursor: Cursor): Problem {
  return (
    badNumber("a cursor's incarnation", cursor.incarnation, 1) ??
    badNumber("a cursor's sequence", cursor.sequence, 0) ??
    badNumber("a cursor's boot counter", cursor.bootCounter, 0) ??
    badNumber("a cursor's durable head", cursor.durableHead, 0) ??
    badNumber("a cursor's tail", cursor.tailAfter, 0)
  );
}

function problemWithEntries({ after, through, entries, durableHead }: Entries): Problem {
  const range =
    badNumber('entries through', through, 0) ??
    badNumber('entries after', after, 0, through) ??
    badNumber('durable head', durableHead, 0);
  if (range !== undefined) return range;
  let last = after;
  return eachOf('entries', entries, MOST_ITEMS, ({ sequence, key, record, requestId }) => {
    const outside = badNumber('sequence', sequence, last + 1, through);
    last = sequence;
    return outside ?? badKey(key) ?? badRecordSize(record) ?? unlessAbsent(requestId, badRequestId);
  });
}

function problemWithAck({ incarnation, applied, superseded }: Ack): Problem {
  return (
    badNumber('incarnation', incarnation, 1) ??
    badNumber('acknowledged sequence', applied, 0) ??
    eachOf(
      'superseded entries',
      superseded,
      MOST_ITEMS,
      ({ sequence, version }) =>
        badNumber('superseded sequence', sequence, 1, applied) ?? badVersion(version),
    )
  );
}

function problemWithHeartbeat(heartbeat: Heartbeat, { partitions }: FrameBounds): Problem {
  const { head, durableHead, wallMs, lowWaterMs, connected, label, settled, readable } = heartbeat;
  return firstOf(
    () => badNumber('head', head, 0),
    () => badNumber('durable head', durableHead, 0, head),
    () => badNumber('time', wallMs, 0, MAX_WALL_MS),
    () => badNumber('low water', lowWaterMs, 0, MAX_WALL_MS),
    () => eachOf('peers', connected, MOST_ITEMS, (name) => badName('a peer', name)),
    () => badLength('a label', label.length, MAX_LABEL_BYTES),
    () => badPartitionBits('settled', settled, partitions),
    () => badPartitionBits('readable', readable, partitions),
  );
}

function problemWithResult({ record, horizonMs, requestId }: ReadResult): Problem {
  return (
    unlessAbsent(requestId, badRequestId) ??
    (record.length === 0 ? undefined : badRecordSize(record)) ??
    badNumber('horizon', horizonMs, 0, MAX_WALL_MS)
  );
}

/** Also for the records of a record stream. */
export function problemWithRecord({ key, record, horizonMs }: KeyedRecord): Problem {
  return badKey(key) ?? badRecordSize(record) ?? badNumber('horizon', horizonMs, 0, MAX_WALL_MS);
}

function problemWithList(request: ListRequest, { partitions }: FrameBounds): Problem {
  return (
    badKeyBound('prefix', request.prefix) ??
    badKeyBound('start_after', request.startAfter) ??
    badKeyBound('from', request.from) ??
    badKeyBound('before', request.before) ??
    badNumber('limit', request.limit, 0, MOST_LISTED) ??
    badNumber('bytes of a page', request.maxBytes, 0, MAX_PAGE_BYTES) ??
    badPartitionBits('partitions', request.partitions, partitions)
  );
}

function problemWithListReply({ keys }: ListReply): Problem {
  return eachOf('keys', keys, MOST_LISTED, problemWithListed) ?? badOrder(keys);
}

function problemWithListed({ key, version, record, expiresAtMs = 0 }: ListedKey): Problem {
  return (
    badKey(key) ??
    badVersion(version) ??
    badNumber('expiry', expiresAtMs, 0) ??
    (record.length === 0 ? undefined : badRecordSize(record))
  );
}

function problemWithForward({ timeoutMs, operation }: ForwardRequest): Problem {
  if (operation === undefined) return 'the operation is missing or not known to this version';
  const { key } = operation.value;
  const common = badNumber('timeout', timeoutMs, 0, MAX_TIMEOUT_MS) ?? badKey(key);
  if (common !== undefined) return common;
  if (operation.$case === 'get') {
    const { minVersion } = operation.value;
    return unlessAbsent(minVersion, badVersion);
  }
  const { requestId, condition } = operation.value;
  if (condition !== undefined) return 'conditions are not supported';
  return (
    (operation.$case === 'put' ? badNumber('ttl', operation.value.ttlMs ?? 1, 1, MAX_TTL_MS) : undefined) ??
    unlessAbsent(requestId, badRequestId)
  );
}

function problemWithForwardReply({ outcome }: ForwardReply): Problem {
  if (outcome === undefined) return 'the outcome is missing or not known to this version';
  if (outcome.$case === 'error')
    return badLength('a message', outcome.value.message.length, MAX_MESSAGE_CHARS);
  if (outcome.$case === 'get' && !outcome.value.found) return undefined;
  return badVersion(outcome.value.version);
}

function problemWithDigest(request: DigestRequest, { partitions }: FrameBounds): Problem {
  return (
    eachOf('partitions', request.partitions, partitions, (partition) =>
      badPartition(partition, partitions),
    ) ?? eachOf('horizons', request.horizonsMs, partitions, (ms) => badNumber('horizon', ms, 0, MAX_WALL_MS))
  );
}

function problemWithDigests({ durableHead, digests }: DigestReply, { partitions }: FrameBounds): Problem {
  return (
    badNumber('durable head', durableHead, 0) ??
    eachOf(
      'digests',
      digests,
      partitions,
      ({ partition, leaves, horizonMs }) =>
        badPartition(partition, partitions) ??
        badNumber('horizon', horizonMs, 0, MAX_WALL_MS) ??
        (leaves.length === 0 || leaves.length === LEAVES_BYTES
          ? undefined
          : `leaves have ${leaves.length} bytes, not ${LEAVES_BYTES}`),
    )
  );
}

function problemWithLeaf(request: LeafRequest, { partitions }: FrameBounds): Problem {
  return (
    badPartition(request.partition, partitions) ??
    (request.leaves.length === LEAF_BITS_BYTES
      ? undefined
      : `the choice of leaves has ${request.leaves.length} bytes, not ${LEAF_BITS_BYTES}`) ??
    badKeyBound('start_after', request.startAfter) ??
    badNumber('limit', request.limit, 0, MOST_ITEMS)
  );
}

function problemWithLeafReply({ items, through, horizonMs }: LeafReply): Problem {
  return (
    badNumber('horizon', horizonMs, 0, MAX_WALL_MS) ??
    (through === undefined ? undefined : badKeyBound('through', through)) ??
    eachOf('items', items, MOST_ITEMS, ({ key, version }) => badKey(key) ?? badVersion(version)) ??
    badOrder(items)
  );
}

function problemWithWrite({ requestId, key, version }: NamedWrite): Problem {
  if (requestId === undefined) return 'the request id is missing';
  return badRequestId(requestId) ?? badVersion(version) ?? badKey(key);
}

function problemWithLookup({ requestId, key, version }: LookupRequest): Problem {
  if (requestId === undefined && version === undefined) return 'the request id and the version are missing';
  return unlessAbsent(requestId, badRequestId) ?? unlessAbsent(version, badVersion) ?? badKey(key);
}

function problemWithLookupReply({ found, version, record, horizonMs }: LookupReply): Problem {
  return (
    (found ? badVersion(version) : undefined) ??
    (record.length === 0 ? undefined : badRecordSize(record)) ??
    badNumber('horizon', horizonMs, 0, MAX_WALL_MS)
  );
}

/** Of a field that may be left out. */
function unlessAbsent<T>(value: T | undefined, problemWith: (value: T) => Problem): Problem {
  return value === undefined ? undefined : problemWith(value);
}

/** Pages are merged by their order: a key out of place would hide others. */
function badOrder(items: readonly { readonly key: Buffer }[]): Problem {
  return eachOf('items', items, items.length, ({ key }, index) => {
    const before = items[index - 1];
    return before === undefined || Buffer.compare(before.key, key) < 0 ? undefined : 'keys are not in order';
  });
}

function badLength(what: string, length: number, most: number): Problem {
  return length <= most ? undefined : `${what} has a length of ${length}, at most ${most}`;
}
