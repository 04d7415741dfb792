/** Revocation lists for tests. */
import { openAuthority } from "../../src/certs/authority.ts";
import { createRevocationList, parseRevocationList, serialOf } from "../../src/certs/crl.ts";
import type { RevocationList } from "../../src/partner/revocation.ts";
import type { Made } from "../receiver/certificates.ts";

const dayMs = 86_400_000;

/** A list of `ca` that was made two days before `now`, and is good for so many days from then. */
export function listOf(ca: Made, revoked: readonly Made[] = [], days = 30, now = new Date()): RevocationList {
  const made = new Date(now.getTime() - 2 * dayMs);
  const text = createRevocationList(openAuthority({ certificatePem: ca.cert, keyPem: ca.key }, now), {
    revoked: revoked.map(({ certificate }) => ({ serial: serialOf(certificate), at: made, reason: "keyCompromise" })),
    number: 1n,
    now: made,
    nextUpdate: new Date(made.getTime() + days * dayMs),
  });
  return parseRevocationList(Buffer.from(text), "ca.crl");
}
