import { expect } from 'chai';
import { mapToProto } from '../../client/cluster-map-codec.ts';
import { plaintext } from '../../client/grpc.ts';
import { KvError } from '../../common/errors.ts';
import { Client, type Metadata, status, type StatusObject } from '../../node/rpc/grpc.ts';
import { AdminService, type ProposeMapRequest, type ProposeMapResponse } from '../../proto/gen/admin.ts';
import { type PeerHeader, PeerService, PullRecordsRequest } from '../../proto/gen/peer.ts';
import { BadInputStand, STRANGER } from '../support/bad-input-stand.ts';
import { proofOf } from '../support/raw-peer.ts';

const { path: pullRecords } = PeerService.pullRecords;
const { path: proposeMap } = AdminService.proposeMap;
const same = (bytes: Buffer): Buffer => bytes;
const rpcOf = (path: string): string => path.slice(path.lastIndexOf('.') + 1);

describe('bad requests on the peer and admin port', () => {
  let stand: BadInputStand;
  let client: Client;
  before(async () => {
    stand = await BadInputStand.open();
    client = new Client(stand.address, plaintext(), {
      'grpc.max_send_message_length': -1,
      'grpc.enable_http_proxy': 0,
    });
  });
  after(async () => {
    client.close();
    await stand[Symbol.asyncDispose]();
  });

  const proof = (change: Partial<Parameters<typeof proofOf>[1]> = {}): Metadata =>
    proofOf(stand.home.secret, { recipient: stand.node.nodeId, ...change });

  /** One message to any method, as bytes; how the call ends. */
  function call(path: string, message: Buffer, metadata = proof({ method: path })): Promise<StatusObject> {
    const stream = client.makeBidiStreamRequest(path, same, same, metadata);
    stream.on('error', () => undefined);
    stream.on('data', () => undefined);
    stream.end(message);
    return new Promise((resolve) => stream.once('status', resolve));
  }

  describe('proposals of maps', () => {
    /** Sends a proposal as it is, sound or not. */
    async function propose(request: Partial<ProposeMapRequest>): Promise<ProposeMapResponse | KvError> {
      const message = { map: undefined, expectedEpoch: 2, expectedHash: stand.map.hash, ...request };
      const { requestSerialize, responseDeserialize } = AdminService.proposeMap;
      return new Promise((resolve) => {
        client.makeUnaryRequest(
          proposeMap,
          requestSerialize,
          responseDeserialize,
          message,
          proof({ method: proposeMap }),
          (error, answer) => {
            if (error === null && answer !== undefined) resolve(answer);
            else resolve(new KvError('INVALID_ARGUMENT', error?.details ?? '', { cause: error }));
          },
        );
      });
    }
    const wire = (change: Parameters<BadInputStand['mapWith']>[0]) => mapToProto(stand.mapWith(change));

    const broken: readonly [string, () => Partial<ProposeMapRequest>, RegExp][] = [
      ['no map', () => ({}), /map is missing/],
      [
        'a replica that is no member',
        () => ({ map: wire({ assignment: stand.map.assignment.map(() => [3]) }) }),
        /not there/,
      ],
      [
        'partitions of nobody',
        () => ({ map: wire({ assignment: stand.map.assignment.map(() => []) }) }),
        /no replicas/,
      ],
      [
        'a member twice',
        () => ({ map: wire({ members: stand.map.members.map(() => stand.map.members[0]!) }) }),
        /share a name/,
      ],
      [
        'too few assignments',
        () => ({ map: wire({ assignment: stand.map.assignment.slice(1) }) }),
        /15 assignments/,
      ],
      ['a hash of something else', () => ({ map: { ...wire({}), hash: 'd'.repeat(64) } }), /hash/],
      ['epoch 0', () => ({ map: wire({ epoch: 0 }) }), /epoch/],
      [
        'a move of a partition that is not there',
        () => ({
          map: wire({
            moving: { phase: 1, partitions: [{ partition: 16, oldReplicas: [0], newReplicas: [1] }] },
          }),
        }),
        /partition 16/,
      ],
      [
        'a phase that is not known',
        () => ({ map: wire({ moving: { phase: 9, partitions: [] } }) }),
        /phase 9/,
      ],
    ];
    for (const [what, request, words] of broken) {
      it(`with ${what} are INVALID_ARGUMENT, counted, and change nothing`, () =>
        stand.unchanged(async () => {
          const name = 'kv_operations_total{rpc="Admin/ProposeMap",code="INVALID_ARGUMENT"}';
          const counted = await stand.metric(name);
          const answer = await propose(request());
          expect(answer).to.be.instanceOf(KvError);
          expect((answer as KvError).message).to.match(words);
          expect(await stand.metric(name)).to.equal(counted + 1);
        }));
    }

    const unfit: readonly [string, () => Partial<ProposeMapRequest>, RegExp][] = [
      ['of a lower epoch', () => ({ map: wire({ epoch: 1 }) }), /older/],
      [
        'of the same epoch with another hash',
        () => ({ map: wire({ epoch: 2, replicationFactor: 2 }) }),
        /epoch 2/,
      ],
      [
        'that follow another map of the epoch held',
        () => ({ map: wire({}), expectedHash: 'a'.repeat(64) }),
        /not the expected/,
      ],
      [
        'with another number of partitions',
        () => ({ map: wire({ partitions: 8, assignment: stand.map.assignment.slice(0, 8) }) }),
        /8 partitions/,
      ],
      ['of another cluster id', () => ({ map: wire({ clusterId: 'c'.repeat(32) }) }), /cluster/],
      ['of another name', () => ({ map: wire({ name: 'other' }) }), /default\/other/],
    ];
    for (const [what, request, words] of unfit) {
      it(`${what} are not accepted, counted, and change nothing`, () =>
        stand.unchanged(async () => {
          const counted = await stand.refusals('map-not-taken', 'Admin/ProposeMap');
          const answer = await propose(request());
          expect(answer).to.include({ accepted: false, epoch: 2, hash: stand.map.hash });
          expect((answer as ProposeMapResponse).message).to.match(words);
          expect(await stand.refusals('map-not-taken', 'Admin/ProposeMap')).to.equal(counted + 1);
        }));
    }
  });

  describe('requests for records', () => {
    const header = (change: Partial<PeerHeader> = {}): PeerHeader => ({
      clusterId: stand.map.clusterId,
      epoch: 2,
      sender: STRANGER,
      senderIncarnation: 5,
      recipient: stand.node.nodeId,
      ...change,
    });
    const requests: readonly [string, string, () => Partial<PullRecordsRequest>, status, RegExp][] = [
      [
        'without a header',
        pullRecords,
        () => ({ header: undefined }),
        status.INVALID_ARGUMENT,
        /header is missing/,
      ],
      [
        'for another node',
        pullRecords,
        () => ({ header: header({ recipient: 'sample-2' }) }),
        status.FAILED_PRECONDITION,
        /this is sample-0/,
      ],
      [
        'of another cluster',
        pullRecords,
        () => ({ header: header({ clusterId: 'f'.repeat(32) }) }),
        status.FAILED_PRECONDITION,
        /belongs to cluster/,
      ],
      [
        'of nobody',
        pullRecords,
        () => ({ header: header({ sender: '' }) }),
        status.INVALID_ARGUMENT,
        /sender/,
      ],
      [
        'of a partition that is not there',
        pullRecords,
        () => ({ partitions: [16] }),
        status.INVALID_ARGUMENT,
        /no partition 16/,
      ],
      [
        'after a long key',
        pullRecords,
        () => ({ after: { partition: 0, key: Buffer.alloc(6000) } }),
        status.INVALID_ARGUMENT,
        /6000 bytes/,
      ],
    ];
    for (const [what, path, change, code, words] of requests) {
      it(`${what} are refused, counted, and change nothing`, () =>
        stand.unchanged(async () => {
          const name = `kv_operations_total{rpc="${rpcOf(path)}",code="${status[code]}"}`;
          const counted = await stand.metric(name);
          const request = { header: header(), after: undefined, partitions: [], ...change() };
          const result = await call(path, Buffer.from(PullRecordsRequest.encode(request).finish()));
          expect(result.code, result.details).to.equal(code);
          expect(result.details).to.match(words);
          expect(await stand.metric(name)).to.equal(counted + 1);
        }));
    }

    const ofAdministrators: readonly [string, Parameters<typeof readAll>[0], RegExp][] = [
      ['of a partition that is not there', { after: undefined, partitions: [99] }, /no partition 99/],
      ['after a long key', { after: { partition: 0, key: Buffer.alloc(6000) } }, /6000 bytes/],
    ];
    for (const [what, request, words] of ofAdministrators) {
      it(`of administrators ${what} are refused, and change nothing`, () =>
        stand.unchanged(async () => {
          const error = await readAll(request).catch((thrown: unknown) => thrown);
          expect(error).to.include({ code: 'INVALID_ARGUMENT' });
          expect((error as Error).message).to.match(words);
        }));
    }

    async function readAll(request: Parameters<BadInputStand['admin']['streamRecords']>[1]): Promise<void> {
      const { signal } = new AbortController();
      for await (const chunk of stand.admin.streamRecords(stand.node.adminTarget, request, signal)) {
        expect(chunk.records).to.deep.equal([]);
      }
    }
  });
});
