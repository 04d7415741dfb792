/**
 * Asks the questions of recorded decisions again, of the rules of a configuration: what would the receiver say? Pure: each
 * decision is taken at the time at which it was taken.
 */
import type { X509Certificate } from "node:crypto";
import type { RecordedDecision } from "../audit/decision-record.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { limitOf, replies, replyLine, type ReplyName } from "../mail/reply.ts";
import type { PinHistory } from "../partner/rollover.ts";
import { partnerOf } from "./decision.ts";
import { DryRunner } from "./dry-run.ts";
import type { Ground } from "./grounds.ts";

/** What was or would be said. */
export interface Outcome {
  /** `greeted`: the peer is not turned away, and nothing is known of what it would have wanted. */
  readonly reply: ReplyName | "greeted";
  readonly partner: string | undefined;
}

export interface GroundedOutcome extends Outcome {
  readonly ground: Ground;
}

/** What the decision was; of a reply that another version gave, undefined; `limited`: no rule gave it. */
export function recordedOutcome({ reply, partner }: RecordedDecision): Outcome | "limited" | undefined {
  if (!isReplyName(reply)) return undefined;
  return isHourly(reply) ? "limited" : { reply, partner };
}

export function isSameOutcome(a: Outcome, b: Outcome): boolean {
  return a.reply === b.reply && a.partner === b.partner;
}

/** As a client would read it, without the session's id. */
export function outcomeText({ reply }: Outcome): string {
  return reply === "greeted" ? "220 and goes on" : replyLine(replies[reply]);
}

export class Replay {
  readonly #runner: DryRunner;

  constructor(config: RelayConfig, history: PinHistory) {
    this.#runner = new DryRunner(config, history);
  }

  /**
   * @param chain the certificates of the decision. One object for each chain: what is found out about a certificate is
   * kept with it.
   */
  outcome(decision: RecordedDecision, chain: readonly X509Certificate[]): GroundedOutcome {
    const { stage, address, group, from = "", to, smtpUtf8, declaredBytes, at } = decision;
    if (stage === "greeting") {
      const greeting = this.#runner.greet(address);
      if (greeting !== undefined) return { reply: greeting.reply, partner: undefined, ground: greeting.ground };
      return { reply: "greeted", partner: undefined, ground: { text: `${address} is among the hosts of a partner` } };
    }
    const { replies: said, judgement } = this.#runner.run({
      peer: { kind: "connects", address, chain, group },
      from,
      to: to === undefined ? [] : [to],
      declaredBytes,
      smtpUtf8: smtpUtf8 === true,
      now: at,
    });
    // What is refused at MAIL has no other reply to RCPT.
    const reply = (to === undefined ? undefined : said[1]) ?? said[0];
    if (reply === undefined) throw new Error("a dry run without a reply");
    const partner = judgement === undefined ? undefined : partnerOf(judgement);
    return { reply: reply.reply, partner, ground: reply.ground };
  }
}

function isReplyName(name: string): name is ReplyName {
  return Object.hasOwn(replies, name);
}

/** Does it tell of the hour in which it was given, and not of the rules? */
function isHourly(reply: ReplyName): boolean {
  return reply === "spoolFull" || (limitOf(reply) !== undefined && reply !== "tooLargeDeclared");
}
