/**
 * An answer as the client reads it: the reply, and, where it refuses something, under which reference and in which
 * session, so that the partner's postmaster and ours speak of the same thing. Pure.
 */
import { replies, replyLine } from "../mail/reply.ts";
import type { Answer } from "./session.ts";

/** @param session the session's id. */
export function answerLine({ reply, reference }: Pick<Answer, "reply" | "reference">, session: string): string {
  if (replies[reply].code < 400) return replyLine(replies[reply]);
  const tag = sessionTag(session);
  return replyLine(replies[reply], reference === undefined ? tag : `reference ${reference} ${tag}`);
}

export function sessionTag(session: string): string {
  return `[${session}]`;
}
