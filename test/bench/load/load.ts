import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { cleanAtExit } from '../../support/exit-cleanup.ts';
import type { DriverTarget } from './driver.ts';
import type { DataSet } from './fill.ts';
import type { LoadAnswer, LoadRequest } from './load-process.ts';
import type { Measurement, Work } from './work.ts';

/** The load process of one system, as the benchmark talks to it: one request at a time. */
export class Load implements AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly cancelCleaning: () => void;

  constructor(target: DriverTarget, nodeOptions: readonly string[] = []) {
    this.child = fork(join(import.meta.dirname, 'load-process.ts'), [JSON.stringify(target)], {
      execArgv: [...nodeOptions],
      serialization: 'json',
    });
    this.cancelCleaning = cleanAtExit(() => this.child.kill('SIGKILL'));
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Puts every key of a data set once; gives the seconds it took. */
  async fill(data: DataSet): Promise<number> {
    const answer = await this.ask({ kind: 'fill', data });
    if (answer.kind !== 'filled') throw new Error(`expected filled, not ${answer.kind}`);
    return answer.seconds;
  }

  async run(work: Work): Promise<Measurement> {
    const answer = await this.ask({ kind: 'run', work });
    if (answer.kind !== 'measured') throw new Error(`expected measured, not ${answer.kind}`);
    return answer.measurement;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      if (child.connected) child.disconnect();
      else child.kill('SIGKILL');
      await exited;
    }
    this.cancelCleaning();
  }

  private async ask(request: LoadRequest): Promise<LoadAnswer> {
    const gone = new AbortController();
    const onExit = (): void => gone.abort(new Error('the load process has ended'));
    this.child.once('exit', onExit);
    try {
      const answered = once(this.child, 'message', { signal: gone.signal });
      this.child.send(request);
      const [answer] = (await answered) as [LoadAnswer];
      if (answer.kind === 'failed') throw new Error(`the load process failed: ${answer.message}`);
      return answer;
    } finally {
      this.child.off('exit', onExit);
    }
  }
}
