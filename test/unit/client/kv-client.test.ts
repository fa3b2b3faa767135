import { once } from 'node:events';
import { type AddressInfo, type Server as TcpServer, type Socket, createServer } from 'node:net';
import * as grpc from '@grpc/grpc-js';
import { expect } from 'chai';
import { type ConnectOptions, KvClient, type KvError } from '../../../client/kv-client.ts';
import {
  Consistency,
  type BackupRequest,
  type BackupResponse,
  type DeleteRequest,
  type DeleteResponse,
  type GetRequest,
  type GetResponse,
  KeyValueStoreService,
  type PipelineRequest,
  type PipelineResponse,
  type PipelineResult,
  type PutRequest,
  type PutResponse,
  type RequestId,
} from '../../../proto/gen/kvstore.ts';

type Answer<Request, Response> = (
  call: { readonly request: Request },
  done: (error: Partial<grpc.StatusObject> | null, response?: Response) => void,
) => void;

interface Script {
  readonly put?: Answer<PutRequest, PutResponse>;
  readonly get?: Answer<GetRequest, GetResponse>;
  readonly delete?: Answer<DeleteRequest, DeleteResponse>;
  readonly backup?: Answer<BackupRequest, BackupResponse>;
}

const version = { wallMs: 1_700_000_000_000, counter: 1, writer: 7 };
const stored: Answer<PutRequest, PutResponse> = (_call, done) =>
  done(null, { oldValue: Buffer.alloc(0), oldFound: false, version });
const found: Answer<GetRequest, GetResponse> = (_call, done) =>
  done(null, { value: Buffer.from('v'), found: true, version });
const removed: Answer<DeleteRequest, DeleteResponse> = (_call, done) =>
  done(null, { existed: true, version });
const snapshot: BackupResponse = { success: true, message: '', name: 'snapshot', records: 0, sizeBytes: 0 };
/** Refuses as a node does: with the trailer that says whether the request may be sent again. */
const refusing =
  (code: grpc.status, details: string): Answer<unknown, never> =>
  (_call, done) => {
    const metadata = new grpc.Metadata();
    metadata.set('kv-retryable', String(code === grpc.status.UNAVAILABLE));
    done({ code, details, metadata });
  };

/** A server that answers as scripted: for the faults that a healthy node does not produce. */
class ScriptedNode {
  readonly calls: string[] = [];
  /** Ids of the writes that came, as `<number> <attempt>`. */
  readonly attempts: string[] = [];
  readonly clients = new Set<string>();
  /** How many operations came together. */
  readonly batches: number[] = [];
  readonly reads: GetRequest[] = [];
  private readonly streams = new Set<grpc.ServerDuplexStream<PipelineRequest, PipelineResponse>>();
  private readonly server = new grpc.Server();
  port = 0;

