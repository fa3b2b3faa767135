import { Backoff } from '../../common/backoff.ts';
import { messageOf } from '../../common/errors.ts';
import type { Timer } from '../../common/clock.ts';
import type { Random } from '../../common/random.ts';
import { memberOf } from '../../model/cluster-map.ts';
import {
  type Hello,
  type MapUpdate,
  type PeerHeader,
  type Refusal,
  Refusal_Reason,
} from '../../proto/gen/peer.ts';
import { judgeHello } from '../cluster/handshake.ts';
import type { MapHolder } from '../cluster/map-holder.ts';
import type { LostPast } from '../cluster/own-past.ts';
import type { Standing } from '../cluster/standing.ts';
import { MapExchange } from './map-exchange.ts';
import { makeHello, pastOf } from './own-hello.ts';
import { Displacement, type PeerEntry } from './peer-entry.ts';
import { type FrameBody, type LinkEvents, PeerLink } from './peer-link.ts';
import { cursorOn, PeerSession, type SessionOptions } from './peer-session.ts';
import type { Discovery, PeerAddress, PeerStream, PeerTransport } from './transport.ts';
import { UnsyncedTail } from './unsynced-tail.ts';
import { Upkeep, type UpkeepOptions } from './upkeep.ts';

export interface PeersOptions extends SessionOptions {
  readonly namespace: string;
  readonly name: string;
  readonly maps: MapHolder;
  readonly standing: Standing;
  readonly served: UpkeepOptions['served'];
  readonly horizonReport: UpkeepOptions['horizonReport'];
  readonly onBeat: () => void;
  /** A session has begun, and everything that came on earlier ones of the peer is synced. */
  readonly onConnected: (session: PeerSession) => void;
  /** A member has refused this node, because it takes another process for it. */
  readonly onDisplaced: () => void;
  readonly transport: PeerTransport;
  readonly discovery: Discovery;
  readonly random: Random;
  readonly draining: () => boolean;
  /** Sessions, or what peers say of themselves, have changed. */
  readonly onChange: () => void;
  /** What a peer remembers shows that this volume has lost something. */
  readonly onLoss: (past: LostPast, peer: string) => void;
  /** This process must not go on: another one has its place. */
  readonly onFenced: (kind: 'copied-volume' | 'retired', message: string) => void;
}

/**
 * The streams to all peers: one per pair. The node with the smaller name dials; the other dials as well when it has been
 * alone for a while, since reachability may be one-sided. When both streams come up, the smaller one's stays.
 */
export class Peers {
  private readonly options: PeersOptions;
  private readonly peers = new Map<string, PeerEntry>();
  /** Streams whose handshake is under way. */
  private readonly opening = new Set<PeerLink>();
  private readonly upkeep: Upkeep;
  private readonly exchange: MapExchange;
  private lookup: Timer | undefined;
  private locating = false;
  private stopped = false;

  constructor(options: PeersOptions) {
    this.options = options;
    this.upkeep = new Upkeep({ ...options, sessions: () => this.sessions });
    this.exchange = new MapExchange(options.maps, options.logger);
    options.maps.onAdopted(() => this.onMapAdopted());
  }

  start(): void {
    this.upkeep.start();
    this.locate();
  }

  /** The running session with a member. */
  session(nodeId: string): PeerSession | undefined {
    return this.peers.get(nodeId)?.session;
  }

  /** Running sessions, by name of the peer. */
  get sessions(): readonly PeerSession[] {
    return [...this.peers.values()]
      .flatMap((peer) => peer.session ?? [])
      .sort((a, b) => (a.peer < b.peer ? -1 : 1));
  }

  addressOf(nodeId: string): PeerAddress | undefined {
    return this.peers.get(nodeId)?.address;
  }

  /** Takes over the answering end of a stream. */
  accept(stream: PeerStream): void {
    if (this.stopped) {
      stream.handle({ onFrame: () => undefined, onDrain: () => undefined, onClose: () => undefined });
      stream.close();
      return;
    }
    this.open(stream, undefined);
  }

  /** Says at once what heartbeats would say later. */
  announce(): void {
    this.upkeep.announce();
  }

  /** Ends all streams, so that they begin anew with another Hello. */
  reset(reason: string): void {
    const error = new Error(reason);
    for (const link of [...this.opening]) link.close(error);
    for (const session of this.sessions) session.link.close(error);
  }

