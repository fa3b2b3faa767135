import type { Store } from '../storage/store.ts';
import { StoreState } from '../../proto/gen/peer.ts';
import type { VolumeIdentity } from './identity.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';

/**
 * What this store can be trusted with.
 *
 * - `blank`: no data and no map yet.
 * - `readable`: holds everything it ever acknowledged; serves reads and coordinates.
 * - `catching-up`: holds everything it ever acknowledged but missed entries that peers' logs no longer have.
 * - `rebuilding`: lost what it acknowledged.
 */
export type ServingState = 'blank' | 'readable' | 'catching-up' | 'rebuilding';

const META = 'serving';
const FORMAT = 1;

interface StoredMark {
  readonly state: ServingState;
  readonly incarnation: number;
}

/**
 * The persisted serving state, so that an intact node serves after a restart without asking anybody (PROTOCOL 34).
 * A loss of trust counts at once and is then persisted; a gain counts only when it is persisted.
 */
export class ServingMark {
  private readonly store: Store;
  private readonly identity: VolumeIdentity;
  private readonly listeners = new Set<() => void>();
  private current: ServingState;

  constructor(store: Store, identity: VolumeIdentity) {
    this.store = store;
    this.identity = identity;
    this.current = initialState(readJsonMeta(store, META, FORMAT) as StoredMark | undefined, identity);
  }

  get state(): ServingState {
    return this.current;
  }

  get readable(): boolean {
    return this.current === 'readable';
  }

  /** Whether everything this store ever acknowledged is here: only then do its records count for a rebuild. */
  get intact(): boolean {
    return this.current === 'readable' || this.current === 'catching-up';
  }

  /** Resolves when the state is durable. */
  async set(state: ServingState): Promise<void> {
    if (state !== 'readable') this.become(state);
    await writeJsonMeta(this.store, META, FORMAT, { state, incarnation: this.identity.incarnation });
    this.become(state);
  }

  onChange(listener: () => void): void {
    this.listeners.add(listener);
  }

  private become(state: ServingState): void {
    if (state === this.current) return;
    this.current = state;
    for (const listener of this.listeners) listener();
  }
}

/** A mark of another incarnation was left by a crash while the incarnation changed, which only a loss of data does. */
function initialState(mark: StoredMark | undefined, identity: VolumeIdentity): ServingState {
  if (mark === undefined) return 'blank';
  return mark.incarnation === identity.incarnation ? mark.state : 'rebuilding';
}

const WIRE_STATES: Record<ServingState, StoreState> = {
  blank: StoreState.BLANK,
  readable: StoreState.READABLE,
  'catching-up': StoreState.CATCHING_UP,
  rebuilding: StoreState.REBUILDING,
};

/** The state as peers and the admin service see it. */
export function stateToProto(state: ServingState): StoreState {
  return WIRE_STATES[state];
}

/** The state that a peer announced; undefined when this version does not know it. */
export function stateFromProto(wire: StoreState): ServingState | undefined {
  return (Object.keys(WIRE_STATES) as ServingState[]).find((state) => WIRE_STATES[state] === wire);
}
