import { expect } from 'chai';
import { PROOF_METADATA, PROOF_WINDOW_MS, proveCall } from '../../common/call-proof.ts';
import { systemClock, systemScheduler, type Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import { createLogger } from '../../common/log.ts';
import { systemRandom } from '../../common/random.ts';
import {
  PeerService,
  type PeerFrame,
  type PullRecordsRequest,
  type RecordsChunk,
  Refusal_Reason,
  type WatchChunk,
  type WatchPartitionsRequest,
  WatchPartitionsRequest_Start,
} from '../../proto/gen/peer.ts';
import type { PeerStream } from '../../node/replication/transport.ts';
import {
  Client,
  Metadata,
  RpcServer,
  status,
  type ClientDuplexStream,
  type StatusObject,
} from '../../node/rpc/grpc.ts';
import { plaintext } from '../../client/grpc.ts';
import { createPeerService, peerServiceDefinition } from '../../node/rpc/peer-service.ts';
import { GrpcPeerTransport } from '../../node/rpc/peer-transport.ts';
import { ProofGuard } from '../../node/rpc/proof-guard.ts';

const secret = Buffer.alloc(32, 1);
const HOST = '127.0.0.1';
const MAX_FRAME_BYTES = 64 * 1024 * 1024;

/** A clock whose wall is off by some milliseconds. */
const clockOff = (offsetMs: number): Clock => ({
  wallMs: () => systemClock.wallMs() + offsetMs,
  monotonicMs: () => systemClock.monotonicMs(),
});

interface ServerEnd extends AsyncDisposable {
  readonly port: number;
  readonly refusals: string[];
  readonly accepted: PeerStream[];
}

async function serve(
  accept: (stream: PeerStream) => void,
  records: readonly RecordsChunk[] = [],
  watched: readonly WatchChunk[] = [],
): Promise<ServerEnd> {
  const refusals: string[] = [];
  const accepted: PeerStream[] = [];
  const guard = new ProofGuard({
    secret,
    nodeId: 'b',
    isBlank: () => false,
    clock: systemClock,
    refused: (_path, reason) => refusals.push(reason),
  });
  const server = new RpcServer({
    maxMessageBytes: MAX_FRAME_BYTES,
    tooLarge: () => void refusals.push('too-large'),
  });
  const replica = {
    acceptStream(stream: PeerStream): void {
      accepted.push(stream);
      accept(stream);
    },
    // eslint-disable-next-line @typescript-eslint/require-await
    async *streamRecords(): AsyncGenerator<RecordsChunk> {
      yield* records;
    },
    // eslint-disable-next-line @typescript-eslint/require-await
    async *watchPartitions(): AsyncGenerator<WatchChunk> {
      yield* watched;
    },
  };
  const handlers = {
    clock: systemClock,
    logger: createLogger({ level: 'silent' }),
    defaultDeadlineMs: 5000,
    admit: (path: string, metadata: Metadata) => guard.check(path, metadata),
    observe: () => undefined,
  };
  const service = createPeerService({
    replica,
    partitions: 16,
    maxFrameBytes: MAX_FRAME_BYTES,
    handlers,
    refused: (_path, reason) => void refusals.push(reason),
  });
  server.addService(peerServiceDefinition, service);
  const port = await server.bind(HOST, 0);
  return {
    port,
    refusals,
    accepted,
    [Symbol.asyncDispose]: () => {
      server.kill();
      return Promise.resolve();
    },
  };
}

function transport(
  options: { secret?: Buffer; clock?: Clock; connectTimeoutMs?: number } = {},
): GrpcPeerTransport {
  const parts = {
    nodeId: 'a',
    secret,
    clock: systemClock,
    scheduler: systemScheduler,
    random: systemRandom,
    maxFrameBytes: MAX_FRAME_BYTES,
    refused: () => undefined,
  };
  return new GrpcPeerTransport({ ...parts, ...options });
}

const echo = (stream: PeerStream): void => {
  stream.handle({
    onFrame: (frame) => void stream.send(frame),
    onDrain: () => undefined,
    onClose: () => undefined,
  });
};

const header = { clusterId: '', epoch: 0, sender: 'a', senderIncarnation: 1, recipient: 'b' };

const frame = (id: number, bytes = 1): PeerFrame => ({
  header: { ...header, epoch: id },
  body: {
    $case: 'repair',
    value: {
      id,
      records: [{ key: Buffer.alloc(1), record: Buffer.alloc(bytes), horizonMs: 0 }],
      returned: false,
      finished: undefined,
      forRead: false,
      returnedWrites: [],
    },
  },
});

/** A field that holds an encoded message, by its number. */
function nested(field: number, message: Buffer): Buffer {
  const length: number[] = [];
  for (let rest = message.length; ; rest >>>= 7) {
    length.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest);
    if (rest <= 0x7f) break;
  }
  return Buffer.concat([Buffer.from([(field << 3) | 2, ...length]), message]);
}