  stop(): void {
    this.stopped = true;
    this.upkeep.stop();
    this.lookup?.cancel();
    for (const peer of this.peers.values()) peer.retry?.cancel();
    this.reset('this node stops');
  }

  // Dialing

  private locate(): void {
    if (this.stopped || this.locating) return;
    this.locating = true;
    this.lookup?.cancel();
    const { discovery, maps, identity, scheduler, settings, logger } = this.options;
    discovery
      .locate(maps.current)
      .then(
        (addresses) => {
          for (const address of addresses) {
            if (address.nodeId === identity.nodeId) continue;
            const peer = this.peer(address.nodeId);
            peer.address = address;
            this.dialWhenDue(peer);
          }
        },
        (error: unknown) => logger.warn({ error: messageOf(error) }, 'looking for peers failed'),
      )
      .finally(() => {
        this.locating = false;
        if (this.stopped) return;
        this.lookup = scheduler.after(settings.reconnect.maxMs, () => this.locate());
      });
  }

  private peer(nodeId: string): PeerEntry {
    const known = this.peers.get(nodeId);
    if (known !== undefined) return known;
    const { settings, random, clock } = this.options;
    const peer: PeerEntry = {
      nodeId,
      backoff: new Backoff(settings.reconnect, random),
      tail: new UnsyncedTail(),
      address: undefined,
      dialing: undefined,
      session: undefined,
      retry: undefined,
      aloneSinceMs: clock.monotonicMs(),
      displacement: new Displacement(settings.failureDetectionMs),
    };
    this.peers.set(nodeId, peer);
    return peer;
  }

  private dialWhenDue(peer: PeerEntry): void {
    if (this.stopped || peer.session !== undefined || peer.dialing !== undefined || peer.retry !== undefined)
      return;
    if (peer.address === undefined || !this.mayDial(peer)) return;
    peer.dialing = this.open(this.options.transport.connect(peer.address), peer.nodeId);
    peer.dialing.send({ $case: 'hello', value: makeHello(this.options, peer.nodeId, peer.tail) });
  }

  private mayDial(peer: PeerEntry): boolean {
    const { maps, identity, clock, settings } = this.options;
    const map = maps.current;
    // Without a map every candidate is asked for it.
    if (map === undefined) return true;
    if (memberOf(map, peer.nodeId) === undefined) return false;
    if (identity.nodeId < peer.nodeId) return true;
    return clock.monotonicMs() - peer.aloneSinceMs > settings.failureDetectionMs + settings.heartbeatMs;
  }

  /** Waits with the next attempt, and looks the address up again: it may have changed. */
  private retryLater(peer: PeerEntry): void {
    if (this.stopped || peer.retry !== undefined) return;
    peer.retry = this.options.scheduler.after(peer.backoff.nextMs(), () => {
      peer.retry = undefined;
      this.locate();
      this.dialWhenDue(peer);
    });
  }

  private open(stream: PeerStream, dialed: string | undefined): PeerLink {
    const { identity, maps, store, clock, scheduler, settings, metrics, logger } = this.options;
    const events: LinkEvents = {
      onHello: (link, header, hello) => this.onHello(link, header, hello),
      onBody: (link, body, header) => this.onBody(link, body, header),
      onRefusal: (refusal, header) => this.onRefusal(refusal, header),
      onDrain: (link) => this.sessionOf(link)?.onDrain(),
      onClosed: (link, reason) => this.onClosed(link, reason),
    };
    const self = {
      nodeId: identity.nodeId,
      get clusterId() {
        return identity.clusterId;
      },
      get epoch() {
        return maps.current?.epoch ?? 0;
      },
      // Of this stream: frames of an earlier incarnation must not pass for the new one's.
      incarnation: identity.incarnation,
    };
    const link = new PeerLink({
      stream,
      self,
      events,
      dialed,
      now: () => clock.monotonicMs(),
      partitions: store.partitions,
      onBadFrame: (problem) => {
        metrics.count('bad_frames');
        logger.warn({ peer: link.peer, problem }, 'a peer sent a frame that no sound peer sends');
      },
    });
    this.opening.add(link);
    scheduler.after(settings.handshakeMs, () => {
      if (this.opening.has(link)) link.refuse(Refusal_Reason.BAD_FRAME, 'no handshake in time');
    });
    return link;
  }

  // Handshake

