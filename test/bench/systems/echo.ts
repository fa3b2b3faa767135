import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { cleanAtExit } from '../../support/exit-cleanup.ts';

/** The echo server as a process of its own. */
export class Echo implements AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly cancelCleaning: () => void;
  private port = 0;

  private constructor() {
    this.child = fork(join(import.meta.dirname, 'echo-server.ts'), { execArgv: [] });
    this.cancelCleaning = cleanAtExit(() => this.child.kill('SIGKILL'));
  }

  static async start(): Promise<Echo> {
    const echo = new Echo();
    const [port] = (await once(echo.child, 'message')) as [number];
    echo.port = port;
    return echo;
  }

  get endpoint(): string {
    return `127.0.0.1:${this.port}`;
  }

  get pids(): readonly number[] {
    return [this.child.pid ?? -1];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
    this.cancelCleaning();
  }
}
