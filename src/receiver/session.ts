/**
 * What a peer may do next: identity, policy and the order of commands, apart from sockets and from the SMTP library.
 * Each command line gives the next step; an answer carries the reply and the reason for the log.
 *
 * Promises: nothing of a transaction exists before MAIL was accepted, inside TLS, from an identified partner, and nothing
 * is left of it after RSET, EHLO, STARTTLS or the end of the message.
 */
import type { X509Certificate } from "node:crypto";
import { mailboxKey, pathText, type ForwardPath } from "../mail/address.ts";
import type { Envelope, Recipient } from "../mail/envelope.ts";
import type { ReplyName } from "../mail/reply.ts";
import { judgePeer, type PeerCredentials, type PeerIdentity, type PeerJudgement } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import type { Pin } from "../partner/pin.ts";
import { identityRefusal, isKeyExchangeAllowed, judgeRecipient, judgeSender, type Verdict } from "../partner/policy.ts";
import { parseMail, parseRcpt, type MailCommand } from "./command.ts";
import type { ReceiverContext } from "./context.ts";
import type { PolicyInForce } from "./policy-in-force.ts";
import { commandReason, judgementReason, verdictReason, type Reason } from "./reasons.ts";
import { verbOf } from "./verb.ts";

/** A reply, and what the log says about it. */
export interface Answer extends Reason {
  readonly reply: ReplyName;
  /** Under which the operator finds the certificate that was refused; told to the client. */
  readonly reference?: string;
  /** What the rules were asked; absent where they were not. */
  readonly decision?: Decision;
}

/** What the rules were asked, and what they said: for the record, and for whoever asks why. */
export interface Decision {
  readonly judgement: PeerJudgement;
  /** Absent where the peer was refused before its MAIL was read. */
  readonly mail?: MailCommand;
  /** Of RCPT. */
  readonly to?: ForwardPath;
  /** Of the rule for senders or recipients; absent where none was asked. */
  readonly verdict?: Verdict;
}

/** What is to be done about a command. */
export type Step =
  | { readonly kind: "answer"; readonly answer: Answer }
  /** 250 with these lines. */
  | { readonly kind: "hello"; readonly lines: readonly string[] }
  | { readonly kind: "startTls" }
  /** 354, and the content of the message. */
  | { readonly kind: "content"; readonly transaction: Transaction; readonly greeting: Greeting }
  | { readonly kind: "quit" };

/** How the client has introduced itself. */
export interface Greeting {
  readonly name: string;
  /** EHLO, as opposed to HELO. */
  readonly extended: boolean;
}

export interface Transaction {
  /** Under which MAIL was accepted: it holds to the end of the message, whatever is reloaded meanwhile. */
  readonly policy: PolicyInForce;
  readonly identity: PeerIdentity;
  readonly mail: MailCommand;
  readonly recipients: Map<string, Recipient>;
}

/** What TLS has told about the peer; undefined before STARTTLS. */
export interface SecuredBy {
  readonly chain: readonly X509Certificate[];
  readonly version: string;
  readonly cipher: string;
  /** The key exchange, as `X25519MLKEM768`; undefined where it could not be seen. */
  readonly group: string | undefined;
}

/** What is said to a command that is none, or not in its syntax. Recipients have a count of their own. */
const badCommands: ReadonlySet<ReplyName> = new Set([
  "controlCharacter",
  "unknownCommand",
  "notImplemented",
  "heloSyntax",
  "senderSyntax",
  "takesNoArgument",
  "parameterUnknown",
  "parameterSyntax",
  "parameterRepeated",
]);
/** Refused or named already, without a message in between. Many: a client that gets 421 here comes again with all of them. */
const idleRecipientsMax = 1000;
const heloCharactersMax = 255; // RFC 5321 §4.5.3.1.2
const extensions = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"] as const;

/** What has been noted of a session: once is enough, however many messages it brings, unless the answer changes. */
interface Noted {
  readonly kind: PeerJudgement["kind"];
  readonly pin: Pin | undefined;
  readonly policy: PolicyInForce;
  readonly reference: string | undefined;
}