  private onHello(link: PeerLink, header: PeerHeader, hello: Hello): void {
    const { identity, namespace, name, maps, memories, metrics, logger } = this.options;
    const self = {
      nodeId: identity.nodeId,
      clusterId: identity.clusterId,
      namespace,
      name,
      map: maps.current,
    };
    const { renewAfterRollback } = this.options.rules;
    const memory = renewAfterRollback ? memories.get(header.sender) : undefined;
    const verdict = judgeHello(self, header, hello, memory);
    if (verdict.kind === 'refuse') {
      metrics.count('refusals');
      if (verdict.reason === Refusal_Reason.MAP_CONFLICT) metrics.count('map_conflicts');
      logger.warn(
        { peer: header.sender, reason: verdict.reason, refusal: verdict.message },
        'a peer was refused',
      );
      link.refuse(verdict.reason, verdict.message, verdict.withMap ? maps.current : undefined);
      return;
    }
    if (!link.dialed) {
      if (verdict.kind === 'accept' && !this.mayTakePlace(link, header, hello)) return;
      const past = verdict.kind === 'accept' ? this.ownPast(link, hello) : 'intact';
      if (past !== 'intact') return;
      link.send({
        $case: 'hello',
        value: makeHello(this.options, header.sender, this.peers.get(header.sender)?.tail),
      });
      // The peer judges that Hello; its first frame says that it has accepted it.
      return;
    }
    if (verdict.kind === 'await-map') return;
    if (!this.mayTakePlace(link, header, hello) || this.ownPast(link, hello) !== 'intact') return;
    this.establish(link, header, hello);
  }

  /** `intact` when the volume holds what this node acknowledged to the peer; otherwise the link is closed. */
  private ownPast(link: PeerLink, hello: Hello): 'intact' | 'lost' {
    const { identity, store, logger } = this.options;
    const past = pastOf(identity, store, hello, cursorOn(store, link.peer, link.peerIncarnation));
    if (past === 'intact' || !this.options.rules.renewAfterRollback) return 'intact';
    if (past === 'tail-lost') {
      logger.warn({ peer: link.peer }, 'entries sent before their sync were lost; the peer gives them back');
      return 'intact';
    }
    link.close(new Error('this volume has lost data'));
    if (past === 'replaced')
      this.options.onFenced('retired', 'another volume has taken the place of this one');
    else this.options.onLoss(past, link.peer);
    return 'lost';
  }

  /** Whether a stream may replace the one there is with the same peer; closed or refused otherwise. */
  private mayTakePlace(link: PeerLink, header: PeerHeader, hello: Hello): boolean {
    const { clock, settings, identity } = this.options;
    const existing = this.peers.get(header.sender)?.session;
    if (existing === undefined) return true;
    const alive = clock.monotonicMs() - existing.link.heardAtMs < settings.failureDetectionMs;
    const sameProcess =
      existing.incarnation === header.senderIncarnation && existing.link.hello?.nonce === hello.nonce;
    const dialedBySmaller = link.dialed === identity.nodeId < header.sender;
    if (!alive || (sameProcess && dialedBySmaller)) {
      existing.link.close(new Error('replaced by a newer stream'));
      return true;
    }
    link.refuse(
      sameProcess ? Refusal_Reason.DUPLICATE_STREAM : Refusal_Reason.NAME_TAKEN,
      sameProcess ? 'there is a stream already' : `another process is connected as ${header.sender}`,
    );
    return false;
  }

  /** Both sides have accepted each other. Nothing is applied before what is remembered of this start is durable. */
  private establish(link: PeerLink, header: PeerHeader, hello: Hello): void {
    const { memories, logger } = this.options;
    link.hold();
    memories.accept(header.sender, {
      incarnation: header.senderIncarnation,
      bootCounter: hello.bootCounter,
      nonce: hello.nonce,
    });
    const known = memories.get(header.sender);
    if (known !== undefined && known.cursorBoot !== hello.bootCounter) {
      memories.update(header.sender, { cursorBoot: hello.bootCounter });
    }
    this.upkeep.persist().then(
      () => {
        if (link.closed || this.stopped) return;
        if (!this.mayTakePlace(link, header, hello)) return;
        this.beginSession(link, hello);
      },
      (error: unknown) => {
        logger.error({ error }, 'what is remembered of peers could not be written');
        link.close();
      },
    );
  }

