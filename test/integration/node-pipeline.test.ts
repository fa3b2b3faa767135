import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { KvClient } from '../../client/kv-client.ts';
import { Client, status } from '../../node/rpc/grpc.ts';
import {
  KeyValueStoreService,
  type OperationResult,
  PipelineRequest,
  type PipelineOperation,
  type PipelineResponse,
  type PipelineResult,
  PutRequest,
} from '../../proto/gen/kvstore.ts';
import { plaintext } from '../../client/grpc.ts';
import { NodeHome, NodeProcess } from '../support/node-process.ts';
import { unary, type WireError } from '../support/unary.ts';
import { waitFor } from '../support/wait.ts';

type Request = NonNullable<PipelineOperation['operation']>;

const CLIENT_ID = randomBytes(16);
const key = (name: string): Buffer => Buffer.from(name);
const put = (name: string, value: string | Buffer): Request => ({
  $case: 'put',
  value: {
    key: key(name),
    value: Buffer.from(value),
    ttlMs: undefined,
    consistency: 0,
    requestId: undefined,
    condition: undefined,
  },
});
const get = (name: string): Request => ({
  $case: 'get',
  value: { key: key(name), consistency: 0, minVersion: undefined },
});
const remove = (name: string): Request => ({
  $case: 'delete',
  value: { key: key(name), consistency: 0, requestId: undefined, condition: undefined },
});

/** A Pipeline stream as any gRPC client has it. */
class Stream {
  readonly results = new Map<number, PipelineResult['result']>();
  readonly responses: PipelineResponse[] = [];
  ended: WireError | 'ok' | undefined;
  private readonly call;
  private last = 0;

  constructor(node: NodeProcess) {
    this.call = node.client().pipeline();
    this.call.on('data', (response: PipelineResponse) => {
      this.responses.push(response);
      for (const { number, result } of response.results) this.results.set(number, result);
    });
    this.call.on('error', (error: WireError) => (this.ended ??= error));
    this.call.on('end', () => (this.ended ??= 'ok'));
  }

  /** Sends one batch; gives the numbers of its operations. */
  send(
    operations: readonly Request[],
    more: Partial<PipelineOperation> = {},
    clientId = Buffer.alloc(0),
  ): number[] {
    const numbered = operations.map((operation) => {
      this.last += 1;
      return { number: this.last, timeoutMs: 0, requestNumber: 0, attempt: 0, operation, ...more };
    });
    this.call.write({ operations: numbered, clientId, clientStartMs: 1 });
    return numbered.map(({ number }) => number);
  }

  async resultsOf(numbers: readonly number[]): Promise<PipelineResult['result'][]> {
    await waitFor({ what: 'the results', timeoutMs: 20_000, intervalMs: 2 }, (see) => {
      see(`${this.results.size} have come, the stream is ${String(this.ended ?? 'open')}`);
      return numbers.every((number) => this.results.has(number));
    });
    return numbers.map((number) => this.results.get(number));
  }

  async run(operations: readonly Request[]): Promise<PipelineResult['result'][]> {
    return this.resultsOf(this.send(operations));
  }

  pause(): void {
    this.call.pause();
  }

  resume(): void {
    this.call.resume();
  }

  end(): void {
    this.call.end();
  }

  [Symbol.dispose](): void {
    this.call.cancel();
  }
}

const errorOf = (result: OperationResult['result'] | PipelineResult['result']): number | undefined =>
  result?.$case === 'error' ? result.value.code : undefined;

