import * as grpc from '@grpc/grpc-js';
import { expect } from 'chai';
import { KvClient, type KvError, type WatchEvent } from '../../../client/kv-client.ts';
import {
  KeyValueStoreService,
  type ScanRequest,
  type ScanResponse,
  type WatchEvent as WireEvent,
  WatchEvent_Kind,
  type WatchRequest,
  type WatchResponse,
} from '../../../proto/gen/kvstore.ts';

const version = (wallMs: number) => ({ wallMs, counter: 0, writer: 7 });

type Scripted<Request, Response> = (call: grpc.ServerWritableStream<Request, Response>) => void;

interface Script {
  readonly scan?: Scripted<ScanRequest, ScanResponse>;
  readonly watch?: Scripted<WatchRequest, WatchResponse>;
}

/** A server whose streams do as scripted. */
class ScriptedNode {
  readonly scans: ScanRequest[] = [];
  readonly watches: WatchRequest[] = [];
  cancelled = 0;
  port = 0;
  private readonly server = new grpc.Server();

  static async start({ scan = () => undefined, watch = () => undefined }: Script): Promise<ScriptedNode> {
    const node = new ScriptedNode();
    const counted =
      <Request, Response>(
        seen: Request[],
        answer: Scripted<Request, Response>,
      ): Scripted<Request, Response> =>
      (call) => {
        seen.push(call.request);
        call.once('cancelled', () => (node.cancelled += 1));
        answer(call);
      };
    node.server.addService(KeyValueStoreService, {
      scan: counted(node.scans, scan),
      watch: counted(node.watches, watch),
      ping: (_call: unknown, done: grpc.sendUnaryData<object>) =>
        done(null, { message: 'OK', nodeId: 'scripted', clusterId: '', epoch: 0, version: 'test' }),
    });
    node.port = await new Promise<number>((resolve, reject) => {
      node.server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
        if (error === null) resolve(port);
        else reject(error);
      });
    });
    return node;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  stop(): void {
    this.server.forceShutdown();
  }
}

function fail(
  call: grpc.ServerWritableStream<unknown, unknown>,
  code: grpc.status,
  details = 'scripted',
): void {
  const metadata = new grpc.Metadata();
  metadata.set('kv-retryable', String(code === grpc.status.UNAVAILABLE));
  call.emit('error', { code, details, metadata });
}

const entry = (key: string) => ({
  key: Buffer.from(key),
  value: Buffer.from(`value of ${key}`),
  version: version(1),
});
const put = (key: string, wallMs: number): WireEvent => ({
  kind: WatchEvent_Kind.PUT,
  key: Buffer.from(key),
  value: Buffer.from(`${wallMs}`),
  version: version(wallMs),
});

