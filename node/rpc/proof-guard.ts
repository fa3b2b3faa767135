import { PROOF_METADATA, ProofVerifier, type ProofRefusal } from '../../common/call-proof.ts';
import type { Clock } from '../../common/clock.ts';
import { KvError } from '../../common/errors.ts';
import type { Metadata } from './grpc.ts';
import { CallRefused } from './status-codes.ts';

/** Why a call of the peer or admin service was refused. */
export type RefusalReason = ProofRefusal | 'no-proof';

export interface ProofGuardOptions {
  readonly secret: Buffer;
  readonly nodeId: string;
  /** Whether this node is blank: only then may a caller not know its name (recipient `*`). */
  readonly isBlank: () => boolean;
  readonly clock: Clock;
  /** Told of every refusal, for metrics. */
  readonly refused: (path: string, reason: RefusalReason) => void;
}

/** Lets through only calls that prove knowledge of the cluster's secret, each once, and only those meant for this node. */
export class ProofGuard {
  private readonly options: ProofGuardOptions;
  private readonly verifier: ProofVerifier;

  constructor(options: ProofGuardOptions) {
    this.options = options;
    this.verifier = new ProofVerifier(options.secret, options.clock);
  }

  /**
   * Checks the proof in a call's metadata.
   *
   * @throws KvError UNAUTHENTICATED without a good proof (outside the time window with our time in the trailers, so that
   * the caller can try again), PERMISSION_DENIED when it was meant for another node.
   */
  check(path: string, metadata: Metadata): void {
    const reason = this.reasonToRefuse(path, metadata);
    if (reason === undefined) return;
    this.options.refused(path, reason);
    throw this.refusal(reason);
  }

  private reasonToRefuse(method: string, metadata: Metadata): RefusalReason | undefined {
    const field = (name: string): string => metadata.get(name)[0]?.toString() ?? '';
    const mac = field(PROOF_METADATA.mac);
    const time = field(PROOF_METADATA.time);
    if (mac === '' || time === '') return 'no-proof';
    const timeMs = Number(time);
    if (!Number.isSafeInteger(timeMs)) return 'bad-proof';
    const proof = {
      method,
      sender: field(PROOF_METADATA.sender),
      recipient: field(PROOF_METADATA.recipient),
      timeMs,
      nonce: field(PROOF_METADATA.nonce),
      mac,
    };
    const { nodeId, isBlank } = this.options;
    return this.verifier.refuse(
      proof,
      (recipient) => recipient === nodeId || (recipient === '*' && isBlank()),
    );
  }

  private refusal(reason: RefusalReason): KvError {
    const { clock, nodeId } = this.options;
    switch (reason) {
      case 'no-proof':
        return new KvError(
          'UNAUTHENTICATED',
          "this service is for members and administrators: the cluster's secret is needed",
        );
      case 'bad-proof':
        return new KvError(
          'UNAUTHENTICATED',
          "the proof does not hold: is it made with this cluster's secret?",
        );
      case 'replayed':
        return new KvError('UNAUTHENTICATED', 'the proof has been used before: make a new one for each call');
      case 'wrong-recipient':
        return new KvError('PERMISSION_DENIED', `the call is meant for another node: this is ${nodeId}`);
      case 'outside-window':
        return new CallRefused(
          'UNAUTHENTICATED',
          "the proof's time is too far from this node's clock: try again with the time in the trailers, and check the clocks",
          { [PROOF_METADATA.time]: String(clock.wallMs()) },
        );
    }
  }
}
