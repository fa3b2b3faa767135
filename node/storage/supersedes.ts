import { compareVersions } from '../../model/version.ts';
import type { RecordIdentity } from './digest.ts';

/**
 * Whether a record takes the place of another one (PROTOCOL 2): it is newer, or of the same version, which must never be,
 * with the larger checksum. It decides the same way on every replica and on every path.
 */
export function supersedes(record: RecordIdentity, other: RecordIdentity): boolean {
  const order = compareVersions(record.version, other.version);
  return order > 0 || (order === 0 && record.checksum > other.checksum);
}
