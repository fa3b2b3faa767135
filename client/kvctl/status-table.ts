import { messageOf } from '../../common/errors.ts';
import { lowerMedian } from '../../common/median.ts';
import type { GetStatusResponse } from '../../proto/gen/admin.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { MemberReport } from '../members.ts';
import { formatBytes, formatDuration } from './output.ts';

/** Headings of the table of members. */
export const STATUS_HEADINGS = [
  'NODE',
  'STATE',
  'READY',
  'IN SYNC',
  'BEHIND',
  'EPOCH',
  'RECORDS',
  'DISK',
  'HORIZON',
  'CLOCK',
  'VERSION',
  'NOTE',
] as const;

/** A member's row of the table. */
export function statusRow({ target, status, error }: MemberReport): string[] {
  if (status === undefined) {
    const unknown = STATUS_HEADINGS.slice(2, -1).map(() => '-');
    return [target.nodeId, 'unreachable', ...unknown, messageOf(error)];
  }
  return [
    target.nodeId,
    status.draining ? 'draining' : stateName(status.state),
    yesNo(status.ready),
    yesNo(status.inSync),
    String(behind(status)),
    String(status.epoch),
    String(status.records),
    formatBytes(status.stateBytes + status.logBytes),
    formatHorizon(status),
    formatSkew(clockSkewMs(status)),
    status.version,
    notesOf(status).join('; '),
  ];
}

/** Entries of all peers' logs that the node has yet to apply. */
export function behind(status: GetStatusResponse): number {
  return status.peers.reduce((sum, peer) => sum + peer.behind, 0);
}

/** The node's clock less the median of all clocks that it sees, milliseconds; undefined when it sees no other. */
export function clockSkewMs(status: GetStatusResponse): number | undefined {
  const offsets = status.peers.filter(({ connected }) => connected).map(({ clockOffsetMs }) => clockOffsetMs);
  const median = lowerMedian([0, ...offsets]);
  // Without a negative zero.
  return offsets.length === 0 || median === undefined ? undefined : 0 - median;
}

const stateNames = new Map<StoreState, string>([
  [StoreState.BLANK, 'blank'],
  [StoreState.READABLE, 'readable'],
  [StoreState.REBUILDING, 'rebuilding'],
]);

export function stateName(state: StoreState): string {
  return stateNames.get(state) ?? 'unknown';
}

/** Whatever needs attention, or explains what the columns show. */
function notesOf(status: GetStatusResponse): readonly string[] {
  const { notReadyReason, writeRefusal, fillingPartitions, residualPartitions, partitions } = status;
  const { settledEpoch, collectionFrozenReason } = status;
  return [
    notReadyReason,
    writeRefusal === '' ? '' : `coordinates no writes: ${writeRefusal}`,
    fillingPartitions === 0 ? '' : `fills partitions: ${fillingPartitions} of ${partitions}`,
    residualPartitions === 0 ? '' : `still stores partitions given away: ${residualPartitions}`,
    settledEpoch === 0 ? '' : `has settled the move of epoch ${settledEpoch}`,
    collectionFrozenReason === '' ? '' : `tombstones stay: ${collectionFrozenReason}`,
  ].filter((note) => note !== '');
}

/** How long ago the horizon is: what was deleted before is gone for good. */
function formatHorizon({ horizonMs, wallMs }: GetStatusResponse): string {
  return horizonMs === 0 ? '-' : formatDuration(Math.max(0, wallMs - horizonMs));
}

function formatSkew(skewMs: number | undefined): string {
  if (skewMs === undefined) return '-';
  return `${skewMs < 0 ? '-' : '+'}${(Math.abs(skewMs) / 1000).toFixed(1)}s`;
}

function yesNo(value: boolean): string {
  return value ? 'yes' : 'no';
}
