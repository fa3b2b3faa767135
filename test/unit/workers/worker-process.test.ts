import { EventEmitter } from 'node:events';
import { expect } from 'chai';
import type { FromWorker, ToWorker, WorkerState } from '../../../node/workers/messages.ts';
import { type WorkerChild, WorkerProcess } from '../../../node/workers/worker-process.ts';
import { createLogger } from '../../../common/log.ts';
import { ManualTime } from '../../support/manual-time.ts';
import { seededRandom } from '../../support/seeded-random.ts';

/** A process that does what the test says, and ends when it is told to. */
class FakeChild extends EventEmitter {
  readonly pid = 1;
  connected = true;
  readonly signals: string[] = [];
  readonly sent: ToWorker[] = [];

  say(message: FromWorker): void {
    this.emit('message', message);
  }

  state(state: Partial<WorkerState> = {}): void {
    this.say({ kind: 'state', state: { listening: true, podMembers: ['kv-0'], ...state } });
  }

  end(code: number | null, signal: string | null = null): void {
    this.connected = false;
    this.emit('close', code, signal);
  }

  kill(signal: string): boolean {
    this.signals.push(signal);
    if (signal === 'SIGKILL') this.end(null, signal);
    return true;
  }

  send(message: ToWorker): boolean {
    this.sent.push(message);
    return true;
  }
}

interface Scene {
  readonly time: ManualTime;
  readonly process: WorkerProcess;
  readonly children: FakeChild[];
  readonly hopeless: number[];
  readonly child: () => FakeChild;
  /** Lets time pass while the worker says each second that it is well. */
  readonly well: (forMs: number) => Promise<void>;
}

function scene(): Scene {
  const time = new ManualTime();
  const children: FakeChild[] = [];
  const hopeless: number[] = [];
  const process = new WorkerProcess({
    worker: 0,
    nodeId: 'kv-0',
    flags: [],
    onHopeless: (code) => hopeless.push(code),
    clock: time.clock(),
    scheduler: time.scheduler(),
    random: seededRandom(1),
    logger: createLogger({ level: 'silent' }),
    launch: () => {
      const child = new FakeChild();
      children.push(child);
      return child as unknown as WorkerChild;
    },
  });
  process.start();
  const child = (): FakeChild => children.at(-1)!;
  const well = async (forMs: number): Promise<void> => {
    for (let passedMs = 0; passedMs < forMs; passedMs += 1000) {
      child().state();
      await time.advance(1000);
    }
  };
  return { time, process, children, hopeless, child, well };
}

describe('a worker process', () => {
  for (const [what, code, signal] of [
    ['is killed', null, 'SIGKILL'],
    ['fails', 1, null],
    ['ends in order though nobody asked', 0, null],
  ] as const) {
    it(`is started again when it ${what}`, async () => {
      const { time, process, children, child, hopeless } = scene();
      child().state();
      child().end(code, signal);
      expect(process.state).to.equal(undefined);
      await time.until('another one runs', () => children.length === 2, 1000);
      expect({ restarts: process.restarts, hopeless }).to.deep.equal({ restarts: 1, hopeless: [] });
    });
  }

  it('is started less and less often while it fails at once, and soon again after it was well', async () => {
    const { time, children, child, well } = scene();
    const delays: number[] = [];
    const fail = async (): Promise<void> => {
      const [count, sinceMs] = [children.length, time.monotonicMs];
      child().end(1);
      await time.until('another one runs', () => children.length > count);
      delays.push(time.monotonicMs - sinceMs);
    };
    for (let times = 0; times < 9; times += 1) await fail();
    expect(delays[0]).to.be.at.most(200);
    expect(delays.at(-1)).to.be.within(5000, 10_000);
    await well(11_000);
    await fail();
    expect(delays.at(-1)).to.be.at.most(200);
  });

  for (const [what, code] of [
    ['was fenced', 3],
    ['refuses its flags', 2],
  ] as const) {
    it(`is not started again when it ${what}: that is for who looks after the pod`, async () => {
      const { time, children, child, hopeless } = scene();
      child().end(code);
      await time.advance(60_000);
      expect(hopeless).to.deep.equal([code]);
      expect(children).to.have.length(1);
    });
  }

  it('is killed and started again when its event loop stops turning', async () => {
    const { time, process, children, child, well } = scene();
    await well(5000);
    expect(process.state?.notReadyReason).to.equal(undefined);
    await time.advance(25_000);
    expect(process.state?.notReadyReason, 'so that it gets no clients').to.equal(
      'the event loop does not turn',
    );
    expect(child().signals).to.deep.equal([]);
    await time.until('another one runs', () => children.length === 2, 10_000);
    expect(children[0]?.signals).to.deep.equal(['SIGKILL']);
    expect(process.unhealthyReason).to.equal(undefined);
  });

  it('may be silent for minutes while it starts', async () => {
    const { time, process, children, child } = scene();
    child().state({ listening: false });
    await time.advance(500_000);
    expect(process.unhealthyReason).to.equal(undefined);
    expect(children).to.have.length(1);
    await time.advance(200_000);
    expect(children.length).to.be.greaterThan(1);
  });

  it('makes its container unhealthy only when it stays dead whatever is done', async () => {
    const { time, process, child } = scene();
    child().state({ unhealthyReason: 'the store has failed' });
    await time.advance(2000);
    expect(process.unhealthyReason).to.equal(undefined);
    for (let seconds = 0; seconds < 60; seconds += 1) {
      child().state({ unhealthyReason: 'the store has failed' });
      await time.advance(1000);
    }
    expect(process.unhealthyReason).to.equal('kv-0: the store has failed');
  });

  it('ends in order when it is stopped, and stays down', async () => {
    const { time, process, children, child } = scene();
    child().state();
    const stopped = process.stop();
    expect(child().signals).to.deep.equal(['SIGTERM']);
    child().end(0);
    await stopped;
    await time.advance(60_000);
    expect(children).to.have.length(1);
  });

  it('is not started any more when it is stopped while it waits to be', async () => {
    const { time, process, children, child } = scene();
    child().end(1);
    await process.stop();
    await time.advance(60_000);
    expect(children).to.have.length(1);
  });

  it('gives its metrics, and nothing when it does not answer or ends meanwhile', async () => {
    const { time, process, child } = scene();
    const asked = process.metrics();
    expect(child().sent).to.deep.equal([{ kind: 'metrics', id: 1 }]);
    child().say({ kind: 'metrics', id: 1, text: 'kv_ready 1' });
    expect(await asked).to.equal('kv_ready 1');
    expect(await time.run(process.metrics())).to.equal('');
    const interrupted = process.metrics();
    child().end(1);
    expect(await interrupted).to.equal('');
    expect(await process.metrics()).to.equal('');
  });
});
