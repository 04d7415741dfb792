/**
 * What an identified partner may do: each question is one pure function, each answer a value that names the rule.
 * The default is no. The receiver and `pinrelay explain` call the same functions.
 */
import { isPostmaster, mailboxKey, type ForwardPath, type Mailbox, type ReversePath } from "../mail/address.ts";
import { isSubdomain, type CanonicalDomain } from "../mail/domain.ts";
import type { ReplyName } from "../mail/reply.ts";
import type { AddressRule, Partner, Route } from "./partner.ts";
import type { PeerJudgement } from "./identity.ts";

export type Verdict =
  /** `because` names the rule, or says in words why no rule was needed. */
  | { readonly kind: "accept"; readonly because: AddressRule | string }
  | { readonly kind: "refuse"; readonly reply: ReplyName }
  /** Refused by the rules of a partner in mode `observe`: reported, and let through. */
  | { readonly kind: "observed"; readonly reply: ReplyName };

/** The reply at MAIL for a peer that was not identified (design, section 6); undefined for one that was. */
export function identityRefusal(judgement: PeerJudgement): ReplyName | undefined {
  switch (judgement.kind) {
    case "partner":
      return undefined;
    case "noCertificate":
      return judgement.addressOf.length > 0 ? "certificateMissing" : "certificateMissingAnywhere";
    case "unknownCertificate":
      return judgement.addressOf.length > 0 ? "certificateUnknown" : "certificateUnknownAnywhere";
    case "wrongAddress":
      return "addressNotOfPartner";
    case "expired":
      return "certificateExpired";
    case "notYetValid":
      return "certificateNotYetValid";
    case "pending":
      return "certificatePending";
    case "revoked":
      return "certificateRevoked";
    case "retired":
      return "certificateRetired";
    case "revocationUnknown":
      return "revocationUnknown";
    case "wrongKeyUsage":
      return "certificateUsage";
    case "unknownAddress":
      return "addressUnknown";
  }
}

/** Is the session's key exchange one that the partner asked for? One that could not be seen is none. */
export function isKeyExchangeAllowed({ keyExchange }: Partner, group: string | undefined): boolean {
  return keyExchange === "any" || group?.includes("MLKEM") === true;
}

/** May this partner use this reverse-path? The null reverse-path is everybody's: reports must get through. */
export function judgeSender(partner: Partner, reversePath: ReversePath): Verdict {
  if (reversePath.kind === "null") return { kind: "accept", because: "the null reverse-path is always allowed" };
  const rule = partner.allow.from.find((candidate) => covers(candidate, reversePath.mailbox));
  return rule === undefined ? refusedByRule(partner, "senderNotAllowed") : { kind: "accept", because: rule };
}

/**
 * May this partner write to this forward-path? Whether the domain is ours is asked first and in every mode: no rule can
 * open a relay. The postmaster of our domains is always deliverable (RFC 5321 §4.5.1), and so is the probe, which the
 * relay answers itself.
 */
export function judgeRecipient(partner: Partner, routes: RouteTable, recipient: ForwardPath): Verdict {
  if (recipient.kind === "postmaster") return { kind: "accept", because: "postmaster is always deliverable" };
  const mailbox = recipient.mailbox;
  if (routes.isProbe(mailbox)) return { kind: "accept", because: "the probe is answered to every partner" };
  if (routes.internal(mailbox.domain) === undefined) return { kind: "refuse", reply: "relayingDenied" };
  if (isPostmaster(mailbox)) return { kind: "accept", because: "postmaster is always deliverable" };
  const rule = partner.allow.to.find((candidate) => covers(candidate, mailbox));
  return rule === undefined ? refusedByRule(partner, "recipientNotAllowed") : { kind: "accept", because: rule };
}

/** Does the rule cover the mailbox? Local parts are compared with their case (RFC 5321 §2.4), domains canonically. */
export function covers(rule: AddressRule, mailbox: Mailbox): boolean {
  switch (rule.kind) {
    case "mailbox":
      return mailboxKey(rule.mailbox) === mailboxKey(mailbox);
    case "domain":
      return rule.domain === mailbox.domain;
    case "subdomains":
      return isSubdomain(mailbox.domain, rule.domain);
  }
}

/** Which route a domain takes. Internal routes and partners' routes never mix: mail in goes in, mail out goes out. */
export class RouteTable {
  readonly #internal: ReadonlyMap<CanonicalDomain, Route>;
  readonly #partner: ReadonlyMap<CanonicalDomain, Route>;
  readonly #hostname: CanonicalDomain | undefined;

  /** @param hostname our own, whose probe is answered; undefined: none is. */
  constructor(internal: readonly Route[], partners: readonly Partner[], hostname?: CanonicalDomain) {
    this.#hostname = hostname;
    this.#internal = byDomain(internal);
    this.#partner = byDomain(partners.flatMap((partner) => partner.deliver ?? []));
  }

  /** The route into our own network, if the domain is one of ours. */
  internal(domain: CanonicalDomain): Route | undefined {
    return this.#internal.get(domain);
  }

  /** The route to the partner who receives mail for the domain. */
  toPartner(domain: CanonicalDomain): Route | undefined {
    return this.#partner.get(domain);
  }

  /** Is this the mailbox at which the relay itself answers what it has seen of a partner? */
  isProbe(mailbox: Mailbox): boolean {
    return this.#hostname !== undefined && isProbeMailbox(mailbox, this.#hostname);
  }
}

/** Its local part counts in any case: it is a name of ours, which people type. */
export function isProbeMailbox(mailbox: Mailbox, hostname: CanonicalDomain): boolean {
  return mailbox.domain === hostname && mailbox.localPart.toLowerCase() === probeLocalPart;
}

/** The probe's address at a host of this name. */
export function probeAddress(hostname: string): string {
  return `${probeLocalPart}@${hostname}`;
}

const probeLocalPart = "probe";

function byDomain(routes: readonly Route[]): Map<CanonicalDomain, Route> {
  return new Map(routes.flatMap((route) => route.domains.map((domain) => [domain, route] as const)));
}

function refusedByRule(partner: Partner, reply: ReplyName): Verdict {
  return { kind: partner.mode === "observe" ? "observed" : "refuse", reply };
}
