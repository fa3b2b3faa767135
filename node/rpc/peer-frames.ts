import { KvError, messageOf } from '../../common/errors.ts';
import { type PeerFrame, Refusal_Reason } from '../../proto/gen/peer.ts';
import { decodePeerFrame, encodePeerFrame } from '../../proto/serialize-peer.ts';
import type { PeerStream, PeerStreamHandlers } from '../replication/transport.ts';
import { hasMoreElements, shapeOf } from '../../common/message-elements.ts';

/** Bytes handed to gRPC and not yet taken by the connection: above, `send` says to wait; below the lower one, go on. */
const HIGH_WATER_BYTES = 1024 * 1024;
const LOW_WATER_BYTES = 256 * 1024;
/** A stream whose sender does not heed the above is cut here: memory stays bounded whatever the peer does. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** Smaller frames cannot have elements enough to matter; they are not looked through. */
const LOOK_THROUGH_BYTES = 256 * 1024;
/** An assignment and a move for each of 65,536 partitions, and what else a map has. */
const MAX_ELEMENTS = 200_000;
const MAP_SHAPE = shapeOf([12]);
/** Every body is looked into; the map that an update (7) or a refusal (3) carries as well. */
const FRAME_SHAPE = shapeOf({
  ...Object.fromEntries(Array.from({ length: 64 }, (_, index) => [index + 2, shapeOf([])])),
  3: shapeOf({ 3: MAP_SHAPE }),
  7: shapeOf({ 1: MAP_SHAPE }),
});

/** What carries the frames: one end of a gRPC stream of bytes. */
export interface FrameCarrier {
  /** `taken` is called once the connection has taken the bytes; never after the stream has ended. */
  write(bytes: Buffer, taken: () => void): void;
  /** Delivers what is written and ends. */
  finish(): void;
  /** Ends at once. */
  abort(reason: KvError): void;
  /** From now on incoming frames are passed to `received`. */
  startReading(): void;
}

/** Bounds of what comes in, and who is told when it is refused. */
export interface FramedStreamOptions {
  /** Largest frame taken from the peer. */
  readonly maxFrameBytes: number;
  /**
   * Told, for metrics, of every stream that ends because this side refuses what came: `malformed`, `too-large`, or the
   * reason that the peer is told in a Refusal, such as `wrong-cluster`.
   */
  readonly refused: (reason: string) => void;
}

/** A PeerStream over a carrier: encodes, decodes, counts what is queued, and reports the end once. */
export class FramedStream implements PeerStream {
  private readonly options: FramedStreamOptions;
  /** Calls back into this stream are ignored once it has closed, so that the end is reported once. */
  private closed = false;
  private carrier: FrameCarrier | undefined;
  /** What was sent before there was a carrier. */
  private early: Buffer[] = [];
  private handlers: PeerStreamHandlers | undefined;
  private queuedBytes = 0;
  private waiting = false;
  private endReason: { readonly error: Error | undefined } | undefined;

  constructor(options: FramedStreamOptions) {
    this.options = options;
  }

  send(frame: PeerFrame): boolean {
    if (this.closed) return false;
    if (frame.body?.$case === 'refusal') this.options.refused(reasonName(frame.body.value.reason));
    const bytes = encodePeerFrame(frame);
    this.queuedBytes += bytes.length;
    if (this.queuedBytes > MAX_QUEUED_BYTES) {
      this.abort(new KvError('RESOURCE_EXHAUSTED', 'the peer does not take what is sent to it'));
      return false;
    }
    if (this.carrier === undefined) this.early.push(bytes);
    else this.write(this.carrier, bytes);
    // Whoever was told to wait is told when there is room, also when others send a little meanwhile.
    this.waiting ||= this.queuedBytes > HIGH_WATER_BYTES;
    return !this.waiting;
  }

  handle(handlers: PeerStreamHandlers): void {
    this.handlers = handlers;
    if (this.endReason !== undefined) handlers.onClose(this.endReason.error);
    else this.carrier?.startReading();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.carrier?.finish();
    this.end(undefined);
  }

  /** Whether either side has ended it. */
  get isClosed(): boolean {
    return this.closed;
  }

  /** The stream stands: what was sent so far goes out. */
  attach(carrier: FrameCarrier): void {
    if (this.closed) {
      carrier.finish();
      return;
    }
    this.carrier = carrier;
    const early = this.early;
    this.early = [];
    for (const bytes of early) this.write(carrier, bytes);
    if (this.handlers !== undefined) carrier.startReading();
  }

  /** Bytes of one frame have arrived. */
  received(bytes: Buffer): void {
    if (this.closed) return;
    const { maxFrameBytes } = this.options;
    if (bytes.length > maxFrameBytes) {
      const what = `a frame of ${bytes.length} bytes is larger than the limit of ${maxFrameBytes}`;
      this.refuse('too-large', new KvError('RESOURCE_EXHAUSTED', what));
      return;
    }
    if (bytes.length > LOOK_THROUGH_BYTES && hasMoreElements(bytes, FRAME_SHAPE, MAX_ELEMENTS)) {
      const what = `a frame has more than ${MAX_ELEMENTS} elements`;
      this.refuse('too-large', new KvError('RESOURCE_EXHAUSTED', what));
      return;
    }
    let frame: PeerFrame;
    try {
      frame = decodePeerFrame(bytes);
    } catch (error) {
      const what = `malformed frame: ${messageOf(error)}`;
      this.refuse('malformed', new KvError('INVALID_ARGUMENT', what, { cause: error }));
      return;
    }
    this.handlers?.onFrame(frame);
  }

  private refuse(reason: string, error: KvError): void {
    this.options.refused(reason);
    this.abort(error);
  }

  /** The other side, or the connection, has ended the stream. */
  ended(error: Error | undefined): void {
    if (!this.closed) this.end(error);
  }

  /** Ends from this side because of `reason`. */
  abort(reason: KvError): void {
    if (this.closed) return;
    this.closed = true;
    this.carrier?.abort(reason);
    this.end(reason);
  }

  private write(carrier: FrameCarrier, bytes: Buffer): void {
    carrier.write(bytes, () => {
      this.queuedBytes -= bytes.length;
      if (!this.waiting || this.closed || this.queuedBytes > LOW_WATER_BYTES) return;
      this.waiting = false;
      this.handlers?.onDrain();
    });
  }

  private end(error: Error | undefined): void {
    this.closed = true;
    this.early = [];
    this.endReason = { error };
    this.handlers?.onClose(error);
  }
}

/** `WRONG_CLUSTER` as `wrong-cluster`. */
function reasonName(reason: Refusal_Reason): string {
  const [name] = Object.entries(Refusal_Reason).find(([, value]) => value === reason) ?? ['unrecognized'];
  return name.toLowerCase().replaceAll('_', '-');
}
