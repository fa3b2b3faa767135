import type { Timer } from '../../common/clock.ts';
import type { MapHolder } from '../cluster/map-holder.ts';
import { nodeState, nodeStateToProto } from '../cluster/node-state.ts';
import type { PartitionSet } from '../cluster/partition-set.ts';
import type { Standing } from '../cluster/standing.ts';
import type { Heartbeat } from '../../proto/gen/peer.ts';
import type { PeerSession, SessionOptions } from './peer-session.ts';

export interface UpkeepOptions extends SessionOptions {
  readonly maps: MapHolder;
  readonly standing: Standing;
  /** Partitions that this node would serve reads of, if its map says so. */
  readonly served: () => PartitionSet;
  /** What the heartbeat says of horizons. */
  readonly horizonReport: () => Pick<Heartbeat, 'lowWaterMs' | 'label' | 'settled'>;
  /** Anything else that is to be done at every beat. */
  readonly onBeat: () => void;
  readonly draining: () => boolean;
  /** Running sessions, by name of the peer. */
  readonly sessions: () => readonly PeerSession[];
}

/**
 * What is done for all sessions again and again: heartbeats, noticing silence, making durable what is remembered of
 * peers, letting the log drop what everybody has, and measuring.
 */
export class Upkeep {
  private readonly options: UpkeepOptions;
  private timer: Timer | undefined;
  private persisting = false;
  private persistedAtMs = 0;
  private stopped = false;

  constructor(options: UpkeepOptions) {
    this.options = options;
  }

  start(): void {
    this.beat();
  }

  stop(): void {
    this.stopped = true;
    this.timer?.cancel();
  }

  /** Says at once what heartbeats would say later. */
  announce(): void {
    for (const session of this.options.sessions()) this.sendHeartbeat(session);
  }

  sendHeartbeat(session: PeerSession): void {
    const { standing, maps, identity, store, clock, draining, ownLog, sessions, horizonReport } =
      this.options;
    session.link.send({
      $case: 'heartbeat',
      value: {
        state: nodeStateToProto(nodeState(maps.current, identity.nodeId, standing)),
        head: store.head,
        wallMs: clock.wallMs(),
        accepting: !draining(),
        connected: sessions().map(({ peer }) => peer),
        durableHead: ownLog.durableHead,
        readable: this.options.served().toBytes(),
        ...horizonReport(),
      },
    });
  }

  /** Makes durable what is remembered, then lets the log drop what every other member has acknowledged durably. */
  async persist(): Promise<void> {
    const { memories, store, floor, maps, identity, clock } = this.options;
    this.persisting = true;
    try {
      const acknowledged = await memories.persist();
      await floor.persist();
      this.persistedAtMs = clock.monotonicMs();
      const others = maps.current?.members.filter(({ nodeId }) => nodeId !== identity.nodeId);
      if (others === undefined || this.stopped) return;
      store.trimLog(Math.min(store.head, ...others.map(({ nodeId }) => acknowledged.get(nodeId) ?? 0)));
    } finally {
      this.persisting = false;
    }
  }

  private beat(): void {
    if (this.stopped) return;
    const { scheduler, settings, clock, logger, sessions } = this.options;
    const now = clock.monotonicMs();
    this.options.onBeat();
    for (const session of sessions()) {
      if (now - session.link.heardAtMs > settings.failureDetectionMs) {
        session.link.close(new Error(`nothing heard for ${settings.failureDetectionMs} ms`));
      } else {
        this.sendHeartbeat(session);
        session.remote.expire(settings.answerMs);
      }
    }
    if (now - this.persistedAtMs >= settings.peerMemoryMs && !this.persisting) {
      this.persist().catch((error: unknown) =>
        logger.error({ error }, 'what is remembered of peers could not be written'),
      );
    }
    this.measure();
    this.timer = scheduler.after(settings.heartbeatMs, () => this.beat());
  }

  private measure(): void {
    const { maps, metrics, identity, store, sessions } = this.options;
    const running = new Map(sessions().map((session) => [session.peer, session]));
    for (const { nodeId } of maps.current?.members ?? []) {
      if (nodeId === identity.nodeId) continue;
      const session = running.get(nodeId);
      metrics.gaugePeer('peer_connected', nodeId, session === undefined ? 0 : 1);
      if (session === undefined) continue;
      metrics.gaugePeer('peer_behind', nodeId, Math.max(0, session.state.head - session.cursor));
      metrics.gaugePeer('peer_ahead', nodeId, Math.max(0, store.head - session.acknowledged));
      metrics.gaugePeer('peer_clock_offset_ms', nodeId, session.state.clockOffsetMs);
    }
  }
}
