import { spawn } from 'node:child_process';
import { cleanAtExit } from '../../support/exit-cleanup.ts';

const LIMIT_MS = 180_000;

/** Runs a load generator to its end and gives what it printed; it is ended when the benchmark is. */
export async function runTool([command, ...parameters]: readonly [string, ...string[]]): Promise<string> {
  const child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  const cancelCleaning = cleanAtExit(() => child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-2000)));
  const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw new Error(`${command} ended with ${code ?? 'a signal'}: ${stderr.trim()}`);
    return stdout;
  } finally {
    clearTimeout(limit);
    cancelCleaning();
  }
}
