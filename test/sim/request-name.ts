import type { RequestId } from '../../proto/gen/kvstore.ts';

/** What all attempts of a write have in common. */
export function requestName({ clientId, number }: Pick<RequestId, 'clientId' | 'number'>): string {
  return `${clientId.toString('hex')}/${number}`;
}
