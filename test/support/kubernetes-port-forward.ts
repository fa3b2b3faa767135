import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Kubectl } from './kubectl.ts';

export interface PortForward extends AsyncDisposable {
  /** On 127.0.0.1 of this machine. */
  readonly port: number;
}

const startMs = 15_000;

/** Forwards a free port of this machine to a port of a pod or service, for example ('service/store', 50051). */
export async function portForward(kubectl: Kubectl, target: string, port: number): Promise<PortForward> {
  const { program, args, env } = kubectl.command(['port-forward', target, `:${port}`]);
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => {
      resolve();
    });
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const timer = setTimeout(() => child.kill('SIGKILL'), startMs);
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const local = /^Forwarding from 127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (local === undefined) continue;
      child.stdout.resume(); // one line per connection follows; nobody may block on writing it
      return {
        port: Number(local),
        [Symbol.asyncDispose]: async () => {
          child.kill('SIGKILL');
          await ended;
        },
      };
    }
  } finally {
    clearTimeout(timer);
  }
  throw new Error(`no port-forward to ${target}:${port}: ${errors.trim()}`);
}
