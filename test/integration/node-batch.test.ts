import { expect } from 'chai';
import { NodeHome, NodeProcess } from '../support/node-process.ts';
import { PlainClient } from '../support/unary.ts';

const KEYS = 8;
/** Long enough to be spread over pages and sectors. */
const valueOf = (round: number, index: number): string => `${round}:${index}:`.repeat(6000);

describe('a batch of writes', () => {
  it(`leaves each key as it was or as it was to be, and what was acknowledged, wherever kill -9 comes (scenario 13)`, async () => {
    using home = new NodeHome();
    const expected = Array.from({ length: KEYS }, (): (string | undefined)[] => [undefined]);
    for (let round = 0; round <= KEYS + 1; round += 1) {
      await using node = await NodeProcess.start({ home, flags: { 'log-level': 'error' } });
      await (round === 0 ? node.joinAlone() : node.ready());
      using client = new PlainClient(node.client());
      for (const [index, allowed] of expected.entries()) {
        const found = await client.get(`batch/${index}`);
        expect(
          allowed.includes(found),
          `key ${index} before round ${round}: ${found?.slice(0, 20)}`,
        ).to.equal(true);
        allowed.splice(0, allowed.length, found);
      }
      if (round === KEYS + 1) break;
      // Killed after as many acknowledgements as there were rounds: at each step of the batch once.
      let acknowledged = 0;
      await new Promise<void>((resolve) => {
        if (round === 0) resolve();
        const writes = expected.map(async (allowed, index) => {
          const value = valueOf(round, index);
          allowed.push(value);
          await client.put(`batch/${index}`, value);
          // After the kill an answer may still be on its way here, and counts as well.
          allowed.splice(0, allowed.length, value);
          acknowledged += 1;
          if (acknowledged >= round) resolve();
        });
        for (const write of writes) write.catch(() => undefined);
      });
      expect(await node.kill('SIGKILL')).to.deep.equal({ code: null, signal: 'SIGKILL' });
    }
  });
});
