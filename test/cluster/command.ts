import { spawn } from 'node:child_process';

export interface CommandOptions {
  /** Written to standard input, which is then closed. */
  input?: string;
  cwd?: string;
  /** Added to this process's environment. */
  env?: NodeJS.ProcessEnv;
  /** @default 60000 */
  timeoutMs?: number;
}

/** A command that ended with another code than 0, or was ended at its time limit. */
export class CommandError extends Error {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;

  constructor(what: string, exitCode: number | null, output: { stdout: string; stderr: string }) {
    const text = (output.stderr.trim() || output.stdout.trim()).slice(-2000);
    super(`${what}${text === '' ? '' : `: ${text}`}`);
    this.name = 'CommandError';
    this.exitCode = exitCode;
    this.stdout = output.stdout;
    this.stderr = output.stderr;
  }
}

/**
 * Runs a command to its end and gives its standard output.
 *
 * @throws CommandError with the end of what it wrote to standard error.
 */
export async function run(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { timeoutMs = 60_000 } = options;
  const child = spawn(command, args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  // A command that ends without reading its input is judged by its exit code, not by EPIPE.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');

  const limit = AbortSignal.timeout(timeoutMs);
  const end = (): void => void child.kill('SIGKILL');
  limit.addEventListener('abort', end);
  try {
    const exitCode = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const name = [command.split('/').at(-1), ...args.slice(0, 6)].join(' ');
    if (limit.aborted) throw new CommandError(`${name} took longer than ${timeoutMs} ms`, exitCode, output);
    if (exitCode !== 0)
      throw new CommandError(`${name} ended with ${exitCode ?? 'a signal'}`, exitCode, output);
    return output.stdout;
  } finally {
    limit.removeEventListener('abort', end);
  }
}

/** Like {@link run}, for a command whose failure means "nothing there": gives '' then. */
export async function runOrEmpty(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  return run(command, args, options).catch(() => '');
}
