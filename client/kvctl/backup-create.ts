import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { messageOf } from '../../common/errors.ts';
import { readSoftwareVersion } from '../../common/software-version.ts';
import { type CreatedBackup, createBackup } from '../backup/create-backup.ts';
import { type AdminOptions, durationOption, usingAdmin, withAdminOptions } from './connection-options.ts';
import type { KvctlContext } from './context.ts';
import { formatBytes, writeLine } from './output.ts';

interface BackupCreateOptions extends AdminOptions {
  readonly target: string;
  readonly wait: number;
  readonly summaryFile?: string;
}

/** What the operator reads from a finished backup job. The termination message holds 4096 bytes. */
const MAX_ERROR_LENGTH = 2000;

export function addBackupCreate(backup: Command, context: KvctlContext): void {
  withAdminOptions(backup.command('create'))
    .description(
      'back up the whole cluster: every write acknowledged by a quorum before the start is contained',
    )
    .requiredOption('--target <dir>', 'directory of backups, of any number of clusters')
    .addOption(durationOption('--wait <duration>', 'for members that cannot be read yet', 120_000, '2m'))
    .option('--summary-file <file>', 'write the result there too, as JSON')
    .action(async (options: BackupCreateOptions) => {
      try {
        const created = await run(context, options);
        await writeSummary(context, options, summaryOf(created));
        await writeLine(
          context,
          `${created.id}: ${created.records} records, ${formatBytes(created.sizeBytes)} in ${created.seconds} s, ` +
            `from ${created.sources.join(', ')}`,
        );
      } catch (error) {
        const time = new Date(context.clock.wallMs()).toISOString();
        await writeSummary(context, options, { time, error: messageOf(error).slice(0, MAX_ERROR_LENGTH) });
        throw error;
      }
    });
}

function run(context: KvctlContext, options: BackupCreateOptions): Promise<CreatedBackup> {
  const { clock, scheduler, random, signal } = context;
  return usingAdmin(context, options, (admin, seeds) =>
    createBackup({
      admin,
      seeds,
      target: resolve(context.directory, options.target),
      waitMs: options.wait,
      softwareVersion: readSoftwareVersion(),
      clock,
      scheduler,
      random,
      signal,
    }),
  );
}

function summaryOf(created: CreatedBackup): object {
  const { id, clusterId, startedAt, records, sizeBytes, seconds } = created;
  return { time: startedAt, id, clusterId, records, bytes: sizeBytes, seconds };
}

async function writeSummary(
  context: KvctlContext,
  options: BackupCreateOptions,
  summary: object,
): Promise<void> {
  if (options.summaryFile === undefined) return;
  await writeFile(resolve(context.directory, options.summaryFile), `${JSON.stringify(summary)}\n`);
}
