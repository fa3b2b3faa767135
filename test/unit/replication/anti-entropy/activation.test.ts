import { expect } from 'chai';
import { Activation } from '../../../../node/replication/anti-entropy/activation.ts';
import { Claims } from '../../../../node/replication/anti-entropy/claims.ts';
import { DEFAULT_ANTI_ENTROPY_SETTINGS } from '../../../../node/replication/anti-entropy/settings.ts';
import type { Settlement } from '../../../../node/replication/anti-entropy/settlement.ts';
import { ManualTime } from '../../../support/manual-time.ts';
import { silentLogger } from '../../../support/memory-store.ts';
import { seededRandom } from '../../../support/seeded-random.ts';

describe('partitions that are filled', () => {
  it('become readable only when no further source fills them: what that brings past the log must be here first', async () => {
    const time = new ManualTime();
    const claims = new Claims();
    const readable = new Set<number>();
    let marked = 0;
    const settlement = {
      filled: () =>
        [1, 2]
          .filter((partition) => !readable.has(partition))
          .map((partition) => ({ partition, horizonMs: 0 })),
    } as unknown as Settlement;
    const activation = new Activation(
      {
        horizons: { inherit: () => Promise.resolve() } as never,
        standing: {
          isReadable: (partition) => readable.has(partition),
          markReadable: async (partitions) => {
            // Nobody begins to fill what is being marked.
            expect(claims.take([...partitions], 10)).to.deep.equal([]);
            await Promise.resolve();
            for (const partition of partitions) readable.add(partition);
          },
        },
        scheduler: time.scheduler(),
        settings: DEFAULT_ANTI_ENTROPY_SETTINGS,
        logger: silentLogger,
        random: seededRandom(1),
        claims,
      },
      settlement,
      () => (marked += 1),
    );
    const pulling = claims.take([2], 1);
    activation.wake();
    await time.until('the first is marked', () => marked === 1);
    expect([...readable]).to.deep.equal([1]);
    activation.wake();
    await time.advance(10);
    expect([...readable]).to.deep.equal([1]);
    claims.release(pulling);
    activation.wake();
    await time.until('the second is marked', () => marked === 2);
    expect([...readable]).to.deep.equal([1, 2]);
    expect(claims.take([1, 2], 10)).to.deep.equal([1, 2]);
  });
});
