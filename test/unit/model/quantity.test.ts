import { expect } from 'chai';
import { parseQuantity, sameQuantity } from '../../../model/quantity.ts';

describe('parseQuantity', () => {
  const billion = 10n ** 9n;
  for (const [text, amount] of [
    ['1', billion],
    ['1Gi', billion * 1024n ** 3n],
    ['1.5Ki', billion * 1536n],
    ['500m', billion / 2n],
    ['1e3', billion * 1000n],
    ['12e-1', (billion * 12n) / 10n],
    ['.5', billion / 2n],
    ['0', 0n],
    ['-1k', -1000n * billion],
    ['0.1n', 1n],
  ] as const) {
    it(`reads ${text}`, () => {
      expect(parseQuantity(text)).to.equal(amount);
    });
  }

  for (const text of ['', 'x', '1 Gi', '1gi', 'Gi', '1Gi ', '1e', '--1', '1KiB']) {
    it(`finds no quantity in "${text}"`, () => {
      expect(parseQuantity(text)).to.equal(undefined);
    });
  }

  it('finds equal amounts equal however they are written', () => {
    expect(sameQuantity('1024Mi', '1Gi')).to.equal(true);
    expect(sameQuantity('1000m', '1')).to.equal(true);
    expect(sameQuantity('1G', '1Gi')).to.equal(false);
    expect(sameQuantity('x', 'x')).to.equal(false);
  });
});
