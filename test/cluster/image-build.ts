import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import { inCache } from './layout.ts';

export interface Image {
  /** As in a pod's `image:`. Its tag names the content; pull policy IfNotPresent or Never. */
  name: string;
  /** The image as a docker-archive, for `ctr images import`. */
  archive: string;
}

export interface ImageBuild {
  /** Name with tag. */
  name: string;
  /** The build context. */
  context: string;
  /** @default `Dockerfile` in the context */
  dockerfile?: string;
  buildArgs?: Record<string, string>;
}

/** The archive of an image that has been built before; undefined otherwise. */
export function builtImage(name: string): Image | undefined {
  const archive = archivePath(name);
  return existsSync(archive) ? { name, archive } : undefined;
}

/** Builds an image with buildah into the cache; needs no network, whatever the Dockerfile may download. */
export async function buildImage(build: ImageBuild): Promise<Image> {
  const { name, context, dockerfile = join(context, 'Dockerfile'), buildArgs = {} } = build;
  mkdirSync(inCache('images'), { recursive: true });
  const working = mkdtempSync(inCache('images/building-'));
  try {
    const args = Object.entries(buildArgs).flatMap(([key, value]) => ['--build-arg', `${key}=${value}`]);
    await buildah([
      'bud',
      '--quiet',
      '--isolation',
      'chroot',
      '--pull-never',
      ...args,
      '--file',
      dockerfile,
      '--tag',
      name,
      context,
    ]);
    await buildah(['push', '--quiet', name, `docker-archive:${join(working, 'image.tar')}:${name}`]);
    renameSync(join(working, 'image.tar'), archivePath(name));
  } finally {
    rmSync(working, { recursive: true, force: true });
  }
  return { name, archive: archivePath(name) };
}

/** Forgets an image and its archive, to make room when a newer one took its place. */
export async function removeImage(name: string): Promise<void> {
  rmSync(archivePath(name), { force: true });
  await buildah(['rmi', '--force', name]);
}

/** Names, with tags, of the images of one repository that buildah keeps. */
export async function imagesOf(repository: string): Promise<string[]> {
  const names = await buildah(['images', '--format', '{{.Name}}:{{.Tag}}']);
  return names.split('\n').filter((name) => name.startsWith(`${repository}:`));
}

export async function hasImage(name: string): Promise<boolean> {
  return (await imagesOf(name.slice(0, name.lastIndexOf(':')))).includes(name);
}

/**
 * Its storage is ours alone, in the cache. The vfs driver copies where overlay would mount: nothing stays mounted
 * afterwards, and it works inside containers.
 */
async function buildah(args: readonly string[]): Promise<string> {
  const storage = [
    '--root',
    inCache('buildah'),
    '--runroot',
    inCache('buildah-run'),
    '--storage-driver',
    'vfs',
  ];
  return run('buildah', [...storage, ...args], { timeoutMs: 300_000 });
}

const archivePath = (name: string): string => inCache('images', `${name.replaceAll(/[/:]/g, '_')}.tar`);
