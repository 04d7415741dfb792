/**
 * From an answer to what the decision log keeps of it. Pure.
 */
import type { Decision } from "../audit/decision-record.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { pathText } from "../mail/address.ts";
import type { ReplyName } from "../mail/reply.ts";
import type { PeerJudgement } from "../partner/identity.ts";
import { parseMail, type MailCommand } from "./command.ts";
import { groundOf, type Ground } from "./grounds.ts";
import type { Answer, Session } from "./session.ts";

/**
 * Undefined where the rules were not asked: the order or the syntax of commands is no matter of policy.
 * @param config that decided.
 */
export function decisionOf(session: Session, line: Buffer, answer: Answer, config: RelayConfig): Decision | undefined {
  const { reply, decision } = answer;
  if (decision === undefined) return undefined;
  const { judgement, to } = decision;
  const { address, secured, greeting } = session;
  const chain = secured?.chain ?? [];
  const mail = decision.mail ?? senderOf(line);
  return {
    stage: to === undefined ? "mail" : "recipient",
    address,
    chain,
    group: secured?.group,
    helo: greeting?.name,
    from: mail === undefined ? undefined : pathText(mail.reversePath),
    to: to === undefined ? undefined : pathText(to),
    smtpUtf8: mail?.smtpUtf8 === true,
    declaredBytes: to === undefined ? mail?.declaredBytes : undefined,
    reply,
    partner: partnerOf(judgement),
    rule: () => ruleText(groundOf(answer, chain, config, address)),
  };
}

/** With the line, or, where that would have to be looked up, with the key. */
function ruleText({ text, place }: Ground): string {
  if (place === undefined) return text;
  return `${text} (${place.file}${place.kind === "line" ? `:${place.line}` : `: ${place.path.join(".")}`})`;
}

/** A peer that is not let in at the greeting. */
export function turnedAway(address: string, reply: ReplyName): Decision {
  return { stage: "greeting", address, chain: [], reply };
}

/** Whose certificate it is, be it let in or not. */
export function partnerOf(judgement: PeerJudgement): string | undefined {
  if (judgement.kind === "partner") return judgement.identity.partner.name;
  return "partner" in judgement ? judgement.partner.name : undefined;
}

/** A peer that is refused for who it is has said whom it writes for, too. */
function senderOf(line: Buffer): MailCommand | undefined {
  const parsed = parseMail(line);
  return parsed.kind === "command" ? parsed.command : undefined;
}
