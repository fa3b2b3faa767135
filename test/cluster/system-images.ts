import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtImage, buildImage, type Image } from './image-build.ts';
import { pauseImage } from './container-runtime.ts';
import { binaries } from './layout.ts';

const recipes = [
  { name: pauseImage, binary: binaries.pause },
  { name: 'localhost/coredns:1', binary: binaries.coredns },
];

/** The images that the cluster itself needs: each one static binary and nothing else. */
export async function systemImages(log: (line: string) => void): Promise<Image[]> {
  const images: Image[] = [];
  for (const { name, binary } of recipes) {
    const image = builtImage(name);
    if (image === undefined) log(`building image ${name}`);
    images.push(image ?? (await singleBinaryImage(name, binary)));
  }
  return images;
}

async function singleBinaryImage(name: string, binary: string): Promise<Image> {
  const context = mkdtempSync(join(tmpdir(), 'kvcluster-image-'));
  try {
    copyFileSync(binary, join(context, 'entry'));
    writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY entry /entry\nENTRYPOINT ["/entry"]\n');
    return await buildImage({ name, context });
  } finally {
    rmSync(context, { recursive: true, force: true });
  }
}
