import { expect } from 'chai';
import { type FrameCarrier, FramedStream } from '../../../node/rpc/peer-frames.ts';
import type { PeerFrame } from '../../../proto/gen/peer.ts';

const HEADER = { clusterId: '', epoch: 0, sender: 'kv-0', senderIncarnation: 1, recipient: 'kv-1' };

function frame(bytes: number): PeerFrame {
  const records = [{ key: Buffer.from('k'), record: Buffer.alloc(bytes), horizonMs: 0 }];
  return {
    header: HEADER,
    body: {
      $case: 'repair',
      value: {
        id: 1,
        records,
        returned: false,
        finished: undefined,
        forRead: false,
        returnedWrites: [],
      },
    },
  };
}

/** A connection that takes what is written when it is told to. */
class SlowCarrier implements FrameCarrier {
  private readonly written: (() => void)[] = [];

  write(_bytes: Buffer, taken: () => void): void {
    this.written.push(taken);
  }

  take(frames: number): void {
    for (const taken of this.written.splice(0, frames)) taken();
  }

  finish(): void {
    this.written.length = 0;
  }

  abort(): void {
    this.written.length = 0;
  }

  startReading(): void {
    // Nothing comes from the other side.
  }
}

describe('the stream of frames to a peer', () => {
  const HALF_MIB = 512 * 1024;

  function fullStream(): { stream: FramedStream; carrier: SlowCarrier; drained: () => number } {
    const stream = new FramedStream({ maxFrameBytes: 8 * HALF_MIB, refused: () => undefined });
    const carrier = new SlowCarrier();
    let drains = 0;
    stream.handle({
      onFrame: () => undefined,
      onDrain: () => (drains += 1),
      onClose: () => undefined,
    });
    stream.attach(carrier);
    expect(stream.send(frame(HALF_MIB)), 'there is room at first').to.equal(true);
    expect(stream.send(frame(HALF_MIB)), 'the buffer is full').to.equal(false);
    return { stream, carrier, drained: () => drains };
  }

  it('says when there is room again', () => {
    const { carrier, drained } = fullStream();
    carrier.take(1);
    expect(drained()).to.equal(0);
    carrier.take(1);
    expect(drained()).to.equal(1);
  });

  it('says so also when somebody else has sent a little while it was half empty (simulation, seed 2148)', () => {
    const { stream, carrier, drained } = fullStream();
    carrier.take(1);
    // A heartbeat: the one who waits for room to send the log must still hear of it.
    expect(stream.send(frame(10))).to.equal(false);
    carrier.take(2);
    expect(drained()).to.equal(1);
    expect(stream.send(frame(10))).to.equal(true);
  });
});