  private beginSession(link: PeerLink, hello: Hello): void {
    const { options } = this;
    const peer = this.peer(link.peer);
    this.opening.delete(link);
    if (peer.dialing === link) peer.dialing = undefined;
    else peer.dialing?.close();
    peer.backoff.reset();
    peer.displacement.reset();
    peer.retry?.cancel();
    peer.retry = undefined;
    const session = new PeerSession(options, link, hello, peer.tail, () => options.onChange());
    peer.session = session;
    options.onConnected(session);
    options.logger.info({ peer: peer.nodeId, cursor: session.cursor, head: hello.head }, 'peer connected');
    this.upkeep.sendHeartbeat(session);
    this.exchange.share(link);
    link.release();
    options.onChange();
  }

  // Frames

  private sessionOf(link: PeerLink): PeerSession | undefined {
    const session = this.peers.get(link.peer)?.session;
    return session?.link === link ? session : undefined;
  }

  private onBody(link: PeerLink, body: FrameBody, header: PeerHeader): void {
    const { maps } = this.options;
    if (body.$case === 'map') {
      void this.takeMap(link, body.value.map);
      return;
    }
    const epoch = maps.current?.epoch ?? 0;
    if (header.epoch < epoch) this.exchange.share(link, header.epoch);
    const session = this.sessionOf(link);
    if (session !== undefined) {
      session.onBody(body);
      return;
    }
    // On the answering end the first frame after the Hellos is the peer's consent.
    const { hello } = link;
    if (hello === undefined || link.dialed) {
      link.refuse(Refusal_Reason.BAD_FRAME, 'the handshake is not complete');
      return;
    }
    if (maps.current === undefined || memberOf(maps.current, link.peer) === undefined) return;
    link.hold({ header, body });
    this.establish(link, header, hello);
  }

  private async takeMap(link: PeerLink, map: MapUpdate['map']): Promise<void> {
    const problem = await this.exchange.take(map, link.peer);
    if (problem !== undefined) link.refuse(problem.reason, problem.message);
  }

  private onMapAdopted(): void {
    for (const session of this.sessions) this.exchange.share(session.link);
    const map = this.options.maps.current;
    for (const session of this.sessions) {
      if (map !== undefined && memberOf(map, session.peer) === undefined) {
        session.link.refuse(
          Refusal_Reason.NOT_A_MEMBER,
          `the map of epoch ${map.epoch} does not list you`,
          map,
        );
      }
    }
    // What was said under this map has waited for it.
    for (const session of this.sessions) session.link.release();
    // Handshakes under way were judged by the old map.
    for (const link of [...this.opening]) link.close(new Error('a newer map was adopted'));
    for (const peer of this.peers.values()) {
      peer.retry?.cancel();
      peer.retry = undefined;
      peer.backoff.reset();
    }
    this.locate();
    this.options.onChange();
  }

  private onRefusal(refusal: Refusal, header: PeerHeader): void {
    const { identity, logger } = this.options;
    logger.warn(
      { peer: header.sender, reason: refusal.reason, message: refusal.message },
      'refused by a peer',
    );
    void this.exchange.take(refusal.map, header.sender);
    // Only a member of the own cluster that means this node may say what ends or resets it.
    if (identity.clusterId === '' || header.clusterId !== identity.clusterId) return;
    if (header.recipient !== identity.nodeId) return;
    const { reason, message } = refusal;
    if (reason === Refusal_Reason.COPIED_VOLUME) this.options.onFenced('copied-volume', message);
    else if (reason === Refusal_Reason.RETIRED_INCARNATION) this.options.onFenced('retired', message);
    else if (reason === Refusal_Reason.ROLLED_BACK) this.options.onLoss('rolled-back', header.sender);
    else if (reason === Refusal_Reason.NAME_TAKEN) this.onDisplaced(header.sender, message);
  }

  private onDisplaced(nodeId: string, message: string): void {
    const peer = this.peers.get(nodeId);
    if (peer === undefined || peer.session !== undefined) return;
    this.options.onDisplaced();
    if (peer.displacement.told(this.options.clock.monotonicMs()))
      this.options.onFenced('copied-volume', message);
  }

  private onClosed(link: PeerLink, reason: Error | undefined): void {
    this.opening.delete(link);
    const peer = this.peers.get(link.peer);
    if (peer === undefined) return;
    if (peer.dialing === link) peer.dialing = undefined;
    if (peer.session?.link === link) {
      peer.session.end(reason);
      peer.session = undefined;
      peer.aloneSinceMs = this.options.clock.monotonicMs();
      this.options.logger.info({ peer: peer.nodeId, reason: reason?.message }, 'peer disconnected');
      this.options.onChange();
    }
    if (link.dialed || peer.session === undefined) this.retryLater(peer);
  }
}
