import * as grpc from '@grpc/grpc-js';
import { expect } from 'chai';
import { type AdminClient, createAdminClient } from '../../../client/admin-client.ts';
import { askVolume } from '../../../client/ask-volume.ts';
import { PROOF_METADATA, PROOF_WINDOW_MS, ProofVerifier } from '../../../common/call-proof.ts';
import { type Clock, systemClock } from '../../../common/clock.ts';
import type { KvError } from '../../../common/errors.ts';
import { systemRandom } from '../../../common/random.ts';
import { AdminService, type GetMapResponse, type StreamRecordsRequest } from '../../../proto/gen/admin.ts';
import type { RecordsChunk } from '../../../proto/gen/peer.ts';

const SECRET = Buffer.alloc(32, 7);
const shifted = (byMs: number): Clock => ({
  wallMs: () => systemClock.wallMs() + byMs,
  monotonicMs: () => systemClock.monotonicMs(),
});

/** An admin service that checks proofs by its own clock and answers as told: for answers a healthy node does not give. */
class ScriptedAdmin {
  readonly refusals: string[] = [];
  authority = '';
  chunks: readonly RecordsChunk[] = [];
  hang = false;
  private readonly server = new grpc.Server();
  private readonly verifier: ProofVerifier;
  private readonly clock: Clock;
  private port = 0;

  constructor(clock: Clock) {
    this.clock = clock;
    this.verifier = new ProofVerifier(SECRET, clock);
  }

  async start(): Promise<this> {
    this.server.addService(AdminService, {
      getMap: (
        call: grpc.ServerUnaryCall<object, GetMapResponse>,
        done: grpc.sendUnaryData<GetMapResponse>,
      ) => {
        this.authority = call.getHost();
        const refusal = this.refusalOf(AdminService.getMap.path, call.metadata);
        if (refusal !== undefined) done(refusal);
        else if (!this.hang) done(null, { found: false, map: undefined });
      },
      streamRecords: (call: grpc.ServerWritableStream<StreamRecordsRequest, RecordsChunk>) => {
        const refusal = this.refusalOf(AdminService.streamRecords.path, call.metadata);
        if (refusal !== undefined) {
          call.emit('error', refusal);
          return;
        }
        for (const chunk of this.chunks) call.write(chunk);
        call.end();
      },
    });
    this.port = await new Promise<number>((resolve, reject) => {
      this.server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
        if (error === null) resolve(port);
        else reject(error);
      });
    });
    return this;
  }

  get target() {
    return { nodeId: 'kv-0', address: `127.0.0.1:${this.port}` };
  }

  stop(): void {
    this.server.forceShutdown();
  }

  private refusalOf(method: string, sent: grpc.Metadata): Partial<grpc.StatusObject> | undefined {
    const field = (name: string): string => sent.get(name)[0]?.toString() ?? '';
    const reason = this.verifier.refuse(
      {
        method,
        sender: field(PROOF_METADATA.sender),
        recipient: field(PROOF_METADATA.recipient),
        timeMs: Number(field(PROOF_METADATA.time)),
        nonce: field(PROOF_METADATA.nonce),
        mac: field(PROOF_METADATA.mac),
      },
      (recipient) => recipient === 'kv-0',
    );
    if (reason === undefined) return undefined;
    this.refusals.push(reason);
    const metadata = new grpc.Metadata();
    if (reason === 'outside-window') metadata.set(PROOF_METADATA.time, String(this.clock.wallMs()));
    return { code: grpc.status.UNAUTHENTICATED, details: reason, metadata };
  }
}

async function failureOf(promise: Promise<unknown>): Promise<KvError> {
  try {
    await promise;
  } catch (error) {
    return error as KvError;
  }
  throw new Error('it succeeded');
}

describe('the admin client', () => {
  let node: ScriptedAdmin;
  let admin: AdminClient;

  async function begin(
    options: { nodeClock?: Clock; secret?: Buffer; deadlineMs?: number } = {},
  ): Promise<void> {
    node = await new ScriptedAdmin(options.nodeClock ?? systemClock).start();
    admin = createAdminClient({
      secret: options.secret ?? SECRET,
      sender: 'test',
      clock: systemClock,
      random: systemRandom,
      deadlineMs: options.deadlineMs ?? 2000,
    });
  }

  afterEach(() => {
    admin.close();
    node.stop();
  });

  it('makes a proof for each call, and names the member as authority', async () => {
    await begin();
    expect(await admin.getMap({ ...node.target, authority: 'kv-0.kv-headless:50052' })).to.equal(undefined);
    expect(await admin.getMap(node.target)).to.equal(undefined);
    expect(node.refusals).to.deep.equal([]);
    await admin.getMap({ ...node.target, authority: 'kv-0.kv-headless:50052' });
    expect(node.authority).to.equal('kv-0.kv-headless:50052');
  });

  it("proves by the node's clock after the node has told it, and remembers", async () => {
    await begin({ nodeClock: shifted(2 * PROOF_WINDOW_MS) });
    await admin.getMap(node.target);
    await admin.getMap(node.target);
    expect(node.refusals).to.deep.equal(['outside-window']);
  });

  it('does so for streams too', async () => {
    await begin({ nodeClock: shifted(-2 * PROOF_WINDOW_MS) });
    node.chunks = [{ head: 3, incarnation: 5, records: [], last: undefined, complete: true, horizonMs: 0 }];
    const chunks: RecordsChunk[] = [];
    for await (const chunk of admin.streamRecords(node.target, {}, AbortSignal.timeout(2000)))
      chunks.push(chunk);
    expect(chunks).to.have.length(1);
    expect(node.refusals).to.deep.equal(['outside-window']);
  });

  it('gives up at a wrong secret and at another node', async () => {
    await begin({ secret: Buffer.alloc(32, 8) });
    expect(await failureOf(admin.getMap(node.target))).to.include({
      code: 'UNAUTHENTICATED',
      message: 'bad-proof',
    });
    admin.close();
    node.stop();
    await begin();
    const error = await failureOf(admin.getMap({ ...node.target, nodeId: 'kv-1' }));
    expect(error).to.include({ code: 'UNAUTHENTICATED', message: 'wrong-recipient' });
  });

  it('does not take a cut stream for a whole one', async () => {
    await begin();
    node.chunks = [{ head: 3, incarnation: 5, records: [], last: undefined, complete: false, horizonMs: 0 }];
    const drain = async (): Promise<number> => {
      let chunks = 0;
      for await (const chunk of admin.streamRecords(node.target, {}, AbortSignal.timeout(2000))) {
        chunks += chunk.complete ? 100 : 1;
      }
      return chunks;
    };
    expect(await failureOf(drain())).to.include({ code: 'UNAVAILABLE', retryable: true });
  });

  it('waits no longer than its deadline, nor than its signal', async () => {
    await begin({ deadlineMs: 150 });
    node.hang = true;
    expect(await failureOf(admin.getMap(node.target))).to.include({ code: 'DEADLINE_EXCEEDED' });
    const reason = new Error('enough');
    expect(await failureOf(admin.getMap(node.target, AbortSignal.abort(reason)))).to.equal(reason);
  });

  it('answers unreachable for a volume whose node cannot be asked', async () => {
    await begin();
    node.stop();
    const answer = await askVolume(admin, node.target);
    expect(answer).to.include({ kind: 'unreachable' });
  });
});
