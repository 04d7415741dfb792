/**
 * Messages that mail servers and relays are known to damage, as content on the wire (lines end with CRLF, dots not yet
 * stuffed). A relay must pass each of them through octet for octet, below the trace fields it adds.
 *
 * Everything is made from its arguments alone, the random attachments too, so a failure repeats; but the signature of a
 * signed message, which openssl makes.
 */

import { createCipheriv, createHash } from "node:crypto";
import type { KeyPair } from "./certificates.ts";
import { output, run } from "./processes.ts";

export interface Message {
  /** What is special about it, for the name of a test. */
  shape: string;
  content: Buffer;
  /** Must be sent with BODY=8BITMIME (RFC 6152). */
  eightBit: boolean;
  /** The Message-ID field's value, angle brackets included, by which the message is found in a mailbox. */
  messageId: string;
}

export interface MessageOptions {
  from: string;
  to: string;
  /** Makes the Message-ID; unique within a mailbox. */
  id: string;
}

type Lines = (string | Buffer)[];

const crlf = Buffer.from("\r\n");

/** Lines with CRLF after each. Strings become UTF-8. */
export function lines(list: Lines): Buffer {
  return Buffer.concat(list.flatMap((line) => [Buffer.from(line), crlf]));
}

function message(shape: string, options: MessageOptions, header: Lines, body: Lines | Buffer | undefined): Message {
  const messageId = `<${options.id}@test.invalid>`;
  const content = Buffer.concat([
    lines([
      `From: ${options.from}`,
      `To: ${options.to}`,
      `Subject: ${shape}`,
      "Date: Tue, 01 Sep 2026 08:00:00 +0000",
      `Message-ID: ${messageId}`,
      ...header,
    ]),
    ...(body === undefined ? [] : [crlf, Buffer.isBuffer(body) ? body : lines(body)]),
  ]);
  return { shape, content, eightBit: content.some((byte) => byte > 127), messageId };
}

export function plain(options: MessageOptions): Message {
  return message("plain text", options, [], ["Hello."]);
}

/** Nested parts and three attachments of random octets in base64. */
export function withAttachments(options: MessageOptions): Message {
  const sizesBytes = [1, 4_711, 300_000];
  const outer = `outer_${options.id}`;
  const inner = `inner_${options.id}`;
  const attachments = sizesBytes.flatMap((sizeBytes, index) => [
    `--${outer}`,
    `Content-Type: application/octet-stream; name="file-${index}.bin"`,
    "Content-Transfer-Encoding: base64",
    `Content-Disposition: attachment; filename="file-${index}.bin"`,
    "",
    ...base64Lines(randomBytes(`${options.id}/${index}`, sizeBytes)),
  ]);
  return message("attachments", options, mimeHeader(`multipart/mixed;\r\n\tboundary="${outer}"`, "7bit"), [
    "A preamble that readers do not show.",
    `--${outer}`,
    `Content-Type: multipart/alternative; boundary="${inner}"`,
    "",
    `--${inner}`,
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "Gr=C3=BC=C3=9Fe =3D greetings, and a soft=",
    " line break",
    `--${inner}`,
    "Content-Type: text/html; charset=us-ascii",
    "",
    "<p>Greetings</p>",
    `--${inner}--`,
    ...attachments,
    `--${outer}--`,
    "An epilogue.",
  ]);
}

/** A multipart/signed message (RFC 8551 §3.5.3): one changed octet in the signed part and it no longer verifies. */
export async function smimeSigned(options: MessageOptions, signer: KeyPair): Promise<Message> {
  const part = lines([
    "Content-Type: text/plain; charset=us-ascii",
    "Content-Transfer-Encoding: 7bit",
    "",
    "Please pay 100 to the bearer.  ",
    ".",
    "From the desk of the treasurer",
    "",
  ]);
  const args = ["smime", "-sign", "-signer", signer.certificateFile, "-inkey", signer.keyFile, "-md", "sha256"];
  const signed = (await output("openssl", args, { input: part })).toString("latin1").replaceAll(/\r?\n/g, "\r\n");
  const blank = signed.indexOf("\r\n\r\n");
  const header = signed.slice(0, blank).split("\r\n");
  return message("S/MIME signed", options, header, Buffer.from(signed.slice(blank + 4), "latin1"));
}

/** Does the signature of such a message still hold, by openssl's judgement? */
export async function signatureHolds(content: Buffer, trustAnchorFile: string): Promise<boolean> {
  const { code } = await run("openssl", ["smime", "-verify", "-CAfile", trustAnchorFile], { input: content });
  return code === 0;
}

export function eightBitLatin1(options: MessageOptions): Message {
  const everyHighByte = Buffer.from(Array.from({ length: 128 }, (_, index) => 128 + index));
  const text = Buffer.from("Gr\xfc\xdfe aus K\xf6ln", "latin1");
  return message("8-bit Latin-1", options, mimeHeader("text/plain; charset=iso-8859-1"), [text, everyHighByte, ""]);
}

export function eightBitUtf8(options: MessageOptions): Message {
  return message("8-bit UTF-8", options, mimeHeader("text/plain; charset=utf-8"), ["Grüße", "日本語", "🙂"]);
}

/** Raw UTF-8 in header fields (RFC 6532): to be sent with SMTPUTF8. */
export function utf8Header(options: MessageOptions): Message {
  const header = ["Comments: Grüße aus Köln, 日本語", ...mimeHeader("text/plain; charset=utf-8")];
  return message("UTF-8 in the header", options, header, ["Grüße"]);
}

