import { expect } from 'chai';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { plaintext } from '../../client/grpc.ts';
import { systemRandom } from '../../common/random.ts';
import { Client, type Metadata, status, type StatusObject } from '../../node/rpc/grpc.ts';
import { AdminService } from '../../proto/gen/admin.ts';
import { PeerService } from '../../proto/gen/peer.ts';
import { BadInputStand } from '../support/bad-input-stand.ts';
import { proofOf } from '../support/raw-peer.ts';

const MIB = 1024 * 1024;
/** Of the peer port: 16 MiB and twice the largest value. */
const LIMIT_BYTES = 18 * MIB;
const HOUR_MS = 3_600_000;
const MAC = 'kv-proof';

const { path: exchange } = PeerService.exchange;
const { path: pullRecords } = PeerService.pullRecords;
const { path: watchPartitions } = PeerService.watchPartitions;
const { path: getMap } = AdminService.getMap;
const { path: proposeMap } = AdminService.proposeMap;
const { path: streamRecords } = AdminService.streamRecords;
const same = (bytes: Buffer): Buffer => bytes;
const rpcOf = (path: string): string => path.slice(path.lastIndexOf('.') + 1);

describe('bad input on the peer and admin port', () => {
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
    // The others look at their request when it has ended; the end of this one would be a farewell.
    if (path === exchange) stream.write(message);
    else stream.end(message);
    return new Promise((resolve) => stream.once('status', resolve));
  }

  describe('without a good proof', () => {
    const secretOfOthers = systemRandom.bytes(32);
    const proofs: readonly [string, (path: string) => Metadata, string, status][] = [
      ['no proof', emptied, 'no-proof', status.UNAUTHENTICATED],
      [
        'a proof by another secret',
        (path) => proofOf(secretOfOthers, { method: path, recipient: stand.node.nodeId }),
        'bad-proof',
        status.UNAUTHENTICATED,
      ],
      [
        'a proof for another method',
        () => proof({ method: '/kvcluster.admin.Admin/GetStatus' }),
        'bad-proof',
        status.UNAUTHENTICATED,
      ],
      [
        'a proof for another node',
        (path) => proof({ method: path, recipient: 'sample-2' }),
        'wrong-recipient',
        status.PERMISSION_DENIED,
      ],
      [
        'a proof for any node',
        (path) => proof({ method: path, recipient: '*' }),
        'wrong-recipient',
        status.PERMISSION_DENIED,
      ],
      [
        'an old proof',
        (path) => proof({ method: path, timeMs: Date.now() - HOUR_MS }),
        'outside-window',
        status.UNAUTHENTICATED,
      ],
      [
        'a proof of the future',
        (path) => proof({ method: path, timeMs: Date.now() + HOUR_MS }),
        'outside-window',
        status.UNAUTHENTICATED,
      ],
      [
        'a proof that was changed',
        (path) => {
          const metadata = proof({ method: path });
          metadata.set(
            MAC,
            String(metadata.get(MAC)[0]).replace(/^./, (first) => (first === '0' ? '1' : '0')),
          );
          return metadata;
        },
        'bad-proof',
        status.UNAUTHENTICATED,
      ],
    ];
    for (const path of [exchange, pullRecords, watchPartitions, getMap, proposeMap, streamRecords]) {
      for (const [what, metadata, reason, code] of proofs) {
        it(`${rpcOf(path)} with ${what} is refused and counted`, async () => {
          const counted = await stand.refusals(reason, rpcOf(path));
          const result = await call(path, Buffer.alloc(0), metadata(path));
          expect({ code: result.code, words: result.details.length > 20 }).to.deep.equal({
            code,
            words: true,
          });
          expect(await stand.refusals(reason, rpcOf(path))).to.equal(counted + 1);
        });
      }

      it(`${rpcOf(path)} with a proof that was used before is refused and counted`, async () => {
        const metadata = proof({ method: path });
        void call(path, Buffer.from([0xff]), metadata);
        const result = await call(path, Buffer.from([0xff]), metadata);
        expect(result.details).to.contain('used before');
        expect(await stand.refusals('replayed', rpcOf(path))).to.equal(1);
      });
    }

    it('nothing was changed by any of them', () => stand.unchanged(() => Promise.resolve()));

    function emptied(): Metadata {
      const metadata = proof();
      for (const name of Object.keys(metadata.getMap())) metadata.remove(name);
      return metadata;
    }
  });

  describe('as bytes that are no message', () => {
    const cases: readonly [string, string, () => Buffer, status, RegExp, string | undefined][] = [
      [
        'a frame cut short',
        exchange,
        () => Buffer.from('0a20616263', 'hex'),
        status.INVALID_ARGUMENT,
        /malformed frame/,
        'malformed',
      ],
      [
        'a frame of garbage',
        exchange,
        () => Buffer.alloc(1000, 0xff),
        status.INVALID_ARGUMENT,
        /malformed frame/,
        'malformed',
      ],
      [
        'a frame above the limit',
        exchange,
        () => Buffer.alloc(LIMIT_BYTES + 1),
        status.RESOURCE_EXHAUSTED,
        /larger than max/,
        'too-large',
      ],
      [
        'a frame of very many elements',
        exchange,
        () => crowded(10),
        status.RESOURCE_EXHAUSTED,
        /elements/,
        'too-large',
      ],
      [
        'a request of very many elements',
        watchPartitions,
        () => Buffer.alloc(2_000_000, Buffer.from([0x32, 0])),
        status.INVALID_ARGUMENT,
        /elements/,
        undefined,
      ],
      [
        'a request cut short',
        pullRecords,
        () => Buffer.from('0a20616263', 'hex'),
        status.INVALID_ARGUMENT,
        /malformed/,
        undefined,
      ],
      [
        'a request above the limit',
        proposeMap,
        () => Buffer.alloc(LIMIT_BYTES + 1),
        status.RESOURCE_EXHAUSTED,
        /larger than max/,
        'too-large',
      ],
      [
        'a map of very many elements',
        proposeMap,
        () => crowded(1),
        status.INVALID_ARGUMENT,
        /elements/,
        undefined,
      ],
      [
        'a map of garbage',
        proposeMap,
        () => Buffer.alloc(1000, 0xff),
        status.INVALID_ARGUMENT,
        /malformed/,
        undefined,
      ],
    ];
    for (const [what, path, bytes, code, words, reason] of cases) {
      it(`${what} is refused, counted, and changes nothing`, () =>
        stand.unchanged(async () => {
          const counted = await counts(path, code, reason);
          const result = await call(path, bytes());
          expect(result.code, result.details).to.equal(code);
          expect(result.details).to.match(words);
          expect(await counts(path, code, reason)).to.equal(counted + 1);
        }));
    }

    /** Refusals have a reason; what a handler has refused is counted by its code. */
    async function counts(path: string, code: status, reason: string | undefined): Promise<number> {
      const rpc = rpcOf(path);
      if (reason !== undefined) return stand.refusals(reason, rpc);
      return stand.metric(`kv_operations_total{rpc="${rpc}",code="${status[code]}"}`);
    }

    /** A field of a million empty messages: two megabytes that would take hundreds of them. */
    function crowded(field: number): Buffer {
      const list = Buffer.alloc(2_000_000, Buffer.from([0x4a, 0]));
      const length = Buffer.from([
        (list.length & 0x7f) | 0x80,
        ((list.length >> 7) & 0x7f) | 0x80,
        list.length >> 14,
      ]);
      return Buffer.concat([Buffer.from([(field << 3) | 2]), length, list]);
    }
  });

  describe('beneath gRPC', () => {
    it('a message that is compressed to nearly nothing does not fill memory', () =>
      stand.unchanged(async () => {
        const bomb = gzipSync(Buffer.alloc(128 * MIB));
        const result = await http2Call({ 'grpc-encoding': 'gzip' }, prefixed(bomb, bomb.length, true));
        expect(result['grpc-status']).to.equal(String(status.RESOURCE_EXHAUSTED));
        expect(await stand.refusals('too-large')).to.be.greaterThan(0);
      }));

    it('a message that says it has gigabytes is refused before they come', () =>
      stand.unchanged(async () => {
        const counted = await stand.refusals('too-large');
        const result = await http2Call({}, prefixed(Buffer.alloc(10), 2 ** 32 - 1, false));
        expect(result['grpc-status']).to.equal(String(status.RESOURCE_EXHAUSTED));
        expect(await stand.refusals('too-large')).to.equal(counted + 1);
      }));

    it('a message that ends before its length, and one that is compressed by nobody knows what', () =>
      stand.unchanged(async () => {
        const cut = await http2Call({}, prefixed(Buffer.alloc(10), 1000, false), true);
        expect(cut['grpc-status'], 'nothing was said before the end').to.equal(String(status.OK));
        const strange = await http2Call({ 'grpc-encoding': 'strange' }, prefixed(Buffer.alloc(10), 10, true));
        expect(strange['grpc-status']).to.equal(String(status.UNIMPLEMENTED));
      }));

    it('a method that there is not is UNIMPLEMENTED', () =>
      stand.unchanged(async () => {
        const { code } = await call('/kvcluster.admin.Admin/DropEverything', Buffer.alloc(0));
        expect(code).to.equal(status.UNIMPLEMENTED);
      }));

    const openings: readonly [string, Buffer][] = [
      ['garbage', systemRandom.bytes(4096)],
      ['zeros', Buffer.alloc(MIB)],
      ['a request of HTTP/1.1', Buffer.from('GET / HTTP/1.1\r\nHost: kv\r\n\r\n')],
      ['the beginning of TLS', Buffer.from('16030100c8010000c40303', 'hex')],
      [
        'a preface of HTTP/2 and then garbage',
        Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), systemRandom.bytes(4096)]),
      ],
    ];
    it('connections that begin with something else are closed, and those with nothing do no harm', () =>
      stand.unchanged(async () => {
        const silent = connect(portOf(stand.address), '127.0.0.1');
        for (const [what, bytes] of openings) expect(await closed(bytes), what).to.equal('closed');
        silent.destroy();
      }));

    /** Sends bytes on a connection of its own, and waits for the node to close it. */
    function closed(bytes: Buffer): Promise<string> {
      const socket = connect(portOf(stand.address), '127.0.0.1');
      return new Promise((resolve) => {
        const timer = setTimeout(() => resolve('still open'), 5000);
        const done = (): void => {
          clearTimeout(timer);
          socket.destroy();
          resolve('closed');
        };
        socket.once('error', done).once('close', done).once('end', done);
        socket.resume();
        socket.write(bytes);
      });
    }

    /** The trailers that a stream ends with. */
    function http2Call(
      headers: Readonly<Record<string, string>>,
      body: Buffer,
      end = false,
    ): Promise<Record<string, unknown>> {
      const session = connectHttp2(`http://${stand.address}`);
      session.on('error', () => undefined);
      const fields = Object.fromEntries(
        Object.entries(proof({ method: exchange }).getMap()).map(([name, value]) => [name, String(value)]),
      );
      const stream = session.request({
        ':method': 'POST',
        ':path': exchange,
        'content-type': 'application/grpc+proto',
        te: 'trailers',
        ...fields,
        ...headers,
      });
      stream.on('error', () => undefined);
      if (end) stream.end(body);
      else stream.write(body);
      stream.resume();
      return new Promise((resolve) => {
        const found: Record<string, unknown> = {};
        const done = (): void => {
          session.destroy();
          resolve(found);
        };
        stream.on('response', (response) => void Object.assign(found, response));
        stream.on('trailers', (trailers) => void Object.assign(found, trailers));
        stream.once('end', done).once('close', done);
      });
    }

    function prefixed(message: Buffer, length: number, compressed: boolean): Buffer {
      const head = Buffer.alloc(5);
      head[0] = compressed ? 1 : 0;
      head.writeUInt32BE(length, 1);
      return Buffer.concat([head, message]);
    }
  });

  it('has not filled the memory of the node', () => {
    expect(stand.grownMib, 'MiB').to.be.below(250);
  });
});

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}
