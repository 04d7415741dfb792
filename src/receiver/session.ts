/**
 * What a peer may do next: identity, policy and the order of commands, apart from sockets and from the SMTP library.
 * Each question gives the reply and the reason for the log; a transaction exists only while MAIL was accepted.
 */
import type { X509Certificate } from "node:crypto";
import { mailboxKey, pathText, type ForwardPath } from "../mail/address.ts";
import type { Envelope, Recipient } from "../mail/envelope.ts";
import type { ReplyName } from "../mail/reply.ts";
import { judgePeer, type PeerIdentity, type PeerJudgement } from "../partner/identity.ts";
import { certificateDigest, spkiDigest } from "../partner/pin.ts";
import { identityRefusal, judgeRecipient, judgeSender, type Verdict } from "../partner/policy.ts";
import { parseMail, parseRcpt, type MailCommand } from "./command.ts";
import type { PolicyInForce } from "./policy-in-force.ts";

/** A reply, and what the log says about it. */
export interface Answer {
  readonly reply: ReplyName;
  readonly reason: Readonly<Record<string, unknown>>;
}

export interface Transaction {
  readonly identity: PeerIdentity;
  readonly mail: MailCommand;
  readonly recipients: Map<string, Recipient>;
}

/** What TLS has told about the peer; undefined before STARTTLS. */
export interface SecuredBy {
  readonly chain: readonly X509Certificate[];
  readonly version: string;
  readonly cipher: string;
}

export class Session {
  readonly id: string;
  readonly address: string;
  #secured: SecuredBy | undefined;
  #identified: PeerIdentity | undefined;
  #transaction: Transaction | undefined;

  constructor(id: string, address: string) {
    this.id = id;
    this.address = address;
  }

  get secured(): SecuredBy | undefined {
    return this.#secured;
  }

  get transaction(): Transaction | undefined {
    return this.#transaction;
  }

  /** Whom the last accepted MAIL has shown the peer to be. */
  get identified(): PeerIdentity | undefined {
    return this.#identified;
  }

  /** TLS is up: what was known before counts no more (RFC 3207 §4.2). */
  secure(by: SecuredBy): void {
    this.#secured = by;
    this.#transaction = undefined;
  }

  reset(): void {
    this.#transaction = undefined;
  }

