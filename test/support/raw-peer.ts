import { plaintext } from '../../client/grpc.ts';
import { proofMetadata } from '../../client/proof-metadata.ts';
import { proveCall } from '../../common/call-proof.ts';
import { systemRandom } from '../../common/random.ts';
import type { ClusterMap } from '../../model/cluster-map.ts';
import { Client, type ClientDuplexStream, type Metadata, type StatusObject } from '../../node/rpc/grpc.ts';
import {
  type Hello,
  PeerFrame,
  type PeerHeader,
  PeerService,
  type Refusal,
  StoreState,
} from '../../proto/gen/peer.ts';
import { waitFor } from './wait.ts';

export type FrameBody = NonNullable<PeerFrame['body']>;

/** Whom a raw peer stands for, and whom it talks to. */
export interface RawPeerOptions {
  readonly address: string;
  readonly secret: Buffer;
  /** Name of the node that is spoken to. */
  readonly recipient: string;
  /** Name in the map that it speaks under. */
  readonly sender: string;
  readonly incarnation: number;
  readonly map: ClusterMap;
  /** @default a good proof */
  readonly metadata?: Metadata;
}

const { path } = PeerService.exchange;
const same = (bytes: Buffer): Buffer => bytes;
const WAIT_MS = 10_000;

/** The metadata of a call with a good proof, but for what is changed. */
export function proofOf(
  secret: Buffer,
  change: { method?: string; sender?: string; recipient: string; timeMs?: number },
): Metadata {
  const { method = path, sender = 'test', recipient, timeMs = Date.now() } = change;
  return proofMetadata(proveCall(secret, { method, sender, recipient, timeMs }, systemRandom));
}

/**
 * One end of a stream to a node's peer port that says only what a test tells it to, sound or not. The messages are those
 * of proto/peer.proto, or any bytes.
 */
export class RawPeer implements Disposable {
  /** What the node has sent. */
  readonly frames: PeerFrame[] = [];
  private readonly options: RawPeerOptions;
  private readonly client: Client;
  private readonly call: ClientDuplexStream<Buffer, Buffer>;
  private result: StatusObject | undefined;

  constructor(options: RawPeerOptions) {
    this.options = options;
    this.client = new Client(options.address, plaintext(), {
      'grpc.max_send_message_length': -1,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0,
    });
    const { secret, recipient, sender, metadata = proofOf(secret, { recipient, sender }) } = options;
    this.call = this.client.makeBidiStreamRequest(path, same, same, metadata);
    this.call.on('error', () => undefined);
    this.call.on('data', (bytes: Buffer) => void this.frames.push(PeerFrame.decode(bytes)));
    this.call.once('status', (status: StatusObject) => (this.result = status));
  }

  /** A header as it should be, but for what is changed. */
  header(change: Partial<PeerHeader> = {}): PeerHeader {
    const { map, sender, incarnation, recipient } = this.options;
    const { clusterId, epoch } = map;
    return { clusterId, epoch, sender, senderIncarnation: incarnation, recipient, ...change };
  }

  /** Sends a body under a good header, but for what is changed. */
  send(body: FrameBody, header: Partial<PeerHeader> = {}): void {
    this.sendBytes(PeerFrame.encode({ header: this.header(header), body }).finish());
  }

  sendBytes(bytes: Uint8Array): void {
    this.call.write(Buffer.from(bytes));
  }

  /** Sends a Hello of a readable member with an empty log, but for what is changed. */
  sayHello(hello: Partial<Hello> = {}, header: Partial<PeerHeader> = {}): void {
    this.send({ $case: 'hello', value: { ...this.hello, ...hello } }, header);
  }

  /** Says Hello and takes part from then on: resolves when the node has accepted it. */
  async join(hello: Partial<Hello> = {}): Promise<void> {
    this.sayHello(hello);
    await this.next('hello');
    this.beat();
    await this.next('heartbeat');
  }

  /** Sends a heartbeat of a member with an empty log. */
  beat(header: Partial<PeerHeader> = {}): void {
    const value = {
      state: StoreState.READABLE,
      head: 0,
      wallMs: Date.now(),
      accepting: true,
      connected: [],
      durableHead: 0,
      lowWaterMs: 0,
      label: Buffer.alloc(0),
      settled: Buffer.alloc(0),
      readable: Buffer.alloc(0),
    };
    this.send({ $case: 'heartbeat', value }, header);
  }

  /** The first frame of that kind, as soon as it has come. */
  next($case: FrameBody['$case']): Promise<PeerFrame> {
    return waitFor({ what: `a frame ${$case}`, timeoutMs: WAIT_MS, intervalMs: 5 }, (see) => {
      const ended = this.result === undefined ? 'open' : `ended: ${this.result.details}`;
      see(`${this.frames.map(({ body }) => body?.$case).join(', ')}; the stream is ${ended}`);
      return this.frames.find(({ body }) => body?.$case === $case);
    });
  }

  /** Why the node has ended the stream: what it said in a Refusal, if it did, and the status of the call. */
  async ended(): Promise<{ refusal: Refusal | undefined; status: StatusObject }> {
    const status = await waitFor(
      { what: 'the stream to end', timeoutMs: WAIT_MS, intervalMs: 5 },
      () => this.result,
    );
    const refusals = this.frames.flatMap(({ body }) => (body?.$case === 'refusal' ? [body.value] : []));
    return { refusal: refusals.at(-1), status };
  }

  get isOpen(): boolean {
    return this.result === undefined;
  }

  [Symbol.dispose](): void {
    this.call.cancel();
    this.client.close();
  }

  private get hello(): Hello {
    const { map } = this.options;
    return {
      minProtocol: 1,
      maxProtocol: 1,
      namespace: map.namespace,
      name: map.name,
      mapHash: map.hash,
      bootCounter: 1,
      nonce: 7,
      state: StoreState.READABLE,
      head: 0,
      logStart: 0,
      applied: [],
      ackedByRecipient: 0,
      sequenceCeiling: 1_000_000,
      wallMs: Date.now(),
      features: [],
      replaced: [],
      logBase: 0,
      recoveredHead: 0,
      ackedIncarnation: 0,
      uncleanBoot: 0,
      readable: Buffer.alloc(0),
    };
  }
}
