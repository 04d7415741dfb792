/**
 * Delivery status notifications: one report about all concerned recipients of a message, for a person first and for a
 * program second (RFC 3461, 3464, 6522; RFC 6533 where addresses or header are internationalised).
 *
 * Promises: the report goes out with the null reverse-path and asks for no report itself, so none can cause another
 * (RFC 3461 §6.3); nothing that the sender or a remote server wrote forges a field, a part or a line end in it, or makes a
 * line longer than 998 octets; it is 7bit unless what must be returned is not. Pure; throws RangeError where no
 * recipient is given or `now` is no date.
 */
import { createHash } from "node:crypto";
import { isAscii, isUtf8 } from "node:buffer";
import { pathText, type Mailbox } from "./address.ts";
import type { Envelope, Recipient } from "./envelope.ts";
import {
  dateText,
  mimePart,
  originalField,
  plainText,
  remoteName,
  replyLines,
  statusOf,
  subjectOf,
  textPart,
  wrap,
} from "./dsn-text.ts";
import { replyFields } from "./header.ts";
import { atomText, dateTime, extendedDomain, unknownName } from "./trace.ts";

export type ReportAction = "failed" | "delayed" | "delivered" | "relayed" | "expanded";

export interface ReportedRecipient {
  readonly recipient: Recipient;
  readonly action: ReportAction;
  /** RFC 3463, for instance 5.1.1. */
  readonly status: string;
  /** The server that said or did it. `name` is as recorded, an address literal or an IP address if it has none. */
  readonly remote?: { readonly name?: string | undefined; readonly reply?: string | undefined } | undefined;
  /** What happened, in our own words. */
  readonly explanation: string;
  readonly lastAttemptAt?: Date | undefined;
  readonly retryUntil?: Date | undefined;
}

export interface ReportRequest {
  /** Unique; becomes the left side of the Message-ID. */
  readonly reportId: string;
  readonly reportingMta: string;
  readonly now: Date;
  readonly arrivedAt: Date;
  /** What the host that sent us the message called itself. */
  readonly receivedFrom?: string | undefined;
  /** Of the message that the report is about. */
  readonly envelope: Envelope;
  readonly to: Mailbox;
  readonly postmaster: Mailbox;
  readonly recipients: readonly ReportedRecipient[];
  /** CRLF lines, not dot-stuffed; the header without the empty line behind it, the body only if it may be returned. */
  readonly original: { readonly header: Buffer; readonly body?: Buffer | undefined };
}

export interface Report {
  readonly envelope: Envelope;
  /** CRLF lines, not dot-stuffed. */
  readonly content: Buffer;
}

/** A body larger than this is not returned, nor is more than this of a header. */
export const returnedBytesMax = 64 * 1024;

const lineOctetsMax = 998; // RFC 5322 §2.1.1

/** May a report be sent about a message at all? Never about one that came from nowhere (RFC 5321 §4.5.5). */
export function isReportable(envelope: Envelope): boolean {
  return envelope.reversePath.kind === "mailbox";
}

/** Does the sender want to hear this about the recipient (RFC 3461 §4.1)? Not having asked means failure and delay. */
export function wantsReport(recipient: Recipient, action: ReportAction): boolean {
  const { notify } = recipient;
  const occasion = action === "failed" ? "failure" : action === "delayed" ? "delay" : "success";
  if (notify === undefined) return occasion !== "success";
  return notify !== "never" && notify.includes(occasion);
}

/** Composes the report. */
export function composeReport(request: ReportRequest): Report {
  if (request.recipients.length === 0) throw new RangeError("a report is about one recipient at least");
  const utf8 = needsUtf8(request);
  const parts = [textPart(request, utf8), statusPart(request, utf8), originalPart(request)];
  const boundary = boundaryFor(request.reportId, parts);
  const header = reportHeader(request, boundary, parts.every(isAscii));
  const delimited = parts.flatMap((part) => [Buffer.from(`\r\n--${boundary}\r\n`), part]);
  const content = Buffer.concat([header, ...delimited, Buffer.from(`\r\n--${boundary}--\r\n`)]);
  return {
    envelope: {
      reversePath: { kind: "null" },
      recipients: [{ path: { kind: "mailbox", mailbox: request.to }, notify: "never" }],
      body: isAscii(content) ? "7bit" : "8bitmime",
      smtpUtf8: request.to.internationalized || request.postmaster.internationalized,
    },
    content,
  };
}

