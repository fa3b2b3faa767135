import { KvError } from '../../common/errors.ts';
import { type Random, random48 } from '../../common/random.ts';
import type { Store } from '../storage/store.ts';
import { readJsonMeta, writeJsonMeta } from './json-meta.ts';

const META = 'identity';
const FORMAT = 1;

interface StoredIdentity {
  readonly nodeId: string;
  /** Empty until the node joined a cluster. */
  readonly clusterId: string;
  readonly incarnation: number;
  readonly bootCounter: number;
  readonly logBase: number;
  /** Boot counter of the last start after an unclean end; 0: never. */
  readonly uncleanBoot: number;
}

/**
 * Who this node is, as its volume says (PROTOCOL 27, 28). A volume without identity becomes a new incarnation of the
 * node; the boot counter is raised durably at every start and sent with a random nonce, so that peers can tell a
 * restart from a second process on a copied volume.
 */
export class VolumeIdentity {
  /** New at every start. */
  readonly nonce: number;
  /** Sequence of the newest own entry found at start. */
  readonly recoveredHead: number;
  private readonly store: Store;
  private readonly random: Random;
  private stored: StoredIdentity;

  private constructor(store: Store, random: Random, stored: StoredIdentity) {
    this.store = store;
    this.random = random;
    this.stored = stored;
    this.nonce = random48(random);
    this.recoveredHead = store.head;
  }

  /**
   * Reads or creates the identity and raises the boot counter durably.
   *
   * @throws KvError FAILED_PRECONDITION when the volume belongs to another node or to a newer version of the software.
   */
  static async open(store: Store, nodeId: string, random: Random): Promise<VolumeIdentity> {
    const found = readJsonMeta(store, META, FORMAT) as StoredIdentity | undefined;
    if (found !== undefined && found.nodeId !== nodeId) {
      throw new KvError(
        'FAILED_PRECONDITION',
        `this volume belongs to node ${found.nodeId}, and this node is ${nodeId}: mount the right volume`,
      );
    }
    const identity = new VolumeIdentity(
      store,
      random,
      found ?? {
        nodeId,
        clusterId: '',
        incarnation: random48(random),
        bootCounter: 0,
        logBase: store.logStart,
        uncleanBoot: 0,
      },
    );
    const bootCounter = identity.bootCounter + 1;
    const unclean = found !== undefined;
    await identity.write({ bootCounter, ...(unclean ? { uncleanBoot: bootCounter } : {}) });
    return identity;
  }

  get nodeId(): string {
    return this.stored.nodeId;
  }

  /** Empty until the node joined a cluster. */
  get clusterId(): string {
    return this.stored.clusterId;
  }

  /** 48 random bits; also the writer of every version minted here. */
  get incarnation(): number {
    return this.stored.incarnation;
  }

  get bootCounter(): number {
    return this.stored.bootCounter;
  }

  /** Boot counter of the last start after an unclean end: what was sent before it may be missing here. 0: never. */
  get uncleanBoot(): number {
    return this.stored.uncleanBoot;
  }

  /** Where in the log this incarnation began: peers that hold nothing of it start here. */
  get logBase(): number {
    return this.stored.logBase;
  }

  /** Binds the volume to a cluster; durable when it resolves. */
  async joinCluster(clusterId: string): Promise<void> {
    await this.write({ clusterId });
  }

  /**
   * Takes a new incarnation, durably: what the old one acknowledged may be missing here.
   *
   * @param onRenewed called in the turn in which it counts, so that nothing of the old one is told under the new name.
   */
  async renew(onRenewed: () => void): Promise<void> {
    await this.write({ incarnation: random48(this.random), logBase: this.store.logStart }, onRenewed);
  }

  private async write(change: Partial<StoredIdentity>, onWritten?: () => void): Promise<void> {
    const next = { ...this.stored, ...change };
    await writeJsonMeta(this.store, META, FORMAT, next);
    this.stored = next;
    onWritten?.();
  }
}