/** Lines of exactly 998 octets, the most that RFC 5321 §4.5.3.1.6 allows (1000 with CRLF). */
export function longestAllowedLines(options: MessageOptions): Message {
  const body = ["", ".", "From ", " "].map((start) => start.padEnd(998, "x"));
  return message("lines of 998 octets", options, [], [...body, "end"]);
}

/** Lines longer than SMTP allows, which real senders produce and receivers had better pass on than break. */
export function tooLongLines(options: MessageOptions): Message {
  const body = ["a".repeat(999), "b".repeat(2_048), "c".repeat(8_191), "d".repeat(100_000), "end"];
  return message("lines beyond 998 octets", options, [], body);
}

export function dotsAtLineStart(options: MessageOptions): Message {
  return message("dots at line start", options, [], [".", "..", ". ", ".dot", "...", "", ".", "QUIT", ".", "a."]);
}

/** Blanks before line ends, and empty lines at the end: lost where a program trims. */
export function trailingBlanks(options: MessageOptions): Message {
  const header = ["X-Trailing: value \t ", "X-Folded: one \r\n two\t\r\n\tthree "];
  return message("trailing blanks", options, header, ["two  ", "tab\t", " ", "\t", "text", "", "  ", "", "", ""]);
}

/** Lines that mailbox formats quote. */
export function fromLines(options: MessageOptions): Message {
  return message("From at line start", options, [], ["From here on", ">From there", ">>From", "", "From ", "end"]);
}

/**
 * Header fields in forms that a program which parses and rewrites them would tidy. A blank before the colon is not among
 * them: Postfix itself removes it.
 */
export function oddHeader(options: MessageOptions): Message {
  const header = [
    "X-No-Space:value",
    "x-CASE: Upper And lower",
    "X-Empty:",
    "X-Twice: one",
    "X-Twice: two",
    `X-Long: ${"word ".repeat(150)}end`,
    'To: "Second To" <second@test.invalid>,,\r\n (a comment) third@test.invalid',
    "Return-Path: <previous@test.invalid>",
    "Bcc: hidden@test.invalid",
    "Content-Length: 4711",
  ];
  return message("odd header", options, header, ["text"]);
}

export function emptyBody(options: MessageOptions): Message {
  return message("empty body", options, [], []);
}

/** Ends after the header, without the empty line. */
export function headerOnly(options: MessageOptions): Message {
  return message("header only", options, [], undefined);
}

/** A message of exactly this size on the wire (without dot-stuffing), in base64 lines. */
export function ofSize(options: MessageOptions, sizeBytes: number): Message {
  const header = [...mimeHeader("application/octet-stream", "base64")];
  const shape = `${sizeBytes} octets`;
  const frame = message(shape, options, header, []).content.length;
  const body = Buffer.alloc(Math.max(0, sizeBytes - frame));
  const random = lines(base64Lines(randomBytes(options.id, Math.ceil((body.length * 3) / 4))));
  random.copy(body);
  if (body.length >= 2) crlf.copy(body, body.length - 2);
  // The cut may fall between the CR and the LF of the line before.
  if (body.length >= 3 && body[body.length - 3] === 0x0d) body[body.length - 3] = 0x41;
  return message(shape, options, header, body);
}

type Build = (options: MessageOptions, signer: KeyPair) => Message | Promise<Message>;

/**
 * Every shape that plain SMTP with 8BITMIME carries, by name, for `it.each`. (`utf8Header` is not among them: it needs
 * SMTPUTF8.)
 */
export const shapes: [shape: string, build: Build][] = [
  ["plain text", plain],
  ["attachments", withAttachments],
  ["S/MIME signed", smimeSigned],
  ["8-bit Latin-1", eightBitLatin1],
  ["8-bit UTF-8", eightBitUtf8],
  ["lines of 998 octets", longestAllowedLines],
  ["lines beyond 998 octets", tooLongLines],
  ["dots at line start", dotsAtLineStart],
  ["trailing blanks", trailingBlanks],
  ["From at line start", fromLines],
  ["odd header", oddHeader],
  ["empty body", emptyBody],
  ["header only", headerOnly],
  ["20 MiB", (options) => ofSize(options, 20 * 1024 * 1024)],
];

/** Where two contents first differ, with their surroundings; undefined if nowhere. For messages too long for a diff. */
export function firstDifference(actual: Buffer, expected: Buffer): string | undefined {
  if (actual.equals(expected)) return undefined;
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at++;
  const around = (content: Buffer) => JSON.stringify(content.toString("latin1", Math.max(0, at - 40), at + 40));
  return `of ${actual.length} and ${expected.length} octets, from ${at}: ${around(actual)}, expected ${around(expected)}`;
}

function mimeHeader(contentType: string, encoding: "7bit" | "8bit" | "base64" = "8bit"): string[] {
  return ["MIME-Version: 1.0", `Content-Type: ${contentType}`, `Content-Transfer-Encoding: ${encoding}`];
}

/** Octets that look random and depend on the seed alone. */
export function randomBytes(seed: string, sizeBytes: number): Buffer {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}

function base64Lines(bytes: Buffer): string[] {
  return bytes.toString("base64").match(/.{1,76}/g) ?? [];
}
