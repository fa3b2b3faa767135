import { randomFillSync } from 'node:crypto';

/** Randomness as a parameter, so that the simulation can replay it. */
export interface Random {
  /** `length` random bytes. */
  bytes(length: number): Buffer;
  /** Uniform in [0, 1). */
  fraction(): number;
}

export const systemRandom: Random = {
  bytes: (length) => randomFillSync(Buffer.allocUnsafe(length)),
  fraction: () => randomFillSync(Buffer.allocUnsafe(6)).readUIntBE(0, 6) / 2 ** 48,
};

/** 48 random bits, never 0: an incarnation, a nonce. Exact as a JavaScript number. */
export function random48(random: Random): number {
  for (;;) {
    const value = random.bytes(6).readUIntBE(0, 6);
    if (value !== 0) return value;
  }
}
