import { Command, CommanderError } from 'commander';
import { messageOf } from '../../common/errors.ts';
import { readSoftwareVersion } from '../../common/software-version.ts';
import { addBackupCreate } from './backup-create.ts';
import { addBackupList } from './backup-list.ts';
import { addBackupVerify } from './backup-verify.ts';
import { addClusterRecovery } from './cluster-recovery.ts';
import { addClusterSize } from './cluster-size.ts';
import { type KvctlContext, UsageError } from './context.ts';
import { addDelete } from './delete.ts';
import { addGet } from './get.ts';
import { allowConnectionOptionsFirst } from './leading-options.ts';
import { addList } from './list.ts';
import { addPut } from './put.ts';
import { addScan } from './scan.ts';
import { addStatus } from './status.ts';
import { addWatch } from './watch.ts';

/** Exit codes: 0 done, 1 it failed (or the key is missing), 2 wrong use of the command line, 130 interrupted. */
const FAILED = 1;
const WRONG_USE = 2;
const INTERRUPTED = 130;

/** Runs one command line; resolves with the exit code. */
export async function runKvctl(args: readonly string[], context: KvctlContext): Promise<number> {
  try {
    await buildProgram(context).parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    return exitCodeOf(error, context);
  }
}

function buildProgram(context: KvctlContext): Command {
  const program = new Command('kvctl')
    .description('Reads and writes a KVCluster, shows how it is, and backs it up.')
    .version(readSoftwareVersion())
    .showHelpAfterError('(kvctl --help shows the commands)');
  // Subcommands inherit these when they are made.
  program.exitOverride().configureOutput({
    writeOut: (text) => context.stdout.write(text),
    writeErr: (text) => context.stderr.write(text),
  });
  allowConnectionOptionsFirst(program);
  addPut(program, context);
  addGet(program, context);
  addDelete(program, context);
  addList(program, context);
  addScan(program, context);
  addWatch(program, context);
  addStatus(program, context);
  const cluster = program.command('cluster').description('change the members of a cluster, and recover it');
  allowConnectionOptionsFirst(cluster);
  addClusterSize(cluster, context);
  addClusterRecovery(cluster, context);
  const backup = program.command('backup').description('back up the cluster, and look after the backups');
  allowConnectionOptionsFirst(backup);
  addBackupCreate(backup, context);
  addBackupList(backup, context);
  addBackupVerify(backup, context);
  return program;
}

function exitCodeOf(error: unknown, context: KvctlContext): number {
  // Commander has said what is wrong, or printed the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : WRONG_USE;
  if (context.signal.aborted) return INTERRUPTED;
  context.stderr.write(`kvctl: ${messageOf(error)}\n`);
  return error instanceof UsageError ? WRONG_USE : FAILED;
}
