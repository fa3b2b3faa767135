import { createServer } from 'node:net';
import { kubernetesChains } from './firewall.ts';
import { ports } from './layout.ts';

/**
 * Refuses to share the machine with another Kubernetes; called when nothing of ours is up.
 *
 * @throws Error of one line that says what is in the way.
 */
export async function refuseForeignKubernetes(
  needed: Readonly<Record<string, number>> = ports,
): Promise<void> {
  for (const [component, port] of Object.entries(needed)) {
    if (await portTaken(port)) {
      throw new Error(`port ${port}, needed by ${component}, is taken by another process; end that first`);
    }
  }
  const [chain] = await kubernetesChains();
  if (chain !== undefined) {
    throw new Error(`another Kubernetes has network rules on this machine (chain ${chain}); end that first`);
  }
}

export async function portTaken(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(true);
      else reject(error);
    });
    server.listen({ port, exclusive: true }, () => {
      server.close(() => {
        resolve(false);
      });
    });
  });
}
