import { KvError, messageOf } from '../../common/errors.ts';
import { PeerFrame } from '../../proto/gen/peer.ts';
import type { PeerStream, PeerStreamHandlers } from '../replication/transport.ts';

/** Bytes handed to gRPC and not yet taken by the connection: above, `send` says to wait; below the lower one, go on. */
const HIGH_WATER_BYTES = 1024 * 1024;
const LOW_WATER_BYTES = 256 * 1024;
/** A stream whose sender does not heed the above is cut here: memory stays bounded whatever the peer does. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

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

/** A PeerStream over a carrier: encodes, decodes, counts what is queued, and reports the end once. */
export class FramedStream implements PeerStream {
  /** Calls back into this stream are ignored once it has closed, so that the end is reported once. */
  private closed = false;
  private carrier: FrameCarrier | undefined;
  /** What was sent before there was a carrier. */
  private early: Buffer[] = [];
  private handlers: PeerStreamHandlers | undefined;
  private queuedBytes = 0;
  private waiting = false;
  private endReason: { readonly error: Error | undefined } | undefined;

  send(frame: PeerFrame): boolean {
    if (this.closed) return false;
    const bytes = Buffer.from(PeerFrame.encode(frame).finish());
    this.queuedBytes += bytes.length;
    if (this.queuedBytes > MAX_QUEUED_BYTES) {
      this.abort(new KvError('RESOURCE_EXHAUSTED', 'the peer does not take what is sent to it'));
      return false;
    }
    if (this.carrier === undefined) this.early.push(bytes);
    else this.write(this.carrier, bytes);
    this.waiting = this.queuedBytes > HIGH_WATER_BYTES;
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
    let frame: PeerFrame;
    try {
      frame = PeerFrame.decode(bytes);
    } catch (error) {
      this.abort(new KvError('INVALID_ARGUMENT', `malformed frame: ${messageOf(error)}`, { cause: error }));
      return;
    }
    this.handlers?.onFrame(frame);
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