describe('the pipeline of a node', () => {
  const home = new NodeHome();
  let node: NodeProcess;
  before(async () => {
    node = await NodeProcess.startAlone({ home, flags: { 'max-value-bytes': '65536' } });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    home[Symbol.dispose]();
  });

  it('answers each operation of a batch by its number', async () => {
    using stream = new Stream(node);
    const [stored] = await stream.run([put('a', 'one')]);
    const [found, missing, removed] = await stream.run([get('a'), get('nothing'), remove('gone')]);
    expect(stored).to.have.nested.property('value.oldFound', false);
    expect(found).to.have.nested.property('value.value').deep.equal(key('one'));
    expect(missing).to.have.nested.property('value.found', false);
    expect(removed).to.have.nested.property('value.existed', false);
    expect(stream.responses.every(({ epoch, closing }) => epoch > 0 && !closing)).to.equal(true);
  });

  it('fails an operation for itself, and carries the others out', async () => {
    using stream = new Stream(node);
    const results = await stream.run([
      put('', 'v'),
      put('large', Buffer.alloc(65_537)),
      put('fine', 'v'),
      get('k'.repeat(1025)),
    ]);
    const { INVALID_ARGUMENT } = status;
    expect(results.map(errorOf)).to.deep.equal([
      INVALID_ARGUMENT,
      INVALID_ARGUMENT,
      undefined,
      INVALID_ARGUMENT,
    ]);
    expect(stream.ended).to.equal(undefined);
  });

  it('refuses an operation with a condition, or a field that may be one, and executes nothing of it', async () => {
    const client = new Client(node.clientAddress, plaintext());
    const same = (bytes: Buffer): Buffer => bytes;
    const call = client.makeBidiStreamRequest<Buffer, Buffer>(KeyValueStoreService.pipeline.path, same, same);
    const answers: Buffer[] = [];
    call.on('data', (bytes: Buffer) => answers.push(bytes));
    call.on('error', () => undefined);
    const inner = Buffer.from(
      PutRequest.encode((put('conditional', 'v') as { value: PutRequest }).value).finish(),
    );
    // A field 9 of the put, which is reserved.
    const operation = Buffer.concat([
      Buffer.from([0x08, 1, 0x2a, inner.length + 2]),
      inner,
      Buffer.from([0x48, 1]),
    ]);
    call.write(Buffer.concat([Buffer.from([0x0a, operation.length]), operation]));
    try {
      await waitFor({ what: 'the answer', timeoutMs: 5000, intervalMs: 5 }, () => answers.length > 0);
      const [result] = KeyValueStoreService.pipeline.responseDeserialize(
        answers[0] ?? Buffer.alloc(0),
      ).results;
      expect(errorOf(result?.result)).to.equal(status.UNIMPLEMENTED);
    } finally {
      call.cancel();
      client.close();
    }
    using stream = new Stream(node);
    expect((await stream.run([get('conditional')]))[0]).to.have.nested.property('value.found', false);
  });

  it('ends a stream on which comes what is no batch', async () => {
    const client = new Client(node.clientAddress, plaintext());
    const same = (bytes: Buffer): Buffer => bytes;
    const call = client.makeBidiStreamRequest<Buffer, Buffer>(KeyValueStoreService.pipeline.path, same, same);
    const ended = new Promise<WireError>((resolve) => call.on('error', resolve));
    call.on('data', () => undefined);
    call.write(Buffer.from([0x0a, 200, 1]));
    const error = await ended;
    client.close();
    expect(error.code).to.equal(status.INVALID_ARGUMENT);
    expect(error.details).to.contain('truncated');
  });

  it('applies a write that is sent again under its request number once', async () => {
    using stream = new Stream(node);
    const once = { requestNumber: 7 };
    const [first] = await stream.resultsOf(stream.send([put('retried', '1')], once, CLIENT_ID));
    await stream.run([put('retried', '2')]);
    const again = { ...once, attempt: 1 };
    const [second] = await stream.resultsOf(stream.send([put('retried', '1')], again, CLIENT_ID));
    expect(second).to.deep.equal(first);
    expect((await stream.run([get('retried')]))[0])
      .to.have.nested.property('value.value')
      .deep.equal(key('2'));
  });

  it('reads no further than its window while results are not taken, and goes on when they are', async () => {
    using stream = new Stream(node);
    await stream.run([put('big', Buffer.alloc(65_000))]);
    stream.pause();
    const numbers: number[] = [];
    // 4,000 answers of 65,000 bytes: far more than windows and buffers on the way hold.
    for (let batch = 0; batch < 40; batch += 1)
      numbers.push(...stream.send(Array.from({ length: 100 }, () => get('big'))));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { body } = await node.http('/metrics');
    const residentMiB = Number(/^process_resident_memory_bytes (\d+)/m.exec(body)?.[1]) / 2 ** 20;
    expect(residentMiB).to.be.below(600);
    stream.resume();
    const results = await stream.resultsOf(numbers);
    expect(
      results.every((result) => result?.$case === 'get' && result.value.value.length === 65_000),
    ).to.equal(true);
  }).timeout(60_000);

  it('ends with status OK when the client has ended its side and everything is answered', async () => {
    using stream = new Stream(node);
    const numbers = stream.send(Array.from({ length: 500 }, (_, index) => put(`last-${index}`, 'v')));
    stream.end();
    await stream.resultsOf(numbers);
    await waitFor({ what: 'the end', timeoutMs: 5000, intervalMs: 5 }, () => stream.ended);
    expect(stream.ended).to.equal('ok');
  });

  it('refuses a batch of more operations than it takes', async () => {
    const many = PipelineRequest.encode({
      operations: Array.from({ length: 8193 }, (_, index) => ({
        number: index + 1,
        timeoutMs: 0,
        requestNumber: 0,
        attempt: 0,
        operation: get('a'),
      })),
      clientId: Buffer.alloc(0),
      clientStartMs: 0,
    }).finish();
    expect(many.length).to.be.below(4 * 2 ** 20);
    using stream = new Stream(node);
    stream.send(Array.from({ length: 8193 }, () => get('a')));
    await waitFor({ what: 'the end', timeoutMs: 5000, intervalMs: 5 }, () => stream.ended);
    expect(stream.ended).to.have.property('code', status.INVALID_ARGUMENT);
  });

  it('asks clients to leave when it stops, answers what it has, and ends', async () => {
    using other = new NodeHome();
    await using leaving = await NodeProcess.startAlone({ home: other, flags: { 'drain-serve-ms': '300' } });
    using stream = new Stream(leaving);
    await stream.run([put('a', '1')]);
    const exit = leaving.kill('SIGTERM');
    await waitFor({ what: 'to be sent away', timeoutMs: 5000, intervalMs: 2 }, () =>
      stream.responses.some(({ closing }) => closing),
    );
    const [late] = await stream.run([put('b', '2')]);
    expect(late).to.have.property('$case', 'put');
    await waitFor({ what: 'the end', timeoutMs: 5000, intervalMs: 5 }, () => stream.ended);
    expect(stream.ended).to.equal('ok');
    expect((await exit).code).to.equal(0);
  });

  it('serves several operations in one call as well', async () => {
    const stub = node.client();
    const puts = ['x', 'y', ''].map((name) => (put(name, `of ${name}`) as { value: PutRequest }).value);
    const written = await unary<{ results: OperationResult[] }>((metadata, options, done) =>
      stub.multiPut({ puts }, metadata, options, done),
    );
    expect(written.results.map(({ result }) => errorOf(result))).to.deep.equal([
      undefined,
      undefined,
      status.INVALID_ARGUMENT,
    ]);
    const gets = ['y', 'nobody', 'x'].map((name) => ({
      key: key(name),
      consistency: 0 as const,
      minVersion: undefined,
    }));
    const read = await unary<{ results: OperationResult[] }>((metadata, options, done) =>
      stub.multiGet({ gets }, metadata, options, done),
    );
    const values = read.results.map(({ result }) =>
      result?.$case === 'get' ? result.value.value.toString() : 'error',
    );
    expect(values).to.deep.equal(['of y', '', 'of x']);
    for (const count of [0, 1001]) {
      const request = { gets: Array.from({ length: count }, () => gets[0]!) };
      const refused = await unary((metadata, options, done) =>
        stub.multiGet(request, metadata, options, done),
      ).catch((error: unknown) => error as WireError);
      expect(refused).to.have.property('code', status.INVALID_ARGUMENT);
    }
  });

  it('carries the operations of our client, thousands at a time', async () => {
    await using client = await KvClient.connect({ endpoints: node.clientAddress });
    const names = Array.from({ length: 5000 }, (_, index) => `many-${index}`);
    const written = await client.multiPut(names.map((name) => [name, `value of ${name}`] as const));
    expect(new Set(written.map(({ version }) => `${version.wallMs}.${version.counter}`)).size).to.equal(5000);
    const read = await client.multiGet(names);
    expect(read.map((result) => result?.value.toString())).to.deep.equal(
      names.map((name) => `value of ${name}`),
    );
    const { body } = await node.http('/metrics');
    const count = Number(
      /kv_operations_total{rpc="KeyValueStore\/Pipeline",code="OK"} (\d+)/.exec(body)?.[1],
    );
    expect(count).to.be.at.least(10_000);
  });
});
