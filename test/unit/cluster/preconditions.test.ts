import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { refuseForeignKubernetes } from '../../cluster/preconditions.ts';

describe('raising a cluster beside something else', () => {
  it('is refused, in one line, when a port is taken on whatever address', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const refusal = await refuseForeignKubernetes({ etcd: port }).then(
      () => 'accepted',
      (error: unknown) => String(error),
    );
    expect(refusal).to.equal(
      `Error: port ${port}, needed by etcd, is taken by another process; end that first`,
    );
    server.close();
    await once(server, 'close');
  });
});