function reportHeader(request: ReportRequest, boundary: string, is7Bit: boolean): Buffer {
  const lines = [
    `From: "Mail Delivery System (MAILER-DAEMON)"\r\n <${request.postmaster.address}>`,
    `To: <${request.to.address}>`,
    `Subject: ${subjectOf(request.recipients)}`,
    `Date: ${dateTime(request.now)}`,
    `Message-ID: <${atomText(request.reportId)}@${atomText(request.reportingMta)}>`,
    ...replyFields(originalField(request, "message-id")),
    "Auto-Submitted: auto-replied", // RFC 3834 §5
    "MIME-Version: 1.0",
    `Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="${boundary}"`,
    `Content-Transfer-Encoding: ${is7Bit ? "7bit" : "8bit"}`,
    "",
    "This is a report in several parts (MIME, RFC 6522).",
  ];
  return Buffer.from(`${lines.join("\r\n")}\r\n`);
}

/** A boundary that none of the parts holds. */
function boundaryFor(reportId: string, parts: readonly Buffer[]): string {
  for (let salt = 0; ; salt += 1) {
    const hash = createHash("sha256").update(`${salt} ${reportId}\n`);
    for (const part of parts) hash.update(part);
    const boundary = `=_report_${hash.digest("hex").slice(0, 40)}`;
    if (parts.every((part) => !part.includes(boundary))) return boundary;
  }
}

// The part for a program: message/delivery-status (RFC 3464 §2).

function statusPart(request: ReportRequest, utf8: boolean): Buffer {
  const blocks = [messageFields(request), ...request.recipients.map((item) => recipientFields(item, utf8))];
  const content = Buffer.from(blocks.map((lines) => `${lines.join("\r\n")}\r\n`).join("\r\n"));
  return mimePart(`message/${isAscii(content) ? "" : "global-"}delivery-status`, "Delivery report", content);
}

function messageFields(request: ReportRequest): string[] {
  const { envelopeId } = request.envelope;
  const from = extendedDomain(request.receivedFrom ?? "");
  return fields({
    "Original-Envelope-Id": envelopeId === undefined ? undefined : printable(xtextDecoded(envelopeId), false),
    "Reporting-MTA": `dns; ${atomText(request.reportingMta)}`,
    "Received-From-MTA": from === unknownName ? undefined : `dns; ${from}`,
    "Arrival-Date": dateText(request.arrivedAt),
  });
}

function recipientFields(item: ReportedRecipient, utf8: boolean): string[] {
  const address = pathText(item.recipient.path);
  const original = item.recipient.originalRecipient;
  const remote = remoteName(item);
  return fields({
    "Original-Recipient": original === undefined ? undefined : originalRecipient(original, utf8),
    "Final-Recipient": `${/^[ -~]*$/.test(address) ? "rfc822" : "utf-8"}; ${address}`,
    Action: item.action,
    Status: statusOf(item),
    "Remote-MTA": remote === undefined ? undefined : `dns; ${remote}`,
    "Diagnostic-Code": diagnosticCode(replyLines(item, utf8)),
    "Last-Attempt-Date": dateText(item.lastAttemptAt),
    "Will-Retry-Until": item.action === "delayed" ? dateText(item.retryUntil) : undefined,
  });
}

/** The fields that have a value, in their order. */
function fields(values: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
}

/**
 * The remote's reply (RFC 3464 §2.3.6), folded. Comments, quoted-strings and quoted-pairs may stand in any of these
 * fields (§2.1.1); a reply that only looks like one must not make a reader skip the rest of it.
 */
function diagnosticCode(words: readonly string[]): string | undefined {
  if (words.length === 0) return undefined;
  const text = words.join(" ").replaceAll("\\", "/").replaceAll('"', "'");
  const safe = isBalanced(text) ? text : text.replaceAll("(", "[").replaceAll(")", "]");
  // Folded together with its name, which stands on the first line.
  return wrap(`Diagnostic-Code: smtp; ${safe}`, "", " ").join("\r\n").slice("Diagnostic-Code: ".length);
}

function isBalanced(text: string): boolean {
  let depth = 0;
  for (const character of text) {
    if (character === "(") depth += 1;
    else if (character === ")" && (depth -= 1) < 0) return false;
  }
  return depth === 0;
}

