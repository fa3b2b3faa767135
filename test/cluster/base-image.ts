import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';
import { builtImage, buildImage, hasImage, type Image } from './image-build.ts';
import { inCache, source } from './layout.ts';

const suite = 'bookworm';
const included = ['ca-certificates'];
const leftOut = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/locale/*', '/usr/share/info/*'];

const dockerfile = `FROM scratch
ADD rootfs.tar /
COPY node /usr/local/bin/node
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["node"]
`;

/** Node of the version that this repository pins: the npm package \`node\` carries the official binary. */
const nodeBinary = (): string => realpathSync(source('../../node_modules/node/bin/node'));

/**
 * What stands in for node:24-bookworm-slim where no image registry can be reached: Debian from its mirrors and the
 * official Node binary. Made once per recipe and Node version.
 */
export async function baseImage(log: (line: string) => void): Promise<Image> {
  const version = (await run(nodeBinary(), ['--version'])).trim();
  const recipe = createHash('sha256').update(JSON.stringify([suite, included, leftOut, dockerfile, version]));
  const name = `localhost/kvcluster-base:${version}-${recipe.digest('hex').slice(0, 12)}`;
  const image = builtImage(name);
  // The archive serves pods, buildah's own copy serves builds on top of it.
  if (image !== undefined && (await hasImage(name))) return image;
  log(`building base image ${name}; once, usually 30 s`);
  return build(name);
}

async function build(name: string): Promise<Image> {
  const context = mkdtempSync(inCache('base-'));
  try {
    const exclusions = leftOut.map((path) => `--dpkgopt=path-exclude=${path}`);
    const rootfs = join(context, 'rootfs.tar');
    await run(
      'mmdebstrap',
      ['--quiet', '--variant=minbase', `--include=${included.join(',')}`, ...exclusions, suite, rootfs],
      { timeoutMs: 600_000 },
    );
    copyFileSync(nodeBinary(), join(context, 'node'));
    chmodSync(join(context, 'node'), 0o755);
    writeFileSync(join(context, 'Dockerfile'), dockerfile);
    return await buildImage({ name, context });
  } finally {
    rmSync(context, { recursive: true, force: true });
  }
}