async function failureOf(promise: Promise<unknown>): Promise<KvError> {
  try {
    await promise;
  } catch (error) {
    return error as KvError;
  }
  throw new Error('it succeeded');
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('streams of the client library', () => {
  const nodes: ScriptedNode[] = [];
  const clients: KvClient[] = [];

  const start = async (script: Script): Promise<ScriptedNode> => {
    const node = await ScriptedNode.start(script);
    nodes.push(node);
    return node;
  };
  /** A client that asks the nodes in the order given. */
  const connect = async (timeoutMs: number, ...asked: readonly ScriptedNode[]): Promise<KvClient> => {
    const client = await KvClient.connect({
      endpoints: asked.map(({ address }) => address),
      timeoutMs,
      random: { bytes: (length) => Buffer.alloc(length), fraction: () => 0 },
    });
    clients.push(client);
    return client;
  };

  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    for (const node of nodes.splice(0)) node.stop();
  });

  describe('a scan', () => {
    const sends =
      (...keys: readonly string[]): Scripted<ScanRequest, ScanResponse> =>
      (call) => {
        for (const key of keys) call.write({ entries: [entry(key)] });
        call.end();
      };
    const keysOf = async (client: KvClient, options = {}): Promise<string[]> =>
      (await collect(client.scan(options))).map(({ key }) => key.toString());

    it('gives entries as they come, with the bounds that were asked for', async () => {
      const node = await start({ scan: sends('a', 'b') });
      const client = await connect(3000, node);
      const found = await collect(
        client.scan({ prefix: 'p', start: 's', end: 'e', startAfter: 'x', limit: 5 }),
      );
      expect(
        found.map(({ key, value, version: seen }) => [key.toString(), value.toString(), seen.wallMs]),
      ).to.deep.equal([
        ['a', 'value of a', 1],
        ['b', 'value of b', 1],
      ]);
      const [request] = node.scans;
      const bounds = [request?.prefix, request?.start, request?.end, request?.startAfter].map(String);
      expect(bounds).to.deep.equal(['p', 's', 'e', 'x']);
      expect(request?.limit).to.equal(5);
    });

    it('goes on at another node after the last key, with what is left of the limit', async () => {
      const broken: ScriptedNode = await start({
        scan: (call) => {
          call.write({ entries: [entry('a'), entry('b')] });
          call.write({ entries: [entry('c')] });
          setTimeout(() => broken.stop(), 20);
        },
      });
      const other = await start({ scan: sends('d', 'e') });
      const client = await connect(3000, broken, other);
      expect(await keysOf(client, { limit: 5 })).to.deep.equal(['a', 'b', 'c', 'd', 'e']);
      expect(String(other.scans[0]?.startAfter)).to.equal('c');
      expect(other.scans[0]?.limit).to.equal(2);
    });

    it('asks nobody for more when the limit was reached before the stream broke', async () => {
      const broken = await start({
        scan: (call) => {
          call.write({ entries: [entry('a'), entry('b')] });
          setTimeout(() => fail(call, grpc.status.UNAVAILABLE), 20);
        },
      });
      const client = await connect(3000, broken);
      expect(await keysOf(client, { limit: 2 })).to.deep.equal(['a', 'b']);
      expect(broken.scans).to.have.length(1);
    });

    it('goes elsewhere when a node says nothing for a while', async () => {
      const hanging = await start({
        scan: (call) => {
          if (call.request.startAfter.length === 0) call.write({ entries: [entry('a')] });
        },
      });
      const other = await start({ scan: sends('b') });
      const client = await connect(300, hanging, other);
      expect(await keysOf(client)).to.deep.equal(['a', 'b']);
      expect(hanging.scans).to.have.length(2);
    });

    it('throws what a node says for good', async () => {
      const node = await start({
        scan: (call) => {
          call.write({ entries: [entry('a')] });
          setTimeout(() => fail(call, grpc.status.INVALID_ARGUMENT, 'no'), 10);
        },
      });
      const client = await connect(3000, node);
      expect(await failureOf(keysOf(client))).to.include({ code: 'INVALID_ARGUMENT', message: 'no' });
      expect(node.scans).to.have.length(1);
    });

    it('ends its call when its reader stops, or its signal aborts', async () => {
      const node = await start({ scan: (call) => void call.write({ entries: [entry('a'), entry('b')] }) });
      const client = await connect(3000, node);
      for await (const { key } of client.scan()) {
        expect(key.toString()).to.equal('a');
        break;
      }
      const controller = new AbortController();
      const reason = new Error('enough');
      setTimeout(() => controller.abort(reason), 20);
      expect(await failureOf(keysOf(client, { signal: controller.signal }))).to.equal(reason);
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(node.cancelled).to.equal(2);
    });
  });

  describe('a watch', () => {
    const token = (name: string): Buffer => Buffer.from(name);
    /** Takes events until `count` of them are there. */
    const take = async (client: KvClient, count: number, options = {}): Promise<WatchEvent[]> => {
      const events: WatchEvent[] = [];
      for await (const event of client.watch(options)) {
        events.push(event);
        if (events.length === count) break;
      }
      return events;
    };
    const said = (events: readonly WatchEvent[]): string[] =>
      events.map((event) =>
        event.kind === 'progress'
          ? `at ${event.token.toString()}`
          : `${event.kind} ${event.key.toString()}@${event.version.wallMs}`,
      );

    it('tells puts, deletes, and how far it is', async () => {
      const node = await start({
        watch: (call) => {
          call.write({ events: [], token: token('one') });
          const deleted = { ...put('b', 2), kind: WatchEvent_Kind.DELETE, value: Buffer.alloc(0) };
          call.write({ events: [{ ...put('a', 1), remainingTtlMs: 50 }, deleted], token: Buffer.alloc(0) });
          call.write({ events: [put('a', 3)], token: token('two') });
        },
      });
      const client = await connect(3000, node);
      const events = await take(client, 5, { prefix: 'p' });
      expect(said(events)).to.deep.equal(['at one', 'put a@1', 'delete b@2', 'put a@3', 'at two']);
      expect(events[1]).to.deep.include({ value: Buffer.from('1'), remainingTtlMs: 50 });
      expect(String(node.watches[0]?.prefix)).to.equal('p');
      expect(node.watches[0]?.token).to.have.length(0);
    });

    it('goes on at another node from its last token, repeats nothing and takes nothing back', async () => {
      const broken: ScriptedNode = await start({
        watch: (call) => {
          call.write({ events: [put('a', 1), put('b', 5)], token: token('one') });
          call.write({ events: [put('a', 2)], token: Buffer.alloc(0) });
          setTimeout(() => broken.stop(), 30);
        },
      });
      const other = await start({
        watch: (call) => {
          call.write({ events: [put('a', 2), put('b', 4), put('b', 6)], token: token('three') });
        },
      });
      const client = await connect(3000, broken, other);
      const events = await take(client, 6);
      expect(said(events)).to.deep.equal(['put a@1', 'put b@5', 'at one', 'put a@2', 'put b@6', 'at three']);
      expect(String(other.watches[0]?.token)).to.equal('one');
    });

    it('begins with the token that it is given', async () => {
      const node = await start({ watch: (call) => void call.write({ events: [], token: token('next') }) });
      const client = await connect(3000, node);
      await take(client, 1, { token: token('saved') });
      expect(String(node.watches[0]?.token)).to.equal('saved');
    });

    it('throws that its token is too old', async () => {
      const node = await start({ watch: (call) => fail(call, grpc.status.OUT_OF_RANGE, 'scan again') });
      const client = await connect(3000, node);
      expect(await failureOf(take(client, 1))).to.include({ code: 'OUT_OF_RANGE', message: 'scan again' });
      expect(node.watches).to.have.length(1);
    });

    it('throws UNAVAILABLE when nobody goes on with it in time', async () => {
      const node = await start({ watch: (call) => fail(call, grpc.status.UNAVAILABLE, 'draining') });
      const client = await connect(3000, node);
      const error = await failureOf(take(client, 1, { timeoutMs: 300 }));
      expect(error).to.include({ code: 'UNAVAILABLE' });
      expect(error.message).to.contain('draining');
    });

    it('does not hurry back to a node that ends it again and again', async () => {
      const node = await start({
        watch: (call) => {
          call.write({ events: [], token: token('one') });
          call.end();
        },
      });
      const client = await connect(3000, node);
      const controller = new AbortController();
      setTimeout(() => controller.abort(new Error('enough')), 600);
      await failureOf(take(client, 1000, { signal: controller.signal }));
      expect(node.watches.length).to.be.within(2, 8);
    });

    it('ends when its signal aborts, and when its client is closed', async () => {
      const node = await start({ watch: (call) => void call.write({ events: [], token: token('one') }) });
      const client = await connect(3000, node);
      const controller = new AbortController();
      const reason = new Error('enough');
      setTimeout(() => controller.abort(reason), 20);
      expect(await failureOf(take(client, 2, { signal: controller.signal }))).to.equal(reason);
      const began = performance.now();
      setTimeout(() => client.close(), 20);
      expect(await failureOf(take(client, 2))).to.include({ code: 'FAILED_PRECONDITION' });
      expect(performance.now() - began).to.be.lessThan(2000);
    });
  });
});