/** What a session needs to know of the receiver. */
export interface SessionContext extends Pick<ReceiverContext, "policy" | "now" | "usage" | "rates" | "sightings"> {
  /** Who is this? In place of the partners' pins and addresses. */
  readonly judge?: (peer: PeerCredentials, now: Date) => PeerJudgement;
}

export class Session {
  readonly id: string;
  readonly address: string;
  readonly #context: SessionContext;
  readonly #takeSeat: (identity: PeerIdentity) => boolean;
  #secured: SecuredBy | undefined;
  #greeting: Greeting | undefined;
  #transaction: Transaction | undefined;
  #commands = 0;
  #badCommands = 0;
  #idleRecipients = 0;
  #transactions = 0;
  #noted: Noted | undefined;

  /** @param takeSeat has the partner a place for this connection? Asked at each MAIL. */
  constructor(id: string, address: string, context: SessionContext, takeSeat: (identity: PeerIdentity) => boolean) {
    this.id = id;
    this.address = address;
    this.#context = context;
    this.#takeSeat = takeSeat;
  }

  get secured(): SecuredBy | undefined {
    return this.#secured;
  }

  get greeting(): Greeting | undefined {
    return this.#greeting;
  }

  /** TLS is up: what was known before counts no more (RFC 3207 §4.2). */
  secure(by: SecuredBy): void {
    this.#secured = by;
    this.#greeting = undefined;
    this.#transaction = undefined;
  }

  /** The message is over, one way or the other. */
  endOfMessage(isAccepted: boolean): void {
    this.#transaction = undefined;
    if (!isAccepted) return;
    this.#commands = 0;
    this.#idleRecipients = 0;
  }

