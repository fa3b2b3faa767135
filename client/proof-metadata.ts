import { type CallProof, PROOF_METADATA } from '../common/call-proof.ts';
import { Metadata } from './grpc.ts';

/** The metadata that carry a proof along with its call. */
export function proofMetadata(proof: CallProof): Metadata {
  const metadata = new Metadata();
  metadata.set(PROOF_METADATA.sender, proof.sender);
  metadata.set(PROOF_METADATA.recipient, proof.recipient);
  metadata.set(PROOF_METADATA.time, String(proof.timeMs));
  metadata.set(PROOF_METADATA.nonce, proof.nonce);
  metadata.set(PROOF_METADATA.mac, proof.mac);
  return metadata;
}
