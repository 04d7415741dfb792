/**
 * Notices: mail that the relay writes of its own accord, to its postmaster or to a partner's: plain text, one recipient.
 *
 * Promises: it goes out with the null reverse-path, asks for no report, and says that a program wrote it (RFC 3834 §5), so
 * that nobody's program answers; lines are 78 columns at most; the content is 7bit whatever the text holds, so that every
 * server takes it; no word of the text or the subject forges a field. Pure; throws RangeError where `now` is no date.
 */
import { isAscii } from "node:buffer";
import type { Mailbox } from "./address.ts";
import { plainText, wrap } from "./dsn-text.ts";
import type { Envelope } from "./envelope.ts";
import { atomText, dateTime } from "./trace.ts";

export interface NoticeRequest {
  /** Unique; becomes the left side of the Message-ID. */
  readonly id: string;
  readonly hostname: string;
  readonly now: Date;
  /** Who answers, where somebody answers. */
  readonly postmaster: Mailbox;
  readonly to: Mailbox;
  /** Cut to one line of ASCII. */
  readonly subject: string;
  readonly text: readonly NoticeParagraph[];
}

/** Text that is wrapped, or lines of a list, each behind a dash. Both may hold foreign words. */
export type NoticeParagraph = string | readonly string[];

export interface Notice {
  readonly envelope: Envelope;
  /** CRLF lines, not dot-stuffed. */
  readonly content: Buffer;
}

const subjectCharactersMax = 65;

export function composeNotice(request: NoticeRequest): Notice {
  const lines = request.text.flatMap((paragraph, index) => [...(index === 0 ? [] : [""]), ...linesOf(paragraph)]);
  return composeLines(request, lines, ["Auto-Submitted: auto-generated"]); // RFC 3834 §5
}

/**
 * The same with lines that are ready, and with fields of the caller's, which say that a program wrote it.
 * @param lines of at most 78 columns, without control characters.
 */
export function composeLines(
  request: Omit<NoticeRequest, "text">,
  lines: readonly string[],
  fields: readonly string[],
): Notice {
  const { postmaster, to } = request;
  const body = Buffer.from(`${lines.join("\r\n")}\r\n`);
  const plain = isAscii(body);
  const header = [
    ...addressField("From", "pinrelay ", postmaster),
    ...addressField("To", "", to),
    `Subject: ${subjectText(request.subject)}`,
    `Date: ${dateTime(request.now)}`,
    `Message-ID: <${atomText(request.id)}@${atomText(request.hostname)}>`,
    ...fields,
    "MIME-Version: 1.0",
    `Content-Type: text/plain; charset=${plain ? "us-ascii" : "utf-8"}`,
    `Content-Transfer-Encoding: ${plain ? "7bit" : "base64"}`,
  ];
  return {
    envelope: {
      reversePath: { kind: "null" },
      recipients: [{ path: { kind: "mailbox", mailbox: to }, notify: "never" }],
      body: "7bit",
      smtpUtf8: to.internationalized || postmaster.internationalized,
    },
    content: Buffer.concat([Buffer.from(`${header.join("\r\n")}\r\n\r\n`), plain ? body : inBase64(body)]),
  };
}

/** On a line of its own where both do not fit. */
function addressField(name: string, phrase: string, { address }: Mailbox): string[] {
  const field = `${name}: ${phrase}<${address}>`;
  return field.length <= 78 ? [field] : [`${name}: ${phrase}`.trimEnd(), ` <${address}>`];
}

function subjectText(subject: string): string {
  const text = plainText(subject, false).replaceAll(/ +/g, " ").trim();
  return text.length <= subjectCharactersMax ? text : `${text.slice(0, subjectCharactersMax - 3)}...`;
}

function linesOf(paragraph: NoticeParagraph): string[] {
  if (typeof paragraph === "string") return wrap(plainText(paragraph, true));
  return paragraph.flatMap((line) => wrap(plainText(line, true), " - ", "   "));
}

/** RFC 2045 §6.8. */
function inBase64(content: Buffer): Buffer {
  return Buffer.from(content.toString("base64").replaceAll(/.{1,76}/g, "$&\r\n"));
}
