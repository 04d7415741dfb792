/**
 * What the receiver would say to a peer, without the peer: the same session is led through the same command lines.
 *
 * Promises: replies are those of the live relay to the octet, but for the session's id. What depends on the hour is not
 * part of it: connections, rates and what waits in the spool are as if nobody else were there. Nothing is remembered of
 * the peer. Pure: the clock, and what was seen of pins in use, are passed in.
 */
import type { X509Certificate } from "node:crypto";
import type { RelayConfig } from "../config/relay-config.ts";
import { replies, type ReplyName } from "../mail/reply.ts";
import { judgePeer, type PeerIdentity, type PeerJudgement } from "../partner/identity.ts";
import type { PinHistory } from "../partner/rollover.ts";
import { onlooker } from "../sightings/sightings.ts";
import { answerLine } from "./answer-line.ts";
import { ConnectionCensus } from "./census.ts";
import { groundOf, identityGround, type Ground } from "./grounds.ts";
import { unmetered } from "./partner-rates.ts";
import { PolicyInForce } from "./policy-in-force.ts";
import { Session, type Answer, type Step } from "./session.ts";
import { certificatesMax } from "./tls-peer.ts";

export type DryPeer =
  /** `chain` is what it shows, leaf first; empty: nothing. */
  | {
      readonly kind: "connects";
      readonly address: string;
      readonly chain: readonly X509Certificate[];
      readonly group: string | undefined;
    }
  /** It goes on without STARTTLS. */
  | { readonly kind: "staysPlain"; readonly address: string }
  /** Whoever it is, and wherever from: it has been identified. */
  | { readonly kind: "identified"; readonly identity: PeerIdentity; readonly group: string | undefined };

export interface DryMail {
  readonly peer: DryPeer;
  /** Without angle brackets. */
  readonly from: string;
  readonly to: readonly string[];
  /** As with SIZE; undefined: not declared. */
  readonly declaredBytes?: number | undefined;
  readonly smtpUtf8: boolean;
  readonly now: Date;
}

/** One reply, to a command or, first of all, to the connection. */
export interface DryReply {
  /** Undefined for the greeting. */
  readonly command: string | undefined;
  readonly reply: ReplyName;
  readonly code: number;
  /** As it goes over the wire, without CRLF. */
  readonly text: string;
  readonly ground: Ground;
}

export interface DryRun {
  /** Greeting if it turns the peer away, MAIL if it does not, every RCPT if MAIL is accepted, DATA if one of those is. */
  readonly replies: readonly DryReply[];
  /** Is the message wanted, by all of its recipients? */
  readonly kind: "accepted" | "refused";
  /** Undefined where the session did not get that far. */
  readonly judgement: PeerJudgement | undefined;
  readonly identity: Ground | undefined;
}

/** Stands in refusals in place of a session's id. */
export const drySession = "session";

const hello = Buffer.from("EHLO dry-run.invalid");
const emptySpool = { totalBytes: () => 0, partnerBytes: () => 0 };

export class DryRunner {
  readonly #policy: PolicyInForce;
  readonly #history: PinHistory;

  constructor(config: RelayConfig, history: PinHistory) {
    this.#policy = new PolicyInForce(config);
    this.#history = history;
  }

  get config(): RelayConfig {
    return this.#policy.config;
  }

  run(mail: DryMail): DryRun {
    const { peer } = mail;
    const greeting = peer.kind === "identified" ? undefined : this.greet(peer.address);
    if (greeting !== undefined)
      return { replies: [greeting], kind: "refused", judgement: undefined, identity: undefined };
    return new Rehearsal(this.#policy, this.#history, mail).run();
  }

  /** The reply to a peer that is turned away at the greeting; undefined for one that is not. */
  greet(address: string): DryReply | undefined {
    const { partners, config } = this.#policy;
    const admission = new ConnectionCensus().enter(address, partners.isKnownAddress(address), config.limits);
    if (admission.kind === "admitted") return undefined;
    const ground = identityGround({ kind: "unknownAddress" }, [], config, address);
    return dryReply(undefined, { reply: admission.reply, reason: {} }, ground);
  }
}

class Rehearsal {
  readonly #mail: DryMail;
  readonly #config: RelayConfig;
  readonly #session: Session;
  readonly #replies: DryReply[] = [];
  readonly #address: string;
  readonly #chain: readonly X509Certificate[];
  #judgement: PeerJudgement | undefined;

  constructor(policy: PolicyInForce, history: PinHistory, mail: DryMail) {
    const { peer, now } = mail;
    this.#mail = mail;
    this.#config = policy.config;
    this.#address = peer.kind === "identified" ? "" : peer.address;
    this.#chain = peer.kind === "connects" ? peer.chain.slice(0, certificatesMax) : [];
    const context = {
      policy,
      now: () => now,
      usage: emptySpool,
      rates: unmetered,
      sightings: onlooker(history),
      judge: (credentials: Parameters<typeof judgePeer>[1], at: Date) =>
        (this.#judgement =
          peer.kind === "identified"
            ? { kind: "partner", identity: peer.identity }
            : judgePeer(policy.partners, credentials, at, history)),
    };
    this.#session = new Session(drySession, this.#address, context, () => true);
  }

  run(): DryRun {
    const { peer, from, to, declaredBytes, smtpUtf8 } = this.#mail;
    this.#session.perform(hello);
    if (peer.kind !== "staysPlain") {
      this.#session.perform(Buffer.from("STARTTLS"));
      this.#session.secure({ chain: this.#chain, version: "TLSv1.3", cipher: "", group: peer.group });
      this.#session.perform(hello);
    }
    const size = declaredBytes === undefined ? "" : ` SIZE=${declaredBytes}`;
    const isMailAccepted = this.#say(`MAIL FROM:<${from}>${size}${smtpUtf8 ? " SMTPUTF8" : ""}`);
    const accepted = isMailAccepted ? to.filter((recipient) => this.#say(`RCPT TO:<${recipient}>`)).length : 0;
    const isContentWanted = accepted > 0 && this.#say("DATA");
    const judgement = this.#judgement;
    return {
      replies: this.#replies,
      kind: isMailAccepted && accepted === to.length && (isContentWanted || to.length === 0) ? "accepted" : "refused",
      judgement,
      identity: this.#identity(),
    };
  }

  #identity(): Ground | undefined {
    if (this.#judgement === undefined) return undefined;
    if (this.#mail.peer.kind === "identified")
      return { text: "taken as given: no certificate or address was looked at" };
    return identityGround(this.#judgement, this.#chain, this.#config, this.#address);
  }

  /** @returns is the command accepted? */
  #say(command: string): boolean {
    if (this.#replies.at(-1)?.code === 421) return false; // the connection is closed
    const answer = answerOf(this.#session.perform(Buffer.from(command)));
    const ground = groundOf(answer, this.#chain, this.#config, this.#address);
    this.#replies.push(dryReply(command, answer, ground));
    return replies[answer.reply].code < 400;
  }
}

function answerOf(step: Step): Answer {
  switch (step.kind) {
    case "answer":
      return step.answer;
    case "content":
      return { reply: "startData", reason: {} };
    case "hello":
    case "startTls":
    case "quit":
      throw new Error(`a ${step.kind} step is no answer to MAIL, RCPT or DATA`);
  }
}

function dryReply(command: string | undefined, answer: Answer, ground: Ground): DryReply {
  const { reply } = answer;
  return { command, reply, code: replies[reply].code, text: answerLine(answer, drySession), ground };
}
