import type { Store } from '../storage/store.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';

/** What this node remembers of one peer over restarts; authoritative for nothing but proof and trimming. */
export interface PeerMemory {
  /** The incarnation last accepted. */
  readonly incarnation: number;
  /** Its last accepted start, and that start's nonce. */
  readonly bootCounter: number;
  readonly nonce: number;
  /** The start during which the cursor on its log last moved. */
  readonly cursorBoot: number;
  /** Highest sequence it has announced as synced on its own disk. */
  readonly durableHead: number;
  /** How far it has durably acknowledged this node's log. */
  readonly acknowledged: number;
  /** Earlier incarnations, newest last: a volume that comes back after it was replaced. */
  readonly replaced: readonly number[];
}

const META = 'peers';
const FORMAT = 1;
const MOST_REPLACED = 16;

interface StoredMemory {
  /** Incarnation of this node that the acknowledgements are of. */
  readonly ownIncarnation: number;
  readonly peers: Readonly<Record<string, PeerMemory>>;
}

/** The durable memory of all peers; changes are in memory at once and durable with the next `persist`. */
export class PeerMemories {
  private readonly store: Store;
  private readonly ownIncarnation: () => number;
  private readonly peers: Map<string, PeerMemory>;
  private changed = false;

  constructor(store: Store, ownIncarnation: () => number) {
    this.store = store;
    this.ownIncarnation = ownIncarnation;
    const stored = readJsonMeta(store, META, FORMAT) as StoredMemory | undefined;
    this.peers = new Map(Object.entries(stored?.peers ?? {}));
    if (stored !== undefined && stored.ownIncarnation !== ownIncarnation()) this.forgetAcknowledgements();
  }

  get(nodeId: string): PeerMemory | undefined {
    return this.peers.get(nodeId);
  }

  /** Notes an accepted Hello: a new incarnation starts with nothing acknowledged or announced. */
  accept(nodeId: string, hello: Pick<PeerMemory, 'incarnation' | 'bootCounter' | 'nonce'>): void {
    const known = this.peers.get(nodeId);
    if (known?.incarnation === hello.incarnation) {
      this.change(nodeId, { ...known, ...hello });
      return;
    }
    const replaced = known === undefined ? [] : [...known.replaced, known.incarnation].slice(-MOST_REPLACED);
    this.change(nodeId, { ...hello, cursorBoot: 0, durableHead: 0, acknowledged: 0, replaced });
  }

  /** Changes what is remembered of an accepted peer. */
  update(nodeId: string, change: Partial<PeerMemory>): void {
    const known = this.peers.get(nodeId);
    if (known !== undefined) this.change(nodeId, { ...known, ...change });
  }

  /** After this node took a new incarnation: nobody has acknowledged anything of it. */
  forgetAcknowledgements(): void {
    for (const [nodeId, memory] of this.peers) this.change(nodeId, { ...memory, acknowledged: 0 });
  }

  /** Makes everything changed so far durable; returns what was acknowledged as written, by peer. */
  async persist(): Promise<ReadonlyMap<string, number>> {
    const acknowledged = new Map([...this.peers].map(([nodeId, memory]) => [nodeId, memory.acknowledged]));
    if (this.changed) {
      this.changed = false;
      await writeJsonMeta(this.store, META, FORMAT, {
        ownIncarnation: this.ownIncarnation(),
        peers: Object.fromEntries(this.peers),
      } satisfies StoredMemory);
    }
    return acknowledged;
  }

  private change(nodeId: string, memory: PeerMemory): void {
    this.peers.set(nodeId, memory);
    this.changed = true;
  }
}
