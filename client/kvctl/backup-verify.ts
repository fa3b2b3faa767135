import { resolve } from 'node:path';
import type { Command } from 'commander';
import { listBackups } from '../backup/backup-catalog.ts';
import { requireBackupId } from '../backup/backup-path.ts';
import { verifyBackup } from '../backup/verify-backup.ts';
import { CommandFailed, type KvctlContext } from './context.ts';
import { writeLine } from './output.ts';

interface BackupVerifyOptions {
  readonly target: string;
}

export function addBackupVerify(backup: Command, context: KvctlContext): void {
  backup
    .command('verify')
    .description('read backups whole and compare every checksum, count and the order')
    .argument('[id]', 'only this one')
    .requiredOption('--target <dir>', 'directory of backups')
    .action(async (id: string | undefined, options: BackupVerifyOptions) => {
      const wanted = id === undefined ? undefined : requireBackupId(id);
      const all = await listBackups(resolve(context.directory, options.target));
      const entries = all.filter((entry) => wanted === undefined || entry.id === wanted);
      if (entries.length === 0) {
        const what = wanted === undefined ? 'no backup' : `no backup ${wanted}`;
        throw new CommandFailed(`there is ${what} under ${options.target}`);
      }
      let bad = 0;
      for (const entry of entries) {
        const faults = await verifyBackup(entry, context.signal);
        const verdict = faults.length > 0 ? 'BAD' : `good, ${entry.manifest?.records ?? 0} records`;
        await writeLine(context, `${entry.id}: ${verdict}`);
        for (const { file, problem } of faults) await writeLine(context, `  ${file}: ${problem}`);
        if (faults.length > 0) bad += 1;
      }
      if (bad > 0) throw new CommandFailed(`${bad} of ${entries.length} backups are bad`);
    });
}
