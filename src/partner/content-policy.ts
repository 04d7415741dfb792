/**
 * What a relay can ask of a message's header without parsing MIME: is it one, does it have one author, and is that author
 * one of the partner's? Each rule of each partner is off, observed (reported and let through) or enforced. Pure.
 */
import { fieldBody, headerFields } from "../mail/header.ts";
import { fromMailboxes } from "../mail/from-field.ts";
import type { ReplyName } from "../mail/reply.ts";
import type { Partner } from "./partner.ts";
import { covers } from "./policy.ts";

export type RuleMode = "off" | "observe" | "enforce";

export interface ContentRules {
  /** Header lines are fields (RFC 5322 §2.2) of at most 998 octets, and 8-bit only with SMTPUTF8. */
  readonly headerSyntax: RuleMode;
  /** Exactly one From field (RFC 5322 §3.6). */
  readonly singleFrom: RuleMode;
  /** Every mailbox of the From field is one that the partner may use as a sender. */
  readonly fromAlignment: RuleMode;
}

export interface HeaderVerdict {
  /** The first rule that refuses. */
  readonly refusal: ReplyName | undefined;
  /** What would have been refused. */
  readonly observed: readonly ReplyName[];
}

const lineOctetsMax = 998; // RFC 5322 §2.1.1

/** @param header as it stands on the wire, without the empty line. */
export function judgeHeader(partner: Partner, header: Buffer, smtpUtf8: boolean): HeaderVerdict {
  const { headerSyntax, singleFrom, fromAlignment } = partner.content;
  // Mode `observe` of a partner holds for all that is asked of its senders.
  const inForce = (mode: RuleMode): RuleMode => (partner.mode === "observe" && mode === "enforce" ? "observe" : mode);
  const rules = [
    { mode: inForce(headerSyntax), reply: "headerMalformed", isBroken: () => !isHeader(header, smtpUtf8) },
    { mode: inForce(singleFrom), reply: "fromFieldCount", isBroken: () => fromFields(header).length !== 1 },
    { mode: inForce(fromAlignment), reply: "fromFieldNotAllowed", isBroken: () => !isAligned(partner, header) },
  ] as const;
  const observed: ReplyName[] = [];
  for (const { mode, reply, isBroken } of rules) {
    if (mode === "off" || !isBroken()) continue;
    if (mode === "enforce") return { refusal: reply, observed };
    observed.push(reply);
  }
  return { refusal: undefined, observed };
}

function isHeader(header: Buffer, smtpUtf8: boolean): boolean {
  if (headerFields(header).some(({ name }) => name === "")) return false;
  if (!smtpUtf8 && header.some((octet) => octet > 0x7f)) return false;
  let from = 0;
  for (let end = header.indexOf(0x0a); end >= 0; end = header.indexOf(0x0a, from)) {
    if (end - 1 - from > lineOctetsMax) return false;
    from = end + 1;
  }
  return true;
}

function fromFields(header: Buffer): string[] {
  return headerFields(header)
    .filter(({ name }) => name === "from")
    .map((field) => fieldBody(header, field));
}

/** A message without an author poses as nobody: that is the affair of `singleFrom`. */
function isAligned(partner: Partner, header: Buffer): boolean {
  return fromFields(header).every((body) => {
    const mailboxes = fromMailboxes(body);
    return (
      mailboxes !== undefined && mailboxes.every((mailbox) => partner.allow.from.some((rule) => covers(rule, mailbox)))
    );
  });
}
