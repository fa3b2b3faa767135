import { expect } from 'chai';
import fc from 'fast-check';
import { crc32 } from 'node:zlib';
import {
  PROOF_METADATA,
  PROOF_WINDOW_MS,
  ProofVerifier,
  proveCall,
  type CallProof,
} from '../../../common/call-proof.ts';
import type { Clock } from '../../../common/clock.ts';
import { KvError } from '../../../common/errors.ts';
import { systemRandom } from '../../../common/random.ts';
import { Metadata } from '../../../node/rpc/grpc.ts';
import { checkRequestId } from '../../../node/rpc/kv-requests.ts';
import { decodePageToken, encodePageToken } from '../../../node/rpc/page-token.ts';
import { ProofGuard } from '../../../node/rpc/proof-guard.ts';
import { checkRecordsRequest } from '../../../node/rpc/records-request.ts';
import { findReservedField } from '../../../node/rpc/reserved-fields.ts';
import { anyBytes, attempt, bytes, damaged, keys, RUNS } from './hostile.ts';

const CODES = ['INVALID_ARGUMENT'] as const;

describe('fuzzed page tokens', () => {
  it('continue where they were made', () => {
    fc.assert(
      fc.property(bytes(40), keys, (prefix, key) => {
        expect(decodePageToken(prefix, encodePageToken(prefix, key))).to.deep.equal(key);
      }),
      { numRuns: RUNS },
    );
  });

  it('are INVALID_ARGUMENT after any damage, and in another listing', () => {
    const hurt = damaged(keys.map((key) => encodePageToken(Buffer.from('p'), key)));
    fc.assert(
      fc.property(fc.oneof(hurt, anyBytes), (token) => {
        expect(attempt(CODES, () => decodePageToken(Buffer.from('p'), token))).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
    fc.assert(
      fc.property(bytes(10), bytes(10), keys, (prefix, other, key) => {
        fc.pre(!prefix.equals(other));
        const token = encodePageToken(prefix, key);
        expect(attempt(CODES, () => decodePageToken(other, token))).to.have.property('error');
      }),
      { numRuns: RUNS },
    );
  });

  it('are never longer than a key, however well they are made', () => {
    fc.assert(
      fc.property(bytes(10), fc.integer({ min: 1025, max: 10_000 }), (prefix, length) => {
        const token = forged(prefix, Buffer.alloc(length, 'k'));
        expect(attempt(CODES, () => decodePageToken(prefix, token))).to.have.property('error');
      }),
      { numRuns: RUNS / 4 },
    );
  });

  /** What anybody can make who has read the source. */
  function forged(prefix: Buffer, lastKey: Buffer): Buffer {
    const head = Buffer.alloc(5);
    head[0] = 1;
    head.writeUInt32BE(crc32(lastKey, crc32(Buffer.alloc(1), crc32(prefix))), 1);
    return Buffer.concat([head, lastKey]);
  }
});

describe('fuzzed request ids and places', () => {
  it('are within what the log can hold, or INVALID_ARGUMENT', () => {
    const ids = fc.record({
      clientId: fc.oneof(bytes(16, 16), bytes(300)),
      number: fc.maxSafeNat(),
      clientStartMs: fc.maxSafeNat(),
      attempt: fc.nat(0xffffffff),
    });
    fc.assert(
      fc.property(ids, (id) => {
        const outcome = attempt(CODES, () => checkRequestId(id));
        expect('value' in outcome).to.equal(id.clientId.length === 16 && id.clientStartMs < 2 ** 48);
      }),
      { numRuns: RUNS },
    );
  });

  it('name partitions and keys that can be, or INVALID_ARGUMENT', () => {
    const places = fc.option(fc.record({ partition: fc.nat(20), key: bytes(1100) }), { nil: undefined });
    fc.assert(
      fc.property(places, fc.array(fc.nat(20), { maxLength: 20 }), (after, partitions) => {
        const outcome = attempt(CODES, () => checkRecordsRequest({ after, partitions }, 16));
        const sound =
          partitions.length <= 16 &&
          [...partitions, after?.partition ?? 0].every((partition) => partition < 16) &&
          (after?.key.length ?? 0) <= 1024;
        expect('value' in outcome).to.equal(sound);
      }),
      { numRuns: RUNS },
    );
  });

  it('are looked through for reserved fields without an error that is not one', () => {
    fc.assert(
      fc.property(anyBytes, (encoded) => {
        try {
          const field = findReservedField(encoded, { from: 7, to: 15 });
          if (field !== undefined) expect(field).to.be.within(7, 15);
        } catch (error) {
          // Malformed: tolerantMethod says so.
          expect(error).to.be.instanceOf(Error);
        }
      }),
      { numRuns: RUNS },
    );
  });
});

describe('fuzzed call proofs', () => {
  const secret = Buffer.alloc(32, 7);
  const nowMs = 1_700_000_000_000;
  const clock: Clock = { wallMs: () => nowMs, monotonicMs: () => 0 };
  const method = '/kvcluster.admin.Admin/GetMap';
  const word = fc.stringMatching(/^[!-~]{0,20}$/);
  const good = (): CallProof =>
    proveCall(secret, { method, sender: 'kv-0', recipient: 'kv-1', timeMs: nowMs }, systemRandom);

  const guard = (refused: string[]): ProofGuard =>
    new ProofGuard({
      secret,
      nodeId: 'kv-1',
      isBlank: () => false,
      clock,
      refused: (_path, reason) => void refused.push(reason),
    });

  const metadataOf = (fields: Readonly<Record<string, string>>): Metadata => {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(fields)) metadata.set(name, value);
    return metadata;
  };

  const fieldsOf = (proof: CallProof): Record<string, string> => ({
    [PROOF_METADATA.sender]: proof.sender,
    [PROOF_METADATA.recipient]: proof.recipient,
    [PROOF_METADATA.time]: String(proof.timeMs),
    [PROOF_METADATA.nonce]: proof.nonce,
    [PROOF_METADATA.mac]: proof.mac,
  });

  it('let nobody in who does not know the secret, and count every refusal', () => {
    const strange = fc.record({ sender: word, recipient: word, timeMs: word, nonce: word, mac: word });
    fc.assert(
      fc.property(strange, ({ sender, recipient, timeMs, nonce, mac }) => {
        const refused: string[] = [];
        const fields = {
          [PROOF_METADATA.sender]: sender,
          [PROOF_METADATA.recipient]: recipient,
          [PROOF_METADATA.time]: timeMs,
          [PROOF_METADATA.nonce]: nonce,
          [PROOF_METADATA.mac]: mac,
        };
        const outcome = attempt(['UNAUTHENTICATED', 'PERMISSION_DENIED'], () =>
          guard(refused).check(method, metadataOf(fields)),
        );
        expect(outcome).to.have.property('error').that.is.instanceOf(KvError);
        expect(refused).to.have.length(1);
      }),
      { numRuns: RUNS },
    );
  });

  it('are good for one call of one method at one node, in their time', () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.values(PROOF_METADATA)), word, word, (field, value, other) => {
        const refused: string[] = [];
        const checks = guard(refused);
        const fields = fieldsOf(good());
        checks.check(method, metadataOf(fields));
        expect(refused).to.deep.equal([]);
        const next = fieldsOf(good());
        const codes = ['UNAUTHENTICATED', 'PERMISSION_DENIED'] as const;
        const again = (path: string, changed: Record<string, string>): void => {
          expect(attempt(codes, () => checks.check(path, metadataOf(changed)))).to.have.property('error');
        };
        again(method, fields);
        again(`${method}${other}x`, next);
        if (next[field] !== value) again(method, { ...next, [field]: value });
        // None of that used the second proof up.
        checks.check(method, metadataOf(next));
      }),
      { numRuns: RUNS / 2 },
    );
  });

  it('hold within their window and never beyond it', () => {
    fc.assert(
      fc.property(fc.integer({ min: -3 * PROOF_WINDOW_MS, max: 3 * PROOF_WINDOW_MS }), (offMs) => {
        const verifier = new ProofVerifier(secret, clock);
        const call = { method, sender: 'a', recipient: 'b', timeMs: nowMs + offMs };
        const refusal = verifier.refuse(proveCall(secret, call, systemRandom), () => true);
        expect(refusal).to.equal(Math.abs(offMs) > PROOF_WINDOW_MS ? 'outside-window' : undefined);
      }),
      { numRuns: RUNS / 2 },
    );
  });
});
