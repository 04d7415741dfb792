/**
 * Why an answer is what it is, for the operator: the rule in words, and where it stands in the files. Peers never read
 * this. Pure; a key's line is looked up by whoever shows it.
 */
import type { X509Certificate } from "node:crypto";
import { pathText } from "../mail/address.ts";
import { limitOf, type ReplyName } from "../mail/reply.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { PeerJudgement } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import { certificateDigest, spkiDigest, type Pin } from "../partner/pin.ts";
import { pinText } from "./intake-request.ts";
import type { Answer, Decision } from "./session.ts";

/** Where something stands in the configuration: in a line that is known, or under a key, which may be missing. */
export type Place =
  | { readonly kind: "line"; readonly file: string; readonly line: number }
  | { readonly kind: "key"; readonly file: string; readonly path: readonly string[] };

export interface Ground {
  readonly text: string;
  /** Absent where no file says so. */
  readonly place?: Place;
}

/** Of the answer to MAIL or RCPT. */
export function groundOf(
  { reply, decision }: Answer,
  chain: readonly X509Certificate[],
  config: RelayConfig,
  address: string,
): Ground {
  if (reply === "startData") return { text: "there is a recipient" };
  if (reply === "tlsRequired") return { text: "TLS is required of everybody, whatever the files say" };
  if (decision === undefined) return { text: "the command itself is at fault, and no rule was asked" };
  const { judgement } = decision;
  if (judgement.kind !== "partner") return identityGround(judgement, chain, config, address);
  return (
    limitGround(reply, judgement.identity.partner, config) ?? ruleGround(decision, judgement.identity.partner, config)
  );
}

/** Of who the peer is taken for, or of why it is nobody. */
export function identityGround(
  judgement: PeerJudgement,
  chain: readonly X509Certificate[],
  config: RelayConfig,
  address: string,
): Ground {
  switch (judgement.kind) {
    case "unknownAddress":
      return { text: `no partner has ${address} among its hosts`, place: key(config.file, "partners") };
    case "noCertificate":
    case "unknownCertificate":
      return unknownGround(judgement, chain, config);
    case "partner":
      return { text: pinWords(judgement.identity.pin), place: pinPlace(judgement.identity.pin) };
    case "wrongAddress": {
      const { partner } = judgement;
      return { text: `${address} is not among the hosts of ${partner.name}`, place: key(partner.file, "hosts") };
    }
    case "expired":
    case "notYetValid":
    case "pending":
    case "revoked":
    case "retired":
    case "revocationUnknown":
      return { text: `${pinWords(judgement.pin)} ${stateWords(judgement)}`, place: pinPlace(judgement.pin) };
    case "wrongKeyUsage":
      return {
        text: "the certificate lacks the extended key usage clientAuth",
        place: key(judgement.partner.file, "extended-key-usage"),
      };
  }
}

type OfPin = Extract<
  PeerJudgement,
  { kind: "expired" | "notYetValid" | "pending" | "revoked" | "retired" | "revocationUnknown" }
>;

function stateWords(judgement: OfPin): string {
  switch (judgement.kind) {
    case "expired":
      return `matches, and it or the certificate ended on ${instant(judgement.since)}`;
    case "notYetValid":
      return `matches, and it or the certificate does not count before ${instant(judgement.from)}`;
    case "pending":
      return "matches, and waits for its confirmation";
    case "revoked":
      return judgement.by === "operator"
        ? "matches, and is revoked"
        : "matches, and its CA has revoked the certificate";
    case "retired":
      return `matches, and has retired on ${instant(judgement.since)}: the next one replaced it`;
    case "revocationUnknown":
      return `matches, and the revocation list of its CA is out of date since ${instant(judgement.since)}`;
  }
}

function unknownGround(
  { kind, addressOf }: Extract<PeerJudgement, { kind: "noCertificate" | "unknownCertificate" }>,
  [leaf]: readonly X509Certificate[],
  config: RelayConfig,
): Ground {
  const shown =
    kind === "noCertificate" || leaf === undefined
      ? ""
      : ` (key ${spkiDigest(leaf)}, certificate ${certificateDigest(leaf)})`;
  const what = kind === "noCertificate" ? "no certificate was shown" : `no pin matches the certificate${shown}`;
  const [first] = addressOf;
  if (first !== undefined) {
    return {
      text: `${what}; the address is of ${addressOf.map(({ name }) => name).join(", ")}`,
      place: key(first.file, "pins"),
    };
  }
  const open = config.partners.find(({ hosts }) => hosts.some((range) => range.kind === "any"));
  const text = `${what}, and the address is let in only because a partner lists any`;
  return open === undefined ? { text } : { text, place: key(open.file, "hosts") };
}

/** Undefined where no limit decided. */
function limitGround(reply: ReplyName, partner: Partner, config: RelayConfig): Ground | undefined {
  if (reply === "keyExchangeTooWeak") {
    const text = "the key exchange is not one that the partner asked for";
    return { text, place: key(partner.file, "key-exchange") };
  }
  if (reply === "spoolFull") {
    return { text: "the spool has no room for it", place: key(config.file, "limits", "spool-bytes") };
  }
  const limit = limitOf(reply);
  if (limit === undefined) return undefined;
  if (reply !== "tooLargeDeclared") {
    return { text: `limits.${limit} is reached`, place: key(partner.file, "limits", limit) };
  }
  const isOwn = partner.limits.messageBytesMax <= config.limits.messageBytesMax;
  const octets = Math.min(partner.limits.messageBytesMax, config.limits.messageBytesMax);
  const file = isOwn ? partner.file : config.file;
  return { text: `a message may have ${octets} octets`, place: key(file, "limits", limit) };
}

function ruleGround({ verdict, to }: Decision, partner: Partner, config: RelayConfig): Ground {
  const list = to === undefined ? "from" : "to";
  const noRule = `no entry of allow.${list} covers it`;
  switch (verdict?.kind) {
    case undefined:
      return { text: "the command itself is at fault, and no rule was asked" };
    case "accept": {
      const { because } = verdict;
      if (typeof because === "string") return { text: because };
      return { text: `allow.${list} ${because.text}`, place: { kind: "line", ...because.source } };
    }
    case "observed":
      return { text: `${noRule}; it passes because the partner's mode is observe`, place: key(partner.file, "mode") };
    case "refuse":
      if (verdict.reply !== "relayingDenied") return { text: noRule, place: key(partner.file, "allow", list) };
      return {
        text: `no route inside has the domain of ${to === undefined ? "it" : pathText(to)}`,
        place: key(config.file, "routes"),
      };
  }
}

function pinWords(pin: Pin): string {
  return `pin ${pinText(pin)}${pin.label === undefined ? "" : ` '${pin.label}'`}`;
}

function pinPlace({ source }: Pin): Place {
  return { kind: "line", ...source };
}

function key(file: string, ...path: string[]): Place {
  return { kind: "key", file, path };
}

function instant(date: Date): string {
  return date.toISOString().replace(/\.\d+/, "");
}
