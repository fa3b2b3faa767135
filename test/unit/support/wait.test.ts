import { expect } from 'chai';
import { waitFor } from '../../support/wait.ts';

const waiting = { what: 'the third look', timeoutMs: 1_000, intervalMs: 1 };

describe('waiting for a condition', () => {
  it('gives what the condition found', async () => {
    let looks = 0;
    expect(await waitFor(waiting, () => (++looks === 3 ? 'found' : undefined))).to.equal('found');
  });

  it('takes an error for "not yet"', async () => {
    let looks = 0;
    const found = await waitFor(waiting, () => {
      if (++looks < 3) throw new Error('connection refused');
      return looks;
    });
    expect(found).to.equal(3);
  });

  it('says at its limit what it waited for and what it last saw', async () => {
    const failure = await waitFor({ ...waiting, timeoutMs: 10 }, (see) => {
      see('pod Pending');
      return false;
    }).then(
      () => '',
      (error: unknown) => String(error),
    );
    expect(failure).to.equal('Error: waited 0.01 s for the third look; last seen: pod Pending');
  });
});
