/** Pins for tests: active and without dates, with what a test wants to be different. */
import type { X509Certificate } from "node:crypto";
import { certificateDigest, spkiDigest, type Digest, type Pin } from "../../src/partner/pin.ts";
import { source } from "./partners.ts";

type Life = Pick<Pin, "label" | "state" | "notBefore" | "notAfter" | "source">;
type Anchored = Pin & { readonly kind: "trustAnchor" };

const life: Life = { label: undefined, state: "active", notBefore: undefined, notAfter: undefined, source };

export function spkiPin(of: X509Certificate | Digest, different: Partial<Life> = {}): Pin {
  return { ...life, ...different, kind: "spki", digest: typeof of === "string" ? of : spkiDigest(of) };
}

export function certificatePin(of: X509Certificate | Digest, different: Partial<Life> = {}): Pin {
  return { ...life, ...different, kind: "certificate", digest: typeof of === "string" ? of : certificateDigest(of) };
}

/** A pin by CAs and the name `mx.acme.example`. */
export function anchorPin(anchors: readonly X509Certificate[], different: Partial<Anchored> = {}): Anchored {
  return {
    ...life,
    kind: "trustAnchor",
    file: "ca.pem",
    anchors,
    name: "mx.acme.example",
    revocationLists: [],
    ...different,
  };
}
