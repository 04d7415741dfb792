/**
 * Why: what the log says about a decision. In words of ours, and, apart from them, in the client's. Pure.
 */
import type { X509Certificate } from "node:crypto";
import type { PeerJudgement } from "../partner/identity.ts";
import { certificateDigest, spkiDigest } from "../partner/pin.ts";
import type { Verdict } from "../partner/policy.ts";

export interface Reason {
  readonly reason: Readonly<Record<string, unknown>>;
  readonly client?: Readonly<Record<string, string>>;
  /** alert: a partner's mail waits until somebody does something. Usual unless told otherwise. */
  readonly urgency?: "usual" | "alert";
}

const textMax = 500;

/** For the operator: who it would have been, and the pin to enrol if the certificate is the right one. */
export function judgementReason(judgement: PeerJudgement, chain: readonly X509Certificate[]): Reason {
  const reason = causeOf(judgement);
  const urgency = urgencyOf(judgement);
  const leaf = chain[0];
  if (leaf === undefined) return { reason, urgency };
  // Typed as text, and undefined in a certificate that has none.
  const words = (text: string | undefined) => (text ?? "").slice(0, textMax);
  return {
    urgency,
    reason: { ...reason, spki: spkiDigest(leaf), certificate: certificateDigest(leaf) },
    client: { subject: words(leaf.subject), issuer: words(leaf.issuer), validTo: words(leaf.validTo) },
  };
}

/** The rule that decided, or what would have been refused. */
export function verdictReason(verdict: Verdict): Record<string, unknown> {
  if (verdict.kind === "observed") return { observed: verdict.reply };
  if (verdict.kind === "refuse") return { refused: verdict.reply };
  const { because } = verdict;
  return {
    rule: typeof because === "string" ? because : `${because.text} (${because.source.file}:${because.source.line})`,
  };
}

/** For whoever wonders what was wrong with a command. */
export function commandReason(line: Buffer): { readonly command: string } {
  return { command: line.toString().slice(0, textMax) };
}

/** A certificate that is known, and refused: the partner has mail for us, and something is wrong there or here. */
function urgencyOf(judgement: PeerJudgement): "usual" | "alert" {
  switch (judgement.kind) {
    case "wrongAddress":
    case "expired":
    case "notYetValid":
    case "pending":
    case "revoked":
    case "retired":
    case "revocationUnknown":
    case "wrongKeyUsage":
      return "alert";
    case "partner":
    case "noCertificate":
    case "unknownCertificate": // an alert of its own, once: see the quarantine
    case "unknownAddress":
      return "usual";
  }
}

function causeOf(judgement: PeerJudgement): Record<string, unknown> {
  const cause = judgement.kind;
  switch (judgement.kind) {
    case "partner":
      return { partner: judgement.identity.partner.name };
    case "noCertificate":
    case "unknownCertificate":
      return { cause, addressOf: judgement.addressOf.map(({ name }) => name) };
    case "wrongAddress":
      return { cause, partner: judgement.partner.name };
    case "pending":
    case "wrongKeyUsage":
      return { cause, partner: judgement.partner.name };
    case "revoked":
      return { cause, partner: judgement.partner.name, by: judgement.by };
    case "retired":
    case "revocationUnknown":
    case "expired":
      return { cause, partner: judgement.partner.name, since: judgement.since.toISOString() };
    case "notYetValid":
      return { cause, partner: judgement.partner.name, from: judgement.from.toISOString() };
    case "unknownAddress":
      return { cause };
  }
}
