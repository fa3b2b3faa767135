import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { run, runOrEmpty } from './command.ts';
import { inState } from './layout.ts';

/** A volume's data: a sparse file, so that a full volume is really full and an empty one costs nothing. */
const dataFile = (volume: string): string => inState('volumes', `${volume}.img`);

export interface LoopDevice {
  device: string;
  file: string;
}

/** Loop devices on files of the state directory, also when such a file is already deleted. */
export async function ownLoopDevices(): Promise<LoopDevice[]> {
  const listed = await runOrEmpty('losetup', [
    '--list',
    '--noheadings',
    '--raw',
    '--output',
    'NAME,BACK-FILE',
  ]);
  return listed
    .split('\n')
    .map((line) => /^(\S+) (.*)$/.exec(line))
    .filter((match) => match !== null)
    .map((match) => ({ device: match[1] ?? '', file: match[2] ?? '' }))
    .filter(({ file }) => file.startsWith(`${inState()}/`));
}

/** Makes an empty block device of the given size. */
export async function createLoopDevice(volume: string, sizeBytes: number): Promise<string> {
  mkdirSync(inState('volumes'), { recursive: true });
  writeFileSync(dataFile(volume), '');
  truncateSync(dataFile(volume), sizeBytes);
  return (await run('losetup', ['--find', '--show', dataFile(volume)])).trim();
}

/** Whether some mount name space of this machine that we see still uses the device. */
export function isMounted(device: string): boolean {
  return readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .some((line) => line.startsWith(`${device} `));
}

/** Takes the device away and its data with it; nothing happens when it is gone already. */
export async function removeLoopDevice(volume: string): Promise<void> {
  const found = (await ownLoopDevices()).filter(({ file }) => file.startsWith(dataFile(volume)));
  for (const { device } of found) await run('losetup', ['--detach', device]);
  if (existsSync(dataFile(volume))) rmSync(dataFile(volume));
}
