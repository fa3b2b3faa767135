/** Why a node must stop for good. */
export type FatalKind =
  /** The store cannot write any more. */
  | 'store-failed'
  /** Another process runs on this volume, or on a copy of it. */
  | 'copied-volume'
  /** This incarnation was removed or replaced: the store is to be set aside, and the node joins blank. */
  | 'retired';

/** What `Replica.fatal` rejects with. */
export class FatalError extends Error {
  override readonly name = 'FatalError';
  readonly kind: FatalKind;

  constructor(kind: FatalKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}