  /** One command line, without CRLF. */
  perform(line: Buffer): Step {
    const verb = verbOf(line);
    const { commandsMax, badCommandsMax } = this.#context.policy.config.limits;
    if (verb !== "RCPT" || this.#transaction === undefined) this.#commands += 1;
    if (this.#commands > commandsMax) return answer("tooManyCommands");
    if (this.#idleRecipients > idleRecipientsMax) return answer("tooManyIdleRecipients");
    const step = this.#step(verb, line);
    if (verb === "RCPT" || step.kind !== "answer" || !badCommands.has(step.answer.reply)) return step;
    this.#badCommands += 1;
    return this.#badCommands > badCommandsMax ? answer("tooManyBadCommands") : step;
  }

  #step(verb: ReturnType<typeof verbOf>, line: Buffer): Step {
    const hasArgument = line.toString("latin1").trimEnd().length > verb.length;
    switch (verb) {
      case "EHLO":
      case "HELO":
        return this.#hello(line, verb === "EHLO");
      case "STARTTLS":
        if (hasArgument) return answer("takesNoArgument"); // RFC 3207 §4
        return this.#secured === undefined ? { kind: "startTls" } : answer("tlsActive");
      case "MAIL":
        return this.#greeting === undefined ? answer("heloFirst") : { kind: "answer", answer: this.#mail(line) };
      case "RCPT":
        return this.#greeting === undefined ? answer("heloFirst") : { kind: "answer", answer: this.#countRcpt(line) };
      case "DATA":
        return hasArgument ? answer("takesNoArgument") : this.#data();
      case "RSET":
        this.#transaction = undefined;
        return answer("done");
      case "NOOP":
        return answer("done");
      case "QUIT":
        return { kind: "quit" };
      case "controlCharacter":
      case "notSmtp":
      case "notImplemented":
      case "unknownCommand":
        return answer(verb);
    }
  }

  #hello(line: Buffer, extended: boolean): Step {
    const [, name, ...more] = line.toString().trimEnd().split(/ +/);
    if (name === undefined || more.length > 0 || name.length > heloCharactersMax) return answer("heloSyntax");
    this.#greeting = { name: name.toLowerCase(), extended };
    this.#transaction = undefined;
    const { hostname, limits } = this.#context.policy.config;
    if (!extended) return { kind: "hello", lines: [hostname] };
    const startTls = this.#secured === undefined ? ["STARTTLS"] : [];
    return { kind: "hello", lines: [hostname, ...extensions, ...startTls, `SIZE ${limits.messageBytesMax}`] };
  }

  /** MAIL: who is this, and may it send as that? The certificate is judged anew each time: dates pass, pins go. */
  #mail(line: Buffer): Answer {
    const { policy } = this.#context;
    const now = this.#context.now();
    if (this.#secured === undefined) return { reply: "tlsRequired", reason: {} };
    if (this.#transaction !== undefined) return { reply: "nestedMail", reason: {} };
    if (this.#transactions >= policy.config.limits.transactionsMax) return { reply: "tooManyTransactions", reason: {} };
    const { chain } = this.#secured;
    const peer = { address: this.address, chain };
    const judgement =
      this.#context.judge?.(peer, now) ?? judgePeer(policy.partners, peer, now, this.#context.sightings);
    const decision: Decision = { judgement };
    const reference = this.#note(judgement, chain, now);
    const refusal = identityRefusal(judgement);
    if (judgement.kind !== "partner" || refusal !== undefined) {
      const refused = { reply: refusal ?? "addressUnknown", ...judgementReason(judgement, chain), decision };
      return reference === undefined ? refused : { ...refused, reference };
    }
    const { identity } = judgement;
    const partner = identity.partner.name;
    const { group } = this.#secured;
    if (!isKeyExchangeAllowed(identity.partner, group)) {
      return { reply: "keyExchangeTooWeak", reason: { partner, group }, decision };
    }
    const parsed = parseMail(line);
    if (parsed.kind === "refused") return { reply: parsed.reply, reason: { partner }, client: commandReason(line) };
    const judged = this.#judgeMail(identity, parsed.command, decision);
    if (judged.reply !== "senderAccepted") return judged;
    const overQuota = this.#overQuota(identity.partner, parsed.command.declaredBytes ?? 0);
    if (overQuota !== undefined) return { ...judged, ...overQuota };
    // What counts against the partner's limits comes last: a MAIL that is refused for another reason costs it nothing.
    if (!this.#takeSeat(identity)) return { ...judged, reply: "tooManyConnectionsOfPartner", reason: { partner } };
    const { rates } = this.#context;
    const exceeded = rates.takeMessage(identity.partner, parsed.command.declaredBytes, now.getTime());
    if (exceeded !== undefined) return { ...judged, reply: exceeded, reason: { partner } };
    this.#transactions += 1;
    this.#transaction = { policy, identity, mail: parsed.command, recipients: new Map() };
    return judged;
  }

  /**
   * Has what was seen remembered: who came with which certificate, and which certificate nobody knows.
   * @returns the reference of a certificate in quarantine.
   */
  #note(judgement: PeerJudgement, chain: readonly X509Certificate[], now: Date): string | undefined {
    const { kind } = judgement;
    const { policy } = this.#context;
    const pin = judgement.kind === "partner" ? judgement.identity.pin : "pin" in judgement ? judgement.pin : undefined;
    const before = this.#noted;
    if (before?.kind === kind && before.pin === pin && before.policy === policy) return before.reference;
    const reference = this.#noteAnew(judgement, chain, now);
    this.#noted = { kind, pin, policy, reference };
    return reference;
  }

  #noteAnew(judgement: PeerJudgement, chain: readonly X509Certificate[], now: Date): string | undefined {
    const { sightings } = this.#context;
    switch (judgement.kind) {
      case "partner":
        sightings.noteIdentified(judgement.identity, chain, this.address, now);
        return undefined;
      case "revoked":
      case "retired":
        sightings.noteRefused(judgement, chain, now);
        return undefined;
      case "unknownCertificate":
        // From anywhere anybody can bring as many as he likes: those are not worth the operator's time.
        if (judgement.addressOf.length === 0) return undefined;
        return sightings.noteUnknown(chain, judgement.addressOf, this.address, now);
      case "noCertificate":
      case "wrongAddress":
      case "expired":
      case "notYetValid":
      case "pending":
      case "revocationUnknown":
      case "wrongKeyUsage":
      case "unknownAddress":
        return undefined;
    }
  }

  /** Is there room, of what is declared, in the spool and in the partner's share of it? Told before the content is sent. */
  #overQuota({ name, limits }: Partner, declaredBytes: number): Pick<Answer, "reply" | "reason"> | undefined {
    const { usage, policy } = this.#context;
    const usedBytes = usage.totalBytes();
    const maxBytes = policy.config.limits.spoolBytesMax;
    if (usedBytes + declaredBytes >= maxBytes)
      return { reply: "spoolFull", reason: { partner: name, of: "spool-bytes", usedBytes, maxBytes } };
    const partnerBytes = usage.partnerBytes(name);
    if (partnerBytes + declaredBytes < limits.queueBytesMax) return undefined;
    return { reply: "queueQuota", reason: { partner: name, usedBytes: partnerBytes, maxBytes: limits.queueBytesMax } };
  }

  #judgeMail({ partner }: PeerIdentity, mail: MailCommand, { judgement }: Decision): Answer {
    const reason = { partner: partner.name };
    const client = { from: pathText(mail.reversePath) };
    if (mail.declaredBytes !== undefined && mail.declaredBytes > this.#context.policy.messageBytesMax(partner)) {
      const decision = { judgement, mail };
      return { reply: "tooLargeDeclared", reason: { ...reason, declaredBytes: mail.declaredBytes }, client, decision };
    }
    const verdict = judgeSender(partner, mail.reversePath);
    const decision = { judgement, mail, verdict };
    if (verdict.kind === "refuse") return { reply: verdict.reply, reason, client, decision };
    return { reply: "senderAccepted", reason: { ...reason, ...verdictReason(verdict) }, client, decision };
  }

