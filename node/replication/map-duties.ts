import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { type ClusterMap, memberOf } from '../../model/cluster-map.ts';
import { partitionsHeldBy } from '../../model/replica-sets.ts';
import type { VolumeIdentity } from '../cluster/identity.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Store } from '../storage/store.ts';
import type { Newcomers } from './requests/newcomers.ts';
import type { Residue } from './residue.ts';

export interface MapDutiesOptions {
  readonly store: Store;
  readonly identity: VolumeIdentity;
  readonly standing: Standing;
  readonly residue: Residue;
  readonly newcomers: Newcomers;
  readonly map: () => ClusterMap | undefined;
  readonly logger: Logger;
  /** Partitions come to this node, blank. */
  readonly onGained: (partitions: readonly number[]) => void;
  /** This incarnation must not go on. */
  readonly onRetired: (message: string) => void;
}

/** What a map obliges this node to: joining, leaving, beginning blank. */
export class MapDuties {
  private readonly options: MapDutiesOptions;

  constructor(options: MapDutiesOptions) {
    this.options = options;
  }

  /** Before the map counts. A partition that comes (back) to this node begins blank: what is left of it is of the past. */
  async prepare(next: ClusterMap): Promise<void> {
    const { identity, residue, standing, newcomers, map, onGained } = this.options;
    const current = map();
    await newcomers.prepare(current, next);
    const held = new Set(current === undefined ? [] : partitionsHeldBy(current, identity.nodeId));
    const gained = partitionsHeldBy(next, identity.nodeId).filter((partition) => !held.has(partition));
    // A volume that has lost its map, but not its standing, goes on with what it has.
    if (current === undefined || gained.length === 0) return;
    const unmarked = standing.unmark(gained);
    onGained(gained);
    await unmarked;
    await residue.discard(gained);
  }

  /** After the map counts, and at start. */
  async settleInto(map: ClusterMap): Promise<void> {
    const { identity, standing, residue, onRetired, logger } = this.options;
    const { nodeId, incarnation } = identity;
    // In the turn of the adoption: whoever asks next must hear of what is left here.
    residue.look();
    if (map.retired.some((retired) => retired.nodeId === nodeId && retired.incarnation === incarnation)) {
      onRetired(`the cluster map retired incarnation ${incarnation} of ${nodeId}`);
      return;
    }
    try {
      // Only the first map of a cluster finds every volume blank; later a blank one has lost its data (OPERATOR 5).
      if (map.initialised && memberOf(map, nodeId) !== undefined) await standing.begin();
      const held = new Set(partitionsHeldBy(map, nodeId));
      await standing.unmark([...standing.readable].filter((partition) => !held.has(partition)));
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'what the map means for this node could not be written');
    }
  }

  /**
   * A blank volume begins as readable only when the map's writer itself brings a map that is not initialised: from a peer
   * such a map may be left over from the first start, and this volume may have lost what was acknowledged since.
   */
  async found(map: ClusterMap): Promise<void> {
    const { identity, standing } = this.options;
    if (map.initialised || standing.begun) return;
    await standing.markReadable(partitionsHeldBy(map, identity.nodeId));
  }
}
