import { expect } from 'chai';
import fc from 'fast-check';
import {
  compareVersions,
  formatVersion,
  MAX_COUNTER,
  MAX_WALL_MS,
  NO_VERSION,
  readVersion,
  VERSION_BYTES,
  writeVersion,
} from '../../../model/version.ts';

const versions = fc.record({
  wallMs: fc.integer({ min: 0, max: MAX_WALL_MS }),
  counter: fc.integer({ min: 0, max: MAX_COUNTER }),
  writer: fc.integer({ min: 1, max: 2 ** 48 - 1 }),
});

function encoded(version: Parameters<typeof writeVersion>[0]): Buffer {
  const buffer = Buffer.alloc(VERSION_BYTES);
  writeVersion(version, buffer, 0);
  return buffer;
}

describe('Version', () => {
  it('reads back what was written', () => {
    fc.assert(
      fc.property(
        versions,
        (version) => void expect(readVersion(encoded(version), 0)).to.deep.equal(version),
      ),
    );
  });

  it('orders encoded bytes like versions', () => {
    fc.assert(
      fc.property(versions, versions, (a, b) => {
        expect(Math.sign(Buffer.compare(encoded(a), encoded(b)))).to.equal(Math.sign(compareVersions(a, b)));
      }),
    );
  });

  it('orders by clock, then counter, then writer', () => {
    const ascending = [
      NO_VERSION,
      { wallMs: 1, counter: 0, writer: 9 },
      { wallMs: 1, counter: 1, writer: 1 },
      { wallMs: 1, counter: 1, writer: 2 },
      { wallMs: 2, counter: 0, writer: 1 },
    ];
    expect(ascending.toReversed().sort(compareVersions)).to.deep.equal(ascending);
  });

  it('prints the writer in hex', () => {
    expect(formatVersion({ wallMs: 12, counter: 3, writer: 255 })).to.equal('12.3@0000000000ff');
  });
});