  /** MAIL: who is this, and may it send as that? The certificate is judged anew each time: dates pass, pins go. */
  mail(line: Buffer, policy: PolicyInForce, now: Date): Answer {
    if (this.#secured === undefined) return { reply: "tlsRequired", reason: {} };
    if (this.#transaction !== undefined) return { reply: "nestedMail", reason: {} };
    const judgement = judgePeer(policy.partners, { address: this.address, chain: this.#secured.chain }, now);
    const refusal = identityRefusal(judgement);
    if (judgement.kind !== "partner" || refusal !== undefined) {
      return { reply: refusal ?? "addressUnknown", reason: judgementReason(judgement, this.#secured.chain) };
    }
    const { identity } = judgement;
    const parsed = parseMail(line);
    if (parsed.kind === "refused") return { reply: parsed.reply, reason: { partner: identity.partner.name } };
    return this.#begin(identity, parsed.command, policy, now);
  }

  #begin(identity: PeerIdentity, mail: MailCommand, policy: PolicyInForce, now: Date): Answer {
    const { partner } = identity;
    const reason = { partner: partner.name, client: { from: pathText(mail.reversePath) } };
    if (mail.declaredBytes !== undefined && mail.declaredBytes > policy.messageBytesMax(partner)) {
      return { reply: "tooLargeDeclared", reason: { ...reason, declaredBytes: mail.declaredBytes } };
    }
    const verdict = judgeSender(partner, mail.reversePath);
    if (verdict.kind === "refuse") return { reply: verdict.reply, reason };
    if (!policy.takeMessage(partner, now.getTime())) return { reply: "rateExceeded", reason };
    this.#identified = identity;
    this.#transaction = { identity, mail, recipients: new Map() };
    return { reply: "senderAccepted", reason: { ...reason, ...verdictReason(verdict) } };
  }

  /** RCPT: may this partner write to that? A recipient given twice is one recipient; the first one's wishes count. */
  rcpt(line: Buffer, policy: PolicyInForce): Answer {
    const transaction = this.#transaction;
    if (transaction === undefined) return { reply: "mailFirst", reason: {} };
    const { partner } = transaction.identity;
    const parsed = parseRcpt(line, transaction.mail.smtpUtf8);
    if (parsed.kind === "refused") return { reply: parsed.reply, reason: { partner: partner.name } };
    const { forwardPath, notify, originalRecipient } = parsed.command;
    const reason = { partner: partner.name, client: { to: pathText(forwardPath) } };
    const verdict = judgeRecipient(partner, policy.routes, forwardPath);
    if (verdict.kind === "refuse") return { reply: verdict.reply, reason };
    const key = recipientKey(forwardPath);
    if (!transaction.recipients.has(key)) {
      // 452, not 552: the client may send the rest in another transaction (RFC 5321 §4.5.3.1.10).
      if (transaction.recipients.size >= partner.limits.recipientsMax) return { reply: "tooManyRecipients", reason };
      transaction.recipients.set(key, {
        path: forwardPath,
        ...(notify === undefined ? {} : { notify }),
        ...(originalRecipient === undefined ? {} : { originalRecipient }),
      });
    }
    return { reply: "recipientAccepted", reason: { ...reason, ...verdictReason(verdict) } };
  }

  /** DATA: is there anything to receive a message for? */
  data(line: Buffer): Answer {
    if (line.toString("latin1").trim().length > "DATA".length) return { reply: "dataTakesNoArgument", reason: {} };
    if (this.#transaction === undefined) return { reply: "mailFirst", reason: {} };
    if (this.#transaction.recipients.size === 0) return { reply: "recipientFirst", reason: {} };
    return { reply: "startData", reason: { partner: this.#transaction.identity.partner.name } };
  }
}

/** The envelope of a transaction. */
export function envelopeOf({ mail, recipients }: Transaction): Envelope {
  return {
    reversePath: mail.reversePath,
    recipients: [...recipients.values()],
    body: mail.body,
    smtpUtf8: mail.smtpUtf8,
    ...(mail.returnContent === undefined ? {} : { returnContent: mail.returnContent }),
    ...(mail.envelopeId === undefined ? {} : { envelopeId: mail.envelopeId }),
  };
}

function recipientKey(path: ForwardPath): string {
  return path.kind === "postmaster" ? "postmaster" : mailboxKey(path.mailbox);
}

function verdictReason(verdict: Verdict): Record<string, unknown> {
  if (verdict.kind === "observed") return { observed: verdict.reply };
  if (verdict.kind === "refuse") return { refused: verdict.reply };
  const { because } = verdict;
  return {
    rule: typeof because === "string" ? because : `${because.text} (${because.source.file}:${because.source.line})`,
  };
}

/** For the operator: who it would have been, and the pin to enrol if the certificate is the right one. */
function judgementReason(judgement: PeerJudgement, chain: readonly X509Certificate[]): Record<string, unknown> {
  const leaf = chain[0];
  const shown =
    leaf === undefined
      ? {}
      : {
          client: { subject: leaf.subject.slice(0, 500), issuer: leaf.issuer.slice(0, 500), validTo: leaf.validTo },
          spki: spkiDigest(leaf),
          certificate: certificateDigest(leaf),
        };
  switch (judgement.kind) {
    case "partner":
      return { partner: judgement.identity.partner.name };
    case "noCertificate":
    case "unknownCertificate":
      return { cause: judgement.kind, addressOf: judgement.addressOf.map(({ name }) => name), ...shown };
    case "wrongAddress":
      return { cause: judgement.kind, partner: judgement.partner.name, ...shown };
    case "expired":
      return { cause: judgement.kind, partner: judgement.partner.name, since: judgement.since.toISOString(), ...shown };
    case "notYetValid":
      return { cause: judgement.kind, partner: judgement.partner.name, from: judgement.from.toISOString(), ...shown };
    case "unknownAddress":
      return { cause: judgement.kind };
  }
}