  static async start(script: Script, atPort = 0): Promise<ScriptedNode> {
    const node = new ScriptedNode();
    const count =
      <Request, Response>(name: string, answer: Answer<Request, Response>): Answer<Request, Response> =>
      (call, done) => {
        node.calls.push(name);
        const { requestId } = call.request as { requestId?: RequestId | undefined };
        if (requestId !== undefined) {
          node.attempts.push(`${requestId.number} ${requestId.attempt}`);
          node.clients.add(`${requestId.clientId.toString('hex')} ${requestId.clientStartMs}`);
        }
        answer(call, done);
      };
    node.server.addService(KeyValueStoreService, {
      pipeline: pipelineOf(node, {
        put: count('put', script.put ?? stored),
        get: count('get', script.get ?? found),
        delete: count('delete', script.delete ?? removed),
      }),
      backup: count('backup', script.backup ?? ((_call, done) => done(null, snapshot))),
      ping: (_call: unknown, done: grpc.sendUnaryData<object>) =>
        done(null, { message: 'OK', nodeId: 'scripted', clusterId: '', epoch: 0, version: 'test' }),
    });
    node.port = await new Promise<number>((resolve, reject) => {
      node.server.bindAsync(`127.0.0.1:${atPort}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
        if (error === null) resolve(port);
        else reject(error);
      });
    });
    return node;
  }

  opened(call: grpc.ServerDuplexStream<PipelineRequest, PipelineResponse>): void {
    this.streams.add(call);
    call.on('close', () => this.streams.delete(call));
    call.on('data', ({ operations }: PipelineRequest) => {
      this.batches.push(operations.length);
      for (const { operation } of operations)
        if (operation?.$case === 'get') this.reads.push(operation.value);
    });
  }

  /** Asks clients to go elsewhere. */
  sendAway(): void {
    for (const call of this.streams) call.write({ results: [], epoch: 0, closing: true });
  }

  get openStreams(): number {
    return this.streams.size;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  stop(): void {
    this.server.forceShutdown();
  }
}

/** Answers each operation by the script. An error that no node would answer, one without its trailer, ends the stream. */
function pipelineOf(node: ScriptedNode, script: Required<Pick<Script, 'put' | 'get' | 'delete'>>) {
  return (call: grpc.ServerDuplexStream<PipelineRequest, PipelineResponse>): void => {
    const answer =
      (number: number, $case: 'put' | 'get' | 'delete') =>
      (error: Partial<grpc.StatusObject> | null, value?: unknown): void => {
        const retryable = error?.metadata?.get('kv-retryable')[0];
        if (error !== null && retryable === undefined) {
          call.emit('error', error);
          return;
        }
        const { code = 0, details: message = '' } = error ?? {};
        const result =
          error === null
            ? ({ $case, value } as PipelineResult['result'])
            : { $case: 'error' as const, value: { code, message, retryable: retryable === 'true' } };
        call.write({ results: [{ number, result }], epoch: 0, closing: false });
      };
    node.opened(call);
    call.on('error', () => undefined);
    call.on('end', () => call.end());
    call.on('data', ({ operations, clientId, clientStartMs }: PipelineRequest) => {
      for (const { number, operation, requestNumber, attempt } of operations) {
        const requestId = { clientId, clientStartMs, number: requestNumber, attempt };
        if (operation?.$case === 'get') script.get({ request: operation.value }, answer(number, 'get'));
        else if (operation?.$case === 'put')
          script.put({ request: { ...operation.value, requestId } }, answer(number, 'put'));
        else if (operation?.$case === 'delete')
          script.delete({ request: { ...operation.value, requestId } }, answer(number, 'delete'));
      }
    });
  };
}

async function failureOf(promise: Promise<unknown>): Promise<KvError> {
  try {
    await promise;
  } catch (error) {
    return error as KvError;
  }
  throw new Error('it succeeded');
}

describe('the client library', () => {
  const nodes: ScriptedNode[] = [];
  const clients: KvClient[] = [];
  const listeners: TcpServer[] = [];
  const muted: Socket[] = [];

  async function start(script: Script = {}): Promise<ScriptedNode> {
    const node = await ScriptedNode.start(script);
    nodes.push(node);
    return node;
  }

  /** A client that asks the endpoints in the order given. */
  async function connect(
    endpoints: readonly string[],
    timeoutMs = 3000,
    options: Partial<ConnectOptions> = {},
  ): Promise<KvClient> {
    const client = await KvClient.connect({
      endpoints,
      timeoutMs,
      random: { bytes: (length) => Buffer.alloc(length, 0xab), fraction: () => 0 },
      ...options,
    });
    clients.push(client);
    return client;
  }

  /** An address that nobody listens on. */
  async function closedPort(): Promise<string> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return `127.0.0.1:${port}`;
  }

  /** An address that takes connections and never says a word. */
  async function mutePort(): Promise<string> {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      muted.push(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    listeners.push(server);
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    for (const node of nodes.splice(0)) node.stop();
    for (const listener of listeners.splice(0)) listener.close();
    // A client that gives a mute endpoint up leaves the connection to time out.
    for (const socket of muted.splice(0)) socket.destroy();
  });

  it('connects past an endpoint that refuses connections', async () => {
    const node = await start();
    const client = await connect([await closedPort(), node.address]);
    expect((await client.ping()).nodeId).to.equal('scripted');
  });

  it('connects past an endpoint that accepts connections and stays mute', async () => {
    const node = await start();
    const client = await connect([await mutePort(), node.address], 800);
    expect((await client.put('k', 'v')).version).to.deep.equal(version);
  });

  it('says UNAVAILABLE and which endpoints it tried when none answers', async () => {
    const [a, b] = [await closedPort(), await closedPort()];
    const error = await failureOf(KvClient.connect({ endpoints: [a, b], timeoutMs: 300 }));
    expect(error).to.include({ code: 'UNAVAILABLE', retryable: true });
    expect(error.message).to.contain(a).and.contain(b);
  });

  it('sends a write elsewhere when a node answers that nothing was applied', async () => {
    const draining = await start({ put: refusing(grpc.status.UNAVAILABLE, 'draining') });
    const healthy = await start();
    const client = await connect([draining.address, healthy.address]);
    await client.put('k', 'v');
    expect(draining.calls).to.deep.equal(['put']);
    expect(healthy.calls).to.deep.equal(['put']);
    await client.put('k', 'v');
    expect(draining.calls, 'stays with the one that answered').to.have.length(1);
  });

  it('retries with backoff until its time is over', async () => {
    const node = await start({ put: refusing(grpc.status.UNAVAILABLE, 'no quorum') });
    const client = await connect([node.address]);
    const error = await failureOf(client.put('k', 'v', { timeoutMs: 400 }));
    expect(error).to.include({ code: 'UNAVAILABLE', retryable: true });
    expect(error.message).to.contain('no quorum');
    expect(node.calls.length).to.be.within(3, 12);
  });

  it('says what a node answered rather than which endpoints could not be reached', async () => {
    const alone = await start({ put: refusing(grpc.status.UNAVAILABLE, 'QUORUM needs 2 of 3 replicas') });
    const client = await connect([alone.address, await closedPort(), await closedPort()]);
    // The time ends at any of the three.
    for (const timeoutMs of [120, 160, 200, 300]) {
      const error = await failureOf(client.put('k', 'v', { timeoutMs }));
      expect(error).to.include({ code: 'UNAVAILABLE', retryable: true });
      expect(error.message).to.match(/^QUORUM needs 2 of 3 replicas \(tried /);
    }
  });

  it('no longer says what a node answered before it went away', async () => {
    const leaving = await start({
      put: (call, done) => {
        refusing(grpc.status.UNAVAILABLE, 'draining')(call, done);
        setImmediate(() => leaving.stop());
      },
    });
    const client = await connect([leaving.address, await closedPort()]);
    const error = await failureOf(client.put('k', 'v', { timeoutMs: 500 }));
    expect(error.message).to.contain('ECONNREFUSED').and.not.contain('draining');
  });

  it('gives each write a number, and all of them the id of the client and its start', async () => {
    const node = await start();
    const client = await connect([node.address]);
    await client.put('k', 'v');
    await client.delete('k');
    await client.put('k', 'v');
    expect(node.attempts).to.deep.equal(['1 0', '2 0', '3 0']);
    expect(node.clients.size).to.equal(1);
    const [id, startMs] = [...node.clients][0]?.split(' ') ?? [];
    expect(id).to.equal('ab'.repeat(16));
    expect(Date.now() - Number(startMs)).to.be.within(0, 10_000);
  });

  const unsureCases: [string, (node: () => ScriptedNode) => Answer<PutRequest, PutResponse>][] = [
    ['the connection is lost before the answer', (node) => () => node().stop()],
    [
      'something other than a node answers UNAVAILABLE',
      () => (_call, done) => done({ code: grpc.status.UNAVAILABLE, details: 'upstream reset' }),
    ],
    [
      'a node does not know what became of it',
      () => refusing(grpc.status.DEADLINE_EXCEEDED, 'outcome unknown: applied on 1 of 3 replicas'),
    ],
    ['a node hangs', () => () => undefined],
  ];
  for (const [what, answer] of unsureCases) {
    it(`sends a write again as a retry under the same id when ${what}`, async () => {
      const failing: ScriptedNode = await start({ put: answer(() => failing) });
      const healthy = await start();
      const client = await connect([failing.address, healthy.address], 1000);
      expect((await client.put('k', 'v')).version).to.deep.equal(version);
      expect(failing.attempts).to.deep.equal(['1 0']);
      expect(healthy.attempts).to.deep.equal(['1 1']);
      expect([...healthy.clients]).to.deep.equal([...failing.clients]);
    });
  }

  it('counts no attempt that is known to have applied nothing', async () => {
    const draining = await start({ put: refusing(grpc.status.UNAVAILABLE, 'draining') });
    const healthy = await start();
    const client = await connect([await closedPort(), draining.address, healthy.address]);
    await client.put('k', 'v');
    expect(healthy.attempts).to.deep.equal(['1 0']);
  });

  it('goes on with a delete as well', async () => {
    const dying: ScriptedNode = await start({ delete: () => dying.stop() });
    const healthy = await start();
    const client = await connect([dying.address, healthy.address]);
    expect((await client.delete('k')).existed).to.equal(true);
    expect(healthy.attempts).to.deep.equal(['1 1']);
  });

  const inconclusive: [string, grpc.status, string][] = [
    ['finds too few replicas to tell', grpc.status.UNAVAILABLE, 'nothing was applied by this attempt'],
    ['is refused as too old', grpc.status.FAILED_PRECONDITION, 'not remembered'],
    ['meets a full node', grpc.status.RESOURCE_EXHAUSTED, 'nothing was applied'],
  ];
  for (const [what, code, details] of inconclusive) {
    it(`says that the outcome is unknown when the retry ${what}`, async () => {
      const dying: ScriptedNode = await start({ put: () => dying.stop() });
      const other = await start({ put: refusing(code, details) });
      const client = await connect([dying.address, other.address], 600);
      const error = await failureOf(client.put('k', 'v'));
      expect(error).to.include({ code: 'DEADLINE_EXCEEDED', retryable: false });
      expect(error.message).to.contain('may or may not have been applied');
      expect(other.attempts[0]).to.equal('1 1');
    });
  }

  it('sends a write again no longer than nodes remember it', async () => {
    let aheadMs = 0;
    const clock = { wallMs: () => Date.now(), monotonicMs: () => performance.now() + aheadMs };
    const node = await start({
      put: (call, done) => {
        aheadMs += 46_000;
        refusing(grpc.status.DEADLINE_EXCEEDED, 'outcome unknown: applied on 1 of 3 replicas')(call, done);
      },
    });
    const client = await connect([node.address], 3000, { clock });
    const error = await failureOf(client.put('k', 'v', { timeoutMs: 600_000 }));
    expect(error).to.include({ code: 'DEADLINE_EXCEEDED' });
    expect(error.message).to.contain('applied on 1 of 3');
    expect(node.attempts).to.deep.equal(['1 0']);
  });

  it('never makes a backup twice', async () => {
    const dying: ScriptedNode = await start({ backup: () => dying.stop() });
    const healthy = await start();
    const client = await connect([dying.address, healthy.address]);
    const error = await failureOf(client.backup());
    expect(error).to.include({ code: 'DEADLINE_EXCEEDED', retryable: false });
    expect(healthy.calls).to.deep.equal([]);
  });

  it('sends a read again when the connection is lost before the answer', async () => {
    const dying = await start({ get: () => dying.stop() });
    const healthy = await start();
    const client = await connect([dying.address, healthy.address]);
    expect((await client.get('k'))?.value.toString()).to.equal('v');
  });

  it('asks another node for a read that hangs', async () => {
    const hanging = await start({ get: () => undefined });
    const healthy = await start();
    const client = await connect([hanging.address, healthy.address]);
    expect((await client.get('k', { timeoutMs: 600 }))?.value.toString()).to.equal('v');
  });

  it('says that the outcome is unknown when a write gets no answer in time', async () => {
    const hanging = await start({ put: () => undefined });
    const client = await connect([hanging.address]);
    const error = await failureOf(client.put('k', 'v', { timeoutMs: 200 }));
    expect(error).to.include({ code: 'DEADLINE_EXCEEDED', retryable: false });
  });

  it('passes on what a node refuses, without asking another', async () => {
    const node = await start({ put: refusing(grpc.status.INVALID_ARGUMENT, 'the key is empty') });
    const healthy = await start();
    const client = await connect([node.address, healthy.address]);
    const error = await failureOf(client.put('', 'v'));
    expect(error).to.include({ code: 'INVALID_ARGUMENT', retryable: false, message: 'the key is empty' });
    expect(healthy.calls).to.deep.equal([]);
  });

  it('ends an operation with the reason of its signal', async () => {
    const hanging = await start({ put: () => undefined });
    const client = await connect([hanging.address]);
    const controller = new AbortController();
    const reason = new Error('the user left');
    const put = failureOf(client.put('k', 'v', { signal: controller.signal }));
    controller.abort(reason);
    expect(await put).to.equal(reason);
    expect(await failureOf(client.get('k', { signal: AbortSignal.abort(reason) }))).to.equal(reason);
  });

  it('ends the wait between retries with the reason of its signal', async () => {
    const client = await connect([(await start({ get: refusing(grpc.status.UNAVAILABLE, 'no') })).address]);
    const reason = new Error('the user left');
    const controller = new AbortController();
    const get = failureOf(client.get('k', { signal: controller.signal, timeoutMs: 60_000 }));
    while ((nodes[0]?.calls.length ?? 0) < 4) await new Promise((resolve) => setImmediate(resolve));
    controller.abort(reason);
    expect(await get).to.equal(reason);
  });

  it('sends what is begun in one turn as one batch, and a lone operation at once', async () => {
    const node = await start();
    const client = await connect([node.address]);
    await client.get('alone');
    await Promise.all(Array.from({ length: 300 }, (_, index) => client.put(`k${index}`, 'v')));
    await client.multiGet(['a', 'b', 'c']);
    await client.multiPut([
      ['a', '1'],
      ['b', '2'],
    ]);
    expect(node.batches).to.deep.equal([1, 300, 3, 2]);
    expect(node.openStreams).to.equal(1);
  });

  it('has no more operations under way on a stream than its window, and sends the others as results come', async () => {
    const held: (() => void)[] = [];
    const node = await start({ get: (call, done) => void held.push(() => found(call, done)) });
    const client = await connect([node.address], 20_000);
    const all = Promise.all(Array.from({ length: 5000 }, (_, index) => client.get(`k${index}`)));
    while (held.length < 4096) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(held).to.have.length(4096);
    let answered = 0;
    while (answered < 5000) {
      for (const answer of held.splice(0)) {
        answer();
        answered += 1;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await all).every((result) => result?.value.toString() === 'v')).to.equal(true);
  });

  it('opens another stream when a node asks it to leave, and hears what the old one owes', async () => {
    let answerLate = (): void => undefined;
    const leaving = await start({
      put: (call, done) => {
        answerLate = () => stored(call, done);
      },
    });
    const other = await start();
    const client = await connect([leaving.address, other.address]);
    const owed = client.put('late', 'v');
    while (leaving.calls.length === 0) await new Promise((resolve) => setImmediate(resolve));
    leaving.sendAway();
    while (other.calls.length === 0) {
      await client.put('next', 'v');
      await new Promise((resolve) => setImmediate(resolve));
      if (leaving.calls.length > 1) answerLate();
    }
    answerLate();
    expect((await owed).version).to.deep.equal(version);
    expect(leaving.attempts[0]).to.equal('1 0');
    while (leaving.openStreams > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('reads one replica that has what it has seen of the key, unless it is told otherwise', async () => {
    const node = await start();
    const client = await connect([node.address]);
    await client.get('unknown');
    await client.put('k', 'v');
    await client.get('k');
    await client.get('k', { consistency: 'QUORUM' });
    await client.get('k', { minVersion: { ...version, counter: 9 } });
    const { ONE, QUORUM, CONSISTENCY_UNSPECIFIED } = Consistency;
    expect(node.reads.map(({ consistency, minVersion }) => [consistency, minVersion?.counter])).to.deep.equal(
      [
        [ONE, undefined],
        [ONE, version.counter],
        [QUORUM, undefined],
        [CONSISTENCY_UNSPECIFIED, 9],
      ],
    );
  });

  it('closes more than once and refuses operations afterwards', async () => {
    const node = await start();
    const client = await connect([node.address]);
    client.close();
    client.close();
    expect(await failureOf(client.get('k'))).to.include({ code: 'FAILED_PRECONDITION' });
  });

  it('returns to a node that has restarted', async () => {
    const node = await start();
    const client = await connect([node.address]);
    await client.get('k');
    node.stop();
    expect(await failureOf(client.get('k', { timeoutMs: 150 }))).to.include({ code: 'UNAVAILABLE' });
    nodes.push(await ScriptedNode.start({}, node.port));
    expect((await client.get('k'))?.value.toString()).to.equal('v');
  });
});
