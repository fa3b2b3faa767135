import { expect } from 'chai';
import { formatDuration } from '../../../client/kvctl/output.ts';
import { clockSkewMs, STATUS_HEADINGS, statusRow } from '../../../client/kvctl/status-table.ts';
import { GetStatusResponse, PeerStatus } from '../../../proto/gen/admin.ts';
import { StoreState } from '../../../proto/gen/peer.ts';

const target = { nodeId: 'kv-0', address: '127.0.0.1:50052' };
const peer = (clockOffsetMs: number, connected = true): PeerStatus => ({
  ...PeerStatus.decode(Buffer.alloc(0)),
  connected,
  clockOffsetMs,
  behind: 2,
});
const healthy: GetStatusResponse = {
  ...GetStatusResponse.decode(Buffer.alloc(0)),
  nodeId: 'kv-0',
  state: StoreState.READABLE,
  ready: true,
  inSync: true,
  epoch: 7,
  partitions: 256,
  records: 12,
  stateBytes: 1024,
  logBytes: 1024,
  version: '0.1.0',
  wallMs: 1_800_000_075_000,
  horizonMs: 1_800_000_000_000,
  peers: [peer(100), peer(-300)],
};
const cells = (change: Partial<GetStatusResponse>): Record<string, string> => {
  const row = statusRow({ target, status: { ...healthy, ...change }, error: undefined });
  expect(row).to.have.length(STATUS_HEADINGS.length);
  return Object.fromEntries(STATUS_HEADINGS.map((heading, index) => [heading, row[index] ?? '']));
};

describe('a row of kvctl status', () => {
  it('shows a healthy member without a note', () => {
    expect(cells({})).to.deep.equal({
      NODE: 'kv-0',
      STATE: 'readable',
      READY: 'yes',
      'IN SYNC': 'yes',
      BEHIND: '4',
      EPOCH: '7',
      RECORDS: '12',
      DISK: '2.0 KiB',
      HORIZON: '75s',
      CLOCK: '+0.0s',
      VERSION: '0.1.0',
      NOTE: '',
    });
  });

  it('shows how long ago the horizon is, and nothing before there is one', () => {
    expect(cells({ horizonMs: 0 })['HORIZON']).to.equal('-');
    expect(cells({ horizonMs: healthy.wallMs + 5 })['HORIZON']).to.equal('0s');
    expect(cells({ horizonMs: healthy.wallMs - 7_200_000 })['HORIZON']).to.equal('2h');
  });

  it('shows how far the clock is off from the median of all that are seen', () => {
    expect(cells({ peers: [peer(-3_600_000), peer(-3_599_000)] })['CLOCK']).to.equal('+3599.0s');
    expect(cells({ peers: [peer(1500), peer(1700), peer(-90_000, false)] })['CLOCK']).to.equal('-1.5s');
    expect(cells({ peers: [peer(9000, false)] })['CLOCK']).to.equal('-');
    expect(clockSkewMs({ ...healthy, peers: [peer(0), peer(0)] })).to.equal(0);
  });

  const notes: [string, Partial<GetStatusResponse>, string][] = [
    ['why it is not ready', { notReadyReason: 'has no map' }, 'has no map'],
    [
      'why it coordinates no writes',
      { writeRefusal: 'the clock is 3 s ahead' },
      'coordinates no writes: the clock is 3 s ahead',
    ],
    ['what is filled', { fillingPartitions: 12 }, 'fills partitions: 12 of 256'],
    [
      'what is left of partitions given away',
      { residualPartitions: 3 },
      'still stores partitions given away: 3',
    ],
    ['what it has settled', { settledEpoch: 8 }, 'has settled the move of epoch 8'],
    [
      'why tombstones stay, and because of whom',
      { collectionFrozenReason: 'kv-2 is not connected since 2027-01-15T08:00:00.000Z' },
      'tombstones stay: kv-2 is not connected since 2027-01-15T08:00:00.000Z',
    ],
    [
      'several things in one row',
      { notReadyReason: 'draining', residualPartitions: 1 },
      'draining; still stores partitions given away: 1',
    ],
  ];
  for (const [what, change, note] of notes) {
    it(`notes ${what}`, () => expect(cells(change)['NOTE']).to.equal(note));
  }

  it('says why a member says nothing', () => {
    const row = statusRow({ target, status: undefined, error: new Error('ECONNREFUSED') });
    expect(row).to.have.length(STATUS_HEADINGS.length);
    expect(row.slice(0, 3)).to.deep.equal(['kv-0', 'unreachable', '-']);
    expect(row.at(-1)).to.equal('ECONNREFUSED');
  });

  it('shows lengths of time in the largest unit of which there are two', () => {
    const shown = [0, 1999, 119_000, 120_000, 7_199_000, 7_200_000, 172_800_000].map(formatDuration);
    expect(shown).to.deep.equal(['0s', '1s', '119s', '2m', '119m', '2h', '2d']);
  });
});