  #countRcpt(line: Buffer): Answer {
    const before = this.#transaction?.recipients.size;
    const judged = this.#rcpt(line);
    if (this.#transaction?.recipients.size === before) this.#idleRecipients += 1;
    return judged;
  }

  /** RCPT: may this partner write to that? A recipient given twice is one recipient; the first one's wishes count. */
  #rcpt(line: Buffer): Answer {
    const transaction = this.#transaction;
    if (transaction === undefined) return { reply: "mailFirst", reason: {} };
    const { partner } = transaction.identity;
    const reason = { partner: partner.name };
    const parsed = parseRcpt(line, transaction.mail.smtpUtf8);
    if (parsed.kind === "refused") return { reply: parsed.reply, reason, client: commandReason(line) };
    const { forwardPath, notify, originalRecipient } = parsed.command;
    const client = { to: pathText(forwardPath) };
    const verdict = judgeRecipient(partner, transaction.policy.routes, forwardPath);
    const decision: Decision = {
      judgement: { kind: "partner", identity: transaction.identity },
      mail: transaction.mail,
      to: forwardPath,
      verdict,
    };
    if (verdict.kind === "refuse") return { reply: verdict.reply, reason, client, decision };
    const key = recipientKey(forwardPath);
    if (!transaction.recipients.has(key)) {
      // 452, not 552: the client may send the rest in another transaction (RFC 5321 §4.5.3.1.10).
      const isFull = transaction.recipients.size >= partner.limits.recipientsMax;
      if (isFull) return { reply: "tooManyRecipients", reason, client, decision };
      const exceeded = this.#context.rates.takeRecipient(partner, this.#context.now().getTime());
      if (exceeded !== undefined) return { reply: exceeded, reason, client, decision };
      transaction.recipients.set(key, {
        path: forwardPath,
        ...(notify === undefined ? {} : { notify }),
        ...(originalRecipient === undefined ? {} : { originalRecipient }),
      });
    }
    return { reply: "recipientAccepted", reason: { ...reason, ...verdictReason(verdict) }, client, decision };
  }

  /** DATA: is there anything to receive a message for? */
  #data(): Step {
    const transaction = this.#transaction;
    if (this.#greeting === undefined) return answer("heloFirst");
    if (transaction === undefined) return answer("mailFirst");
    if (transaction.recipients.size === 0) return answer("recipientFirst");
    return { kind: "content", transaction, greeting: this.#greeting };
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

function answer(reply: ReplyName): Step {
  return { kind: "answer", answer: { reply, reason: {} } };
}

function recipientKey(path: ForwardPath): string {
  return path.kind === "postmaster" ? "postmaster" : mailboxKey(path.mailbox);
}