/** Sends frames and waits until as many have come back, or the stream has ended. */
function exchange(
  stream: PeerStream,
  frames: readonly PeerFrame[],
): Promise<{ epochs: number[]; error?: Error | undefined }> {
  return new Promise((resolve) => {
    const epochs: number[] = [];
    stream.handle({
      onFrame: ({ header }) => {
        epochs.push(header?.epoch ?? -1);
        if (epochs.length === frames.length) stream.close();
      },
      onDrain: () => undefined,
      onClose: (error) => resolve({ epochs, error }),
    });
    for (const one of frames) stream.send(one);
  });
}

describe('peer transport over gRPC', () => {
  it('carries frames both ways, in order', async () => {
    await using server = await serve(echo);
    const stream = transport().connect({ nodeId: 'b', host: HOST, port: server.port });
    const frames = Array.from({ length: 500 }, (_, id) => frame(id, id % 50 === 0 ? 100_000 : 1));
    const { epochs, error } = await exchange(stream, frames);
    expect(error).to.equal(undefined);
    expect(epochs).to.deep.equal(frames.map((_, id) => id));
  });

  it('delivers what was sent just before the close', async () => {
    const farewell = Promise.withResolvers<number>();
    await using server = await serve((stream) => {
      stream.handle({
        onFrame: () => {
          stream.send(frame(42));
          stream.close();
        },
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
    const stream = transport().connect({ nodeId: 'b', host: HOST, port: server.port });
    let last = 0;
    stream.handle({
      onFrame: ({ header }) => (last = header?.epoch ?? 0),
      onDrain: () => undefined,
      onClose: (error) => (error === undefined ? farewell.resolve(last) : farewell.reject(error)),
    });
    stream.send(frame(1));
    expect(await farewell.promise).to.equal(42);
  });

  it('tells both ends that the other one closed', async () => {
    const closed = Promise.withResolvers<Error | undefined>();
    await using server = await serve((stream) => {
      stream.handle({ onFrame: () => undefined, onDrain: () => undefined, onClose: closed.resolve });
    });
    const stream = transport().connect({ nodeId: 'b', host: HOST, port: server.port });
    const ended = exchange(stream, [frame(1)]);
    while (server.accepted.length === 0) await new Promise((resolve) => setImmediate(resolve));
    stream.close();
    expect(await closed.promise).to.equal(undefined);
    expect((await ended).error).to.equal(undefined);
  });

  it('asks to wait when the peer does not read, says when to go on, and loses nothing', async () => {
    const received: number[] = [];
    const done = Promise.withResolvers<undefined>();
    const reading = Promise.withResolvers<PeerStream>();
    await using server = await serve((stream) => reading.resolve(stream));
    const stream = transport().connect({ nodeId: 'b', host: HOST, port: server.port });
    const drained = Promise.withResolvers<undefined>();
    stream.handle({
      onFrame: () => undefined,
      onDrain: () => drained.resolve(undefined),
      onClose: () => undefined,
    });
    let sent = 0;
    while (stream.send(frame(sent, 100_000))) sent += 1;
    sent += 1;
    expect(sent * 100_000).to.be.within(1_000_000, 2_000_000);
    (await reading.promise).handle({
      onFrame: ({ header }) => {
        received.push(header?.epoch ?? -1);
        if (received.length === sent) done.resolve(undefined);
      },
      onDrain: () => undefined,
      onClose: () => undefined,
    });
    await drained.promise;
    await done.promise;
    expect(received).to.deep.equal(received.map((_, id) => id));
    stream.close();
  });

  it('ends a stream whose sender never waits, instead of filling memory', async () => {
    await using server = await serve(() => undefined);
    const stream = transport().connect({ nodeId: 'b', host: HOST, port: server.port });
    const ended = exchange(stream, []);
    for (let id = 0; id < 700; id += 1) stream.send(frame(id, 100_000));
    expect((await ended).error).to.include({ code: 'RESOURCE_EXHAUSTED' });
  });

  const refusedFrames = [
    {
      what: 'a malformed frame',
      bytes: () => Buffer.from([0x0a, 0xff]),
      code: status.INVALID_ARGUMENT,
      reason: 'malformed',
      words: 'malformed frame',
    },
    {
      what: 'a frame above the limit',
      bytes: () => Buffer.alloc(MAX_FRAME_BYTES + 1),
      code: status.RESOURCE_EXHAUSTED,
      reason: 'too-large',
      words: 'larger than max',
    },
    {
      what: 'a small frame of very many elements',
      // 300,000 empty records of a repair, of two bytes each.
      bytes: () => nested(10, Buffer.alloc(600_000, Buffer.from([0x12, 0]))),
      code: status.RESOURCE_EXHAUSTED,
      reason: 'too-large',
      words: 'more than 200000 elements',
    },
    {
      what: 'a small map of very many members',
      bytes: () => nested(7, nested(1, Buffer.alloc(600_000, Buffer.from([0x4a, 0])))),
      code: status.RESOURCE_EXHAUSTED,
      reason: 'too-large',
      words: 'more than 200000 elements',
    },
  ];
  for (const { what, bytes, code, reason, words } of refusedFrames) {
    it(`ends the stream on ${what}, says why, and counts it`, async () => {
      const closed = Promise.withResolvers<Error | undefined>();
      const frames: PeerFrame[] = [];
      await using server = await serve((stream) => {
        stream.handle({
          onFrame: (received) => void frames.push(received),
          onDrain: () => undefined,
          onClose: closed.resolve,
        });
      });
      const options = { 'grpc.max_send_message_length': -1 };
      const client = new Client(`${HOST}:${server.port}`, plaintext(), options);
      const { path } = PeerService.exchange;
      const same = (buffer: Buffer): Buffer => buffer;
      const call = client.makeBidiStreamRequest(path, same, same, proof({}));
      call.write(bytes());
      const result = await statusOf(call);
      expect({ code: result.code, reasons: server.refusals }).to.deep.equal({ code, reasons: [reason] });
      expect(result.details).to.contain(words);
      expect(await closed.promise).to.be.instanceOf(KvError);
      expect(frames).to.deep.equal([]);
      client.close();
    });
  }

  it('counts by its reason what it refuses to talk about', async () => {
    await using server = await serve((stream) => {
      stream.handle({
        onFrame: () => {
          const value = { reason: Refusal_Reason.WRONG_CLUSTER, message: 'no', map: undefined };
          stream.send({ header: frame(1).header, body: { $case: 'refusal', value } });
          stream.close();
        },
        onDrain: () => undefined,
        onClose: () => undefined,
      });
    });
    await exchange(transport().connect({ nodeId: 'b', host: HOST, port: server.port }), [frame(1)]);
    expect(server.refusals).to.deep.equal(['wrong-cluster']);
  });

  const badRequests: readonly [string, Partial<PullRecordsRequest>, string][] = [
    ['no header', { header: undefined }, 'the header is missing'],
    ['a header of nobody', { header: { ...header, sender: '' } }, 'sender has 0 bytes'],
    ['a partition that is not there', { partitions: [16] }, 'there is no partition 16'],
    [
      'a place in one that is not there',
      { after: { partition: 16, key: Buffer.alloc(1) } },
      'no partition 16',
    ],
    [
      'a place behind all keys',
      { after: { partition: 1, key: Buffer.alloc(1025) } },
      'after.key has 1025 bytes',
    ],
    ['more partitions than there are', { partitions: Array.from({ length: 17 }, () => 1) }, '17 partitions'],
  ];
  for (const [what, change, words] of badRequests) {
    it(`refuses to stream records for a request with ${what}`, async () => {
      await using server = await serve(echo);
      const peer = { nodeId: 'b', host: HOST, port: server.port };
      const request = { header, after: undefined, partitions: [], ...change };
      const pulled = collect(transport().pullRecords(peer, request, new AbortController().signal));
      const error = await pulled.catch((thrown: unknown) => thrown);
      expect(error).to.include({ code: 'INVALID_ARGUMENT' });
      expect((error as Error).message).to.contain(words);
    });
  }

  it('says where a peer cannot be reached', async () => {
    const server = await serve(echo);
    await server[Symbol.asyncDispose]();
    const { error } = await exchange(transport().connect({ nodeId: 'b', host: HOST, port: server.port }), [
      frame(1),
    ]);
    expect(error).to.include({ code: 'UNAVAILABLE' });
    expect(error?.message).to.contain(`no connection with b at ${HOST}:${server.port}`);
  });

  it('streams records, and resumes nothing by itself', async () => {
    const chunk = { head: 7, incarnation: 1, records: [], last: undefined, complete: true, horizonMs: 0 };
    await using server = await serve(echo, [chunk]);
    const request = { header, after: undefined, partitions: [] };
    const peer = { nodeId: 'b', host: HOST, port: server.port };
    const chunks = await collect(transport().pullRecords(peer, request, new AbortController().signal));
    expect(chunks).to.deep.equal([chunk]);
  });

  const watchRequest: WatchPartitionsRequest = {
    header,
    prefix: Buffer.alloc(0),
    start: WatchPartitionsRequest_Start.NOW,
    incarnation: 0,
    sequence: 0,
    marks: [{ partitions: Buffer.from([1]), markMs: 5 }],
  };

  it('streams changes of partitions', async () => {
    const chunk: WatchChunk = {
      incarnation: 1,
      sequence: 9,
      records: [{ key: Buffer.from('k'), record: Buffer.from('r') }],
      marks: [],
    };
    await using server = await serve(echo, [], [chunk]);
    const peer = { nodeId: 'b', host: HOST, port: server.port };
    const { signal } = new AbortController();
    expect(await collect(transport().watchPartitions(peer, watchRequest, signal))).to.deep.equal([chunk]);
    const headless = collect(
      transport().watchPartitions(peer, { ...watchRequest, header: undefined }, signal),
    );
    expect(await headless.catch((error: unknown) => error)).to.include({ code: 'INVALID_ARGUMENT' });
  });

  describe('proofs', () => {
    it('refuses a peer with another secret', async () => {
      await using server = await serve(echo);
      const stranger = transport({ secret: Buffer.alloc(32, 2) });
      const peer = { nodeId: 'b', host: HOST, port: server.port };
      expect((await exchange(stranger.connect(peer), [frame(1)])).error).to.include({
        code: 'UNAUTHENTICATED',
      });
      const request = { header, after: undefined, partitions: [] };
      const pulled = collect(stranger.pullRecords(peer, request, new AbortController().signal));
      expect(await pulled.catch((error: unknown) => error)).to.include({ code: 'UNAUTHENTICATED' });
      const watched = collect(stranger.watchPartitions(peer, watchRequest, new AbortController().signal));
      expect(await watched.catch((error: unknown) => error)).to.include({ code: 'UNAUTHENTICATED' });
      expect(server.refusals).to.deep.equal(['bad-proof', 'bad-proof', 'bad-proof']);
      expect(server.accepted).to.have.length(0);
    });

    it('refuses a call that is meant for another node, and says who it is', async () => {
      await using server = await serve(echo);
      const { error } = await exchange(transport().connect({ nodeId: 'c', host: HOST, port: server.port }), [
        frame(1),
      ]);
      expect(error).to.include({ code: 'PERMISSION_DENIED' });
      expect(error?.message).to.contain('this is b');
      expect(server.refusals).to.deep.equal(['wrong-recipient']);
    });

    for (const offsetMs of [-3_600_000, 3_600_000]) {
      it(`lets in a peer whose clock is off by ${offsetMs / 60_000} minutes, at the second try`, async () => {
        await using server = await serve(echo, [
          { head: 1, incarnation: 1, records: [], last: undefined, complete: true, horizonMs: 0 },
        ]);
        const late = transport({ clock: clockOff(offsetMs) });
        const peer = { nodeId: 'b', host: HOST, port: server.port };
        const { epochs, error } = await exchange(late.connect(peer), [frame(1), frame(2)]);
        expect(error).to.equal(undefined);
        expect(epochs).to.deep.equal([1, 2]);
        expect(server.refusals).to.deep.equal(['outside-window']);
        // The offset is remembered: no further call is refused.
        const request = { header, after: undefined, partitions: [] };
        await collect(late.pullRecords(peer, request, new AbortController().signal));
        expect(server.refusals).to.have.length(1);
      });
    }

    const refused: readonly [string, () => Metadata, status, string][] = [
      ['no proof', () => new Metadata(), status.UNAUTHENTICATED, 'no-proof'],
      ['a proof of another method', () => proof({ method: '/x.Y/Z' }), status.UNAUTHENTICATED, 'bad-proof'],
      [
        'an old proof',
        () => proof({ timeMs: systemClock.wallMs() - PROOF_WINDOW_MS - 1000 }),
        status.UNAUTHENTICATED,
        'outside-window',
      ],
      [
        'a time that is no number',
        () => withField(proof({}), PROOF_METADATA.time, 'now'),
        status.UNAUTHENTICATED,
        'bad-proof',
      ],
      [
        'a changed sender',
        () => withField(proof({}), PROOF_METADATA.sender, 'x'),
        status.UNAUTHENTICATED,
        'bad-proof',
      ],
      [
        'any recipient, by a node that is not blank',
        () => proof({ recipient: '*' }),
        status.PERMISSION_DENIED,
        'wrong-recipient',
      ],
    ];
    for (const [what, metadata, code, reason] of refused) {
      it(`refuses ${what}`, async () => {
        await using server = await serve(echo);
        expect((await rawCall(server.port, metadata())).code).to.equal(code);
        expect(server.refusals).to.deep.equal([reason]);
      });
    }

    it('refuses a proof that was used before, and tells its time only when that is the matter', async () => {
      await using server = await serve((stream) => {
        stream.handle({ onFrame: () => undefined, onDrain: () => undefined, onClose: () => undefined });
        stream.close();
      });
      const once = proof({});
      expect((await rawCall(server.port, once)).code).to.equal(status.OK);
      const again = await rawCall(server.port, once);
      expect(again.code).to.equal(status.UNAUTHENTICATED);
      expect(again.metadata.get(PROOF_METADATA.time)).to.deep.equal([]);
      expect(server.refusals).to.deep.equal(['replayed']);
    });
  });
});

function proof(change: Partial<{ method: string; recipient: string; timeMs: number }>): Metadata {
  const call = {
    method: PeerService.exchange.path,
    sender: 'a',
    recipient: 'b',
    timeMs: systemClock.wallMs(),
    ...change,
  };
  const made = proveCall(secret, call, systemRandom);
  const metadata = new Metadata();
  metadata.set(PROOF_METADATA.sender, made.sender);
  metadata.set(PROOF_METADATA.recipient, made.recipient);
  metadata.set(PROOF_METADATA.time, String(made.timeMs));
  metadata.set(PROOF_METADATA.nonce, made.nonce);
  metadata.set(PROOF_METADATA.mac, made.mac);
  return metadata;
}

function withField(metadata: Metadata, name: string, value: string): Metadata {
  metadata.set(name, value);
  return metadata;
}

/** Opens an exchange with this metadata and waits for its status. */
async function rawCall(port: number, metadata: Metadata): Promise<StatusObject> {
  const client = new Client(`${HOST}:${port}`, plaintext());
  const same = (bytes: Buffer): Buffer => bytes;
  const call = client.makeBidiStreamRequest(PeerService.exchange.path, same, same, metadata);
  const result = await statusOf(call);
  client.close();
  return result;
}

function statusOf(call: ClientDuplexStream<Buffer, Buffer>): Promise<StatusObject> {
  return new Promise((resolve) => {
    call.on('error', () => undefined).resume();
    call.once('status', resolve);
  });
}

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of stream) collected.push(item);
  return collected;
}
