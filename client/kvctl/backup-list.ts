import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type BackupEntry, listBackups } from '../backup/backup-catalog.ts';
import type { KvctlContext } from './context.ts';
import { formatBytes, writeJson, writeTable } from './output.ts';

interface BackupListOptions {
  readonly target: string;
  readonly output: 'table' | 'json';
}

export function addBackupList(backup: Command, context: KvctlContext): void {
  backup
    .command('list')
    .description('show the backups under a directory, oldest first')
    .requiredOption('--target <dir>', 'directory of backups')
    .addOption(new Option('-o, --output <form>', 'what to print').choices(['table', 'json']).default('table'))
    .action(async (options: BackupListOptions) => {
      const entries = await listBackups(resolve(context.directory, options.target));
      if (options.output === 'json') await writeJson(context, entries.map(jsonOf));
      else {
        const headings = ['ID', 'CLUSTER', 'CLUSTER ID', 'TIME', 'RECORDS', 'BYTES', 'STATE'];
        await writeTable(context, headings, entries.map(rowOf));
      }
    });
}

function rowOf({ id, cluster, manifest, problem }: BackupEntry): string[] {
  const place = [id, `${cluster.namespace}/${cluster.name}`, cluster.clusterId];
  if (manifest === undefined) return [...place, '-', '-', '-', `unreadable: ${firstLine(problem ?? '')}`];
  return [
    ...place,
    manifest.startedAt,
    String(manifest.records),
    formatBytes(manifest.sizeBytes),
    'complete',
  ];
}

function firstLine(text: string): string {
  return text.split('\n')[0] ?? '';
}

function jsonOf({ id, cluster, directory, manifest, problem }: BackupEntry): object {
  if (manifest === undefined) return { id, ...cluster, directory, state: 'unreadable', problem };
  const { startedAt, finishedAt, records, sizeBytes, epoch, softwareVersion } = manifest;
  const facts = { time: startedAt, finishedAt, records, bytes: sizeBytes, epoch, softwareVersion };
  return { id, ...cluster, directory, state: 'complete', ...facts };
}
