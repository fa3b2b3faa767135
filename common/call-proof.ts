import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Clock } from './clock.ts';
import type { Random } from './random.ts';

/**
 * Proof that a caller of the peer or admin service knows the cluster's shared secret. What travels is an HMAC over
 * method, sender, recipient, time and nonce, never the secret, and it is good for one call on one recipient.
 */
export interface CallProof {
  /** Full gRPC method, `/package.Service/Method`. */
  readonly method: string;
  /** Node id, or the name of a tool. */
  readonly sender: string;
  /** Node id of the one who must answer; `*` where the caller cannot know it, which only a blank node accepts. */
  readonly recipient: string;
  /** Sender's wall clock, milliseconds. */
  readonly timeMs: number;
  /** 16 random bytes, hex. */
  readonly nonce: string;
  /** HMAC-SHA256, hex. */
  readonly mac: string;
}

/** gRPC metadata that carry a proof; `time` also comes back on a refusal, so that a caller with a wrong clock can adjust. */
export const PROOF_METADATA = {
  sender: 'kv-sender',
  recipient: 'kv-recipient',
  time: 'kv-time-ms',
  nonce: 'kv-nonce',
  mac: 'kv-proof',
} as const;

/** Proofs older or newer than this, by the recipient's clock, are refused. */
export const PROOF_WINDOW_MS = 5 * 60_000;

export type ProofRefusal = 'wrong-recipient' | 'outside-window' | 'replayed' | 'bad-proof';

/** Makes the proof for one call. */
export function proveCall(
  secret: Buffer,
  call: { method: string; sender: string; recipient: string; timeMs: number },
  random: Random,
): CallProof {
  const unsigned = { ...call, nonce: random.bytes(16).toString('hex') };
  return { ...unsigned, mac: macOf(secret, unsigned) };
}

function macOf(secret: Buffer, proof: Omit<CallProof, 'mac'>): string {
  const text = [proof.method, proof.sender, proof.recipient, String(proof.timeMs), proof.nonce].join('\n');
  return createHmac('sha256', secret).update(text).digest('hex');
}

/** Checks proofs and remembers their nonces for as long as their time would be accepted. */
export class ProofVerifier {
  private readonly secret: Buffer;
  private readonly clock: Clock;
  /** Nonces by expiry: two generations, swapped once per window, so that memory is bounded by the rate of valid calls. */
  private recent = new Set<string>();
  private older = new Set<string>();
  private swapAtMs: number;

  constructor(secret: Buffer, clock: Clock) {
    this.secret = secret;
    this.clock = clock;
    this.swapAtMs = clock.monotonicMs() + 2 * PROOF_WINDOW_MS;
  }

  /** Undefined when the proof holds, otherwise why not. Only a correct MAC consumes memory. */
  refuse(proof: CallProof, acceptsRecipient: (recipient: string) => boolean): ProofRefusal | undefined {
    const expected = Buffer.from(macOf(this.secret, proof));
    const given = Buffer.from(proof.mac);
    if (expected.length !== given.length || !timingSafeEqual(expected, given)) return 'bad-proof';
    if (!acceptsRecipient(proof.recipient)) return 'wrong-recipient';
    if (Math.abs(this.clock.wallMs() - proof.timeMs) > PROOF_WINDOW_MS) return 'outside-window';
    if (this.recent.has(proof.nonce) || this.older.has(proof.nonce)) return 'replayed';
    this.remember(proof.nonce);
    return undefined;
  }

  private remember(nonce: string): void {
    const now = this.clock.monotonicMs();
    if (now >= this.swapAtMs) {
      this.older = this.recent;
      this.recent = new Set();
      this.swapAtMs = now + 2 * PROOF_WINDOW_MS;
    }
    this.recent.add(nonce);
  }
}
