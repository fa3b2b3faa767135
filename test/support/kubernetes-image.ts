import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { baseImage } from '../cluster/base-image.ts';
import { run } from '../cluster/command.ts';
import { ctr, importArchive } from '../cluster/container-runtime.ts';
import { buildImage, builtImage, imagesOf, removeImage, type Image } from '../cluster/image-build.ts';
import type { TestCluster } from './kubernetes-cluster.ts';

const root = join(import.meta.dirname, '../..');
const repository = 'localhost/kvcluster';

const log = (line: string): void => {
  console.error(`      image: ${line}`);
};

/** Makes an image known to a cluster whose node is this machine. Use it with pull policy Never or IfNotPresent. */
export async function importImage(image: Image): Promise<string> {
  const known = await ctr(['images', 'list', '--quiet', `name==${image.name}`]);
  // A name stands for one content, so that one import is enough.
  if (known.trim() === '') await importArchive(image.archive);
  return image.name;
}

/** The local base image, which has Node and nothing of ours, imported. For pods that only run a script. */
export async function importBaseImage(): Promise<string> {
  return importImage(await baseImage(log));
}

/**
 * Our image as the sources are now, from deploy/Dockerfile, imported; its name, for a pod's `image:`. The tag changes
 * with the content, so that a pod runs what was built, and nothing is built when nothing changed. On a cluster
 * elsewhere it is $KVCLUSTER_TEST_IMAGE, which that cluster can pull.
 *
 * @throws Error when the sources do not compile, or the cluster is elsewhere and the variable is not set.
 */
export async function appImage(cluster: TestCluster): Promise<string> {
  if (!cluster.local) {
    const named = process.env.KVCLUSTER_TEST_IMAGE;
    if (named !== undefined && named !== '') return named;
    throw new Error(
      'with a cluster elsewhere, KVCLUSTER_TEST_IMAGE must name an image of this code it can pull',
    );
  }
  return importImage(await buildAppImage());
}

/** The same image under another tag, as an upgrade without a change would bring it. */
export async function retagImage(name: string, tag: string): Promise<string> {
  const renamed = `${repository}:${tag}`;
  await ctr(['images', 'tag', '--force', name, renamed]);
  return renamed;
}

async function buildAppImage(): Promise<Image> {
  await run(process.execPath, [join(root, 'scripts/build.ts')], { cwd: root, timeoutMs: 300_000 });
  const base = await baseImage(log);
  const content = createHash('sha256')
    .update(readFileSync(join(root, 'build/image.digest')))
    .update(base.name);
  const name = `${repository}:${content.digest('hex').slice(0, 16)}`;
  const built = builtImage(name);
  if (built !== undefined) return built;
  log(`building ${name}`);
  const older = await imagesOf(repository);
  const image = await buildImage({
    name,
    context: join(root, 'build/image'),
    dockerfile: join(root, 'deploy/Dockerfile'),
    buildArgs: { BASE: base.name },
  });
  for (const other of older.filter((candidate) => candidate !== name)) await removeImage(other);
  return image;
}