/**
 * ORCPT as a field: `addr-type; address`, the xtext decoded (RFC 3464 §2.3.1). An address of type utf-8 has an encoding of
 * its own, which stays as it is where the report is ASCII (RFC 6533 §3). Undefined if it is malformed.
 */
function originalRecipient(written: string, utf8: boolean): string | undefined {
  const { type, value = "" } = /^(?<type>[\w.-]{1,60});(?<value>.{1,500})$/su.exec(written)?.groups ?? {};
  if (type === undefined) return undefined;
  const isUtf8Type = type.toLowerCase() === "utf-8";
  const address = isUtf8Type ? (utf8 ? unembedded(value) : value) : xtextDecoded(value);
  const text = printable(address, utf8 && isUtf8Type);
  return text === undefined ? undefined : `${type}; ${text}`;
}

/** xtext (RFC 3461 §4) decoded, or undefined if it is none. */
function xtextDecoded(xtext: string): string | undefined {
  if (!/^(?:[!-*,-<>-~]|\+[0-9A-F]{2})*$/.test(xtext)) return undefined;
  return xtext.replaceAll(/\+(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** utf-8-addr-xtext or utf-8-addr-unitext (RFC 6533 §3) decoded. */
function unembedded(text: string): string {
  return text.replaceAll(/\\x\{([0-9A-F]{2,6})\}/g, (whole, hex: string) => {
    const point = Number.parseInt(hex, 16);
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

/** The text if all of it may stand in a field, else undefined: what is altered would not be what was given. */
function printable(text: string | undefined, utf8: boolean): string | undefined {
  return text !== undefined && text.trim() !== "" && plainText(text, utf8) === text ? text : undefined;
}

// What is returned of the message itself.

function originalPart(request: ReportRequest): Buffer {
  const { envelope, original } = request;
  const header = returnableHeader(original.header);
  const isGlobal = envelope.smtpUtf8 && !isAscii(header) && isUtf8(header);
  const body = returnedBody(request);
  if (body === undefined) {
    return mimePart(isGlobal ? "message/global-headers" : "text/rfc822-headers", "Header of your message", header);
  }
  const whole = Buffer.concat([header, Buffer.from("\r\n"), body]);
  return mimePart(isGlobal ? "message/global" : "message/rfc822", "Your message", whole);
}

/** The body, if it may be returned: with failures only (RFC 3461 §4.3), and as it is or not at all. */
function returnedBody(request: ReportRequest): Buffer | undefined {
  const { header, body } = request.original;
  const isWanted =
    request.envelope.returnContent !== "headers" && request.recipients.some((item) => item.action === "failed");
  if (body === undefined || !isWanted || body.length > returnedBytesMax || header.length > returnedBytesMax) {
    return undefined;
  }
  const lines = body.toString("latin1").split("\r\n");
  return lines.every((line) => line.length <= lineOctetsMax && !/[\0\r\n]/.test(line)) ? body : undefined;
}

/** The header, cut where it becomes too long, with long lines folded and line ends put right. */
function returnableHeader(header: Buffer): Buffer {
  const isLong = header.length > returnedBytesMax;
  const end = isLong ? header.lastIndexOf("\n", returnedBytesMax - 1) + 1 || returnedBytesMax : header.length;
  const lines = header
    .toString("latin1", 0, end)
    .replace(/\r?\n$/, "")
    .split(/\r\n|\r|\n/);
  return Buffer.from(lines.map((line) => `${foldedAnywhere(line.replaceAll("\0", "?"))}\r\n`).join(""), "latin1");
}

/** A line (one character an octet) in pieces of at most 998 octets, no UTF-8 sequence torn apart. */
function foldedAnywhere(line: string): string {
  const pieces: string[] = [];
  let rest = line;
  while (rest.length > lineOctetsMax) {
    let at = lineOctetsMax - 8;
    while (at > lineOctetsMax - 16 && /^[\x80-\xbf]/.test(rest.slice(at, at + 1))) at -= 1;
    pieces.push(rest.slice(0, at));
    rest = ` ${rest.slice(at)}`;
  }
  return [...pieces, rest].join("\r\n");
}

/** Is any address in the report outside ASCII? That needs the forms of RFC 6533. */
function needsUtf8({ envelope, recipients }: ReportRequest): boolean {
  return recipients.some(
    ({ recipient: { path, originalRecipient: original = "" } }) =>
      (path.kind === "mailbox" && path.mailbox.internationalized) || (envelope.smtpUtf8 && !/^[ -~]*$/.test(original)),
  );
}
