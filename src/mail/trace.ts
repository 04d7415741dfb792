/**
 * Trace fields: what the relay puts above a message (Received, RFC 5321 §4.4; Authentication-Results, RFC 8601), and
 * what it reads in those that came with it (hops, loops, results forged in our name).
 *
 * Promises: a field that is made here is within the grammar whatever the peer said, each line ends with CRLF and is far
 * below 998 octets, and it is ASCII unless the message is SMTPUTF8. Reading is total, linear, and not fooled by spelling.
 * Pure; fails (RangeError) only for a date that is none.
 */
import { isIPv4, isIPv6 } from "node:net";
import type { ReversePath } from "./address.ts";
import { canonicalDomain, type CanonicalDomain } from "./domain.ts";
import { fieldBody, headerFields, type HeaderField } from "./header.ts";

/** Stands for a host that gave no name that a header may carry; it cannot exist (RFC 2606 §2). */
export const unknownName = "unknown.invalid";

export interface ReceivedInput {
  /** What the client called itself in EHLO or HELO; hostile until proven otherwise. */
  readonly heloName: string;
  /** The client's IP address as the socket gives it. */
  readonly address: string;
  readonly hostname: CanonicalDomain;
  readonly protocol: {
    /** EHLO, as opposed to HELO. */
    readonly ehlo: boolean;
    readonly tls?: TlsFacts | undefined;
    readonly smtpUtf8: boolean;
  };
  /** Who the client proved to be; absent for our own servers. */
  readonly partner?: PinnedPartner | undefined;
  readonly id: string;
  /** The one recipient; absent if there are several, which must not learn of each other (RFC 5321 §7.2). */
  readonly forRecipient?: string | undefined;
  readonly now: Date;
}

export interface TlsFacts {
  /** As TLS libraries write it: `TLSv1.3`. */
  readonly version: string;
  readonly cipher: string;
  /** Key agreement: `X25519MLKEM768`. */
  readonly group?: string | undefined;
}

export interface PinnedPartner {
  readonly name: string;
  /** The kind of pin and its value: `spki sha256/…`. */
  readonly pinText: string;
}

/** The Received field (time-stamp line) for a message that we take, folded, ending in CRLF. */
export function receivedField(input: ReceivedInput): string {
  const { protocol, forRecipient } = input;
  const tcpInfo = addressLiteral(input.address);
  const lines = [`Received: from ${extendedDomain(input.heloName)}${tcpInfo === undefined ? "" : ` (${tcpInfo})`}`];
  if (protocol.tls !== undefined) lines.push(...tlsComment(protocol.tls, input.partner));
  const by = `by ${input.hostname} with ${transmissionType(protocol)} id ${atomText(input.id)}`;
  if (forRecipient !== undefined && fitsForClause(forRecipient, protocol.smtpUtf8)) {
    lines.push(by, `for <${forRecipient}>;`);
  } else {
    lines.push(`${by};`);
  }
  lines.push(dateTime(input.now));
  return `${lines.join("\r\n\t")}\r\n`;
}

/**
 * The Authentication-Results field that tells internal servers which partner this is. No method for TLS client
 * certificates is registered ("auth" is SMTP AUTH, RFC 8601 §2.7.4), so it is one of our own, which §2.7.6 allows
 * within an administrative domain; who does not know it ignores it (§2.7.6). The null reverse-path is `""`.
 */
export function authenticationResultsField(input: {
  readonly authservId: CanonicalDomain;
  readonly partner: PinnedPartner;
  readonly reversePath: ReversePath;
  readonly smtpUtf8: boolean;
}): string {
  const { partner, reversePath } = input;
  const lines = [
    `Authentication-Results: ${input.authservId};`,
    `x-client-cert=pass (partner ${commentText(partner.name)})`,
    `policy.pin=${quotedString(partner.pinText)}`,
  ];
  const sender = mailFromValue(reversePath);
  if (input.smtpUtf8 || isAscii(sender)) lines.push(`smtp.mailfrom=${sender}`);
  return `${lines.join("\r\n\t")}\r\n`;
}

export interface TraceFindings {
  /** Received fields. */
  readonly hops: number;
  /** Received fields that we made ourselves: the message has been here before. */
  readonly loops: number;
  /**
   * Authentication-Results fields that a reader inside could take for ours, to be removed (RFC 8601 §5): those with
   * our authserv-id however spelled, those of a version that is not 1, and those outside the grammar, whose
   * authserv-id different readers see in different places, or nowhere (some senders leave it out). Also a first line
   * that begins with white space: it would continue the field that we put above it, which is our own result.
   */
  readonly forged: HeaderField[];
}

/** Reads the trace fields of a message that arrives, before our own are put above it. */
export function inspectTrace(block: Buffer, hostname: CanonicalDomain): TraceFindings {
  const forged: HeaderField[] = [];
  let hops = 0;
  let loops = 0;
  for (const field of headerFields(block)) {
    switch (field.name) {
      case "received":
        hops += 1;
        if (byDomain(textOf(block, field)) === hostname) loops += 1;
        break;
      case "authentication-results":
        if (!isResultOfAnother(textOf(block, field), hostname)) forged.push(field);
        break;
      case "":
        if (continuesOurs(block, field) || looksLikeResult(block, field)) forged.push(field);
        break;
    }
  }
  return { hops, loops, forged };
}

/** Is it the first line, and folded? Then it hangs on what stands above it. The next server drops a leading dot. */
function continuesOurs(block: Buffer, field: HeaderField): boolean {
  return field.start === 0 && /^\.?[ \t]/.test(block.toString("latin1", 0, 2));
}

/** A name that is cut off from its colon, or has an odd octet behind it: some reader may see through that. */
function looksLikeResult(block: Buffer, field: HeaderField): boolean {
  return /^authentication-results/i.test(fieldBody(block, field));
}

/** A date as RFC 5322 §3.3 writes it, in UTC: `Tue, 24 Nov 2026 03:00:00 +0000`. */
export function dateTime(date: Date): string {
  if (Number.isNaN(date.getTime())) throw new RangeError("not a date");
  return date.toUTCString().replace("GMT", "+0000");
}

/**
 * What a client called itself, if that is a domain or an address literal (RFC 5321 §4.1.3), in a form that is safe in
 * a header; else {@link unknownName}. What was really said is in the log.
 */
export function extendedDomain(heloName: string): string {
  const literal = /^\[(?:(?<v6>ipv6):)?(?<address>[^\]]*)\]$/i.exec(heloName)?.groups;
  if (literal !== undefined) {
    const { v6, address = "" } = literal;
    const isSound = v6 === undefined ? isIPv4(address) : isIPv6(address) && !address.includes("%");
    return isSound ? `[${v6 === undefined ? "" : "IPv6:"}${address}]` : unknownName;
  }
  const canonical = canonicalDomain(heloName);
  if (canonical === undefined) return unknownName;
  return isAscii(heloName) ? heloName.replace(/\.$/, "") : canonical;
}

/** An IP address as an address literal (RFC 5321 §4.1.3); undefined if it is none. */
export function addressLiteral(address: string): string | undefined {
  const plain = address.replace(/%.*$/s, "").replace(/^::ffff:(?=[\d.]+$)/i, "");
  if (isIPv4(plain)) return `[${plain}]`;
  return isIPv6(plain) ? `[IPv6:${plain}]` : undefined;
}

/** The "with" keyword (IANA: Mail Transmission Types, RFC 3848, RFC 6531 §4.3). HELO has one only, with TLS and without. */
function transmissionType(protocol: ReceivedInput["protocol"]): string {
  if (!protocol.ehlo) return "SMTP";
  return `${protocol.smtpUtf8 ? "UTF8SMTP" : "ESMTP"}${protocol.tls === undefined ? "" : "S"}`;
}

function tlsComment(tls: TlsFacts, partner: PinnedPartner | undefined): string[] {
  const group = tls.group === undefined ? "" : `, group ${commentText(tls.group)}`;
  const session = `(using ${commentText(tls.version)} with cipher ${commentText(tls.cipher)}${group}`;
  if (partner === undefined) return [`${session})`];
  return [
    `${session};`,
    ` client certificate of partner ${commentText(partner.name)}`,
    ` pinned by ${commentText(partner.pinText)})`,
  ];
}

/** Is it an address that the "for" clause has a form for? Bare `postmaster` is not. It has been parsed before. */
function fitsForClause(recipient: string, smtpUtf8: boolean): boolean {
  // eslint-disable-next-line no-control-regex -- it is about control characters
  const isSound = recipient.includes("@") && recipient.length <= 254 && !/[\u0000-\u001f\u007f]/.test(recipient);
  return isSound && (smtpUtf8 || isAscii(recipient));
}

/** The reverse-path as a pvalue (RFC 8601 §2.2): an address with a domain of several labels, or a quoted-string. */
function mailFromValue(reversePath: ReversePath): string {
  if (reversePath.kind === "null") return '""';
  const { address, domain } = reversePath.mailbox;
  return domain.includes(".") ? address : quotedString(address);
}

/** Words in a comment (RFC 5322 §3.2.2) without what would need quoting. */
function commentText(text: string): string {
  return text.replaceAll(/[^ -'*-[\]-~]/g, "?").slice(0, 200);
}

/** An atom with dots (RFC 5322 §3.2.3). Ids are ours, so this changes none that we make. */
export function atomText(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]/g, "-").slice(0, 255);
}

function quotedString(text: string): string {
  // eslint-disable-next-line no-control-regex -- it is about control characters
  return `"${text.replaceAll(/[\u0000-\u001f\u007f]/g, "?").replaceAll(/["\\]/g, "\\$&")}"`;
}

function isAscii(text: string): boolean {
  return /^[ -~]*$/.test(text);
}

/** The body of a field, read as UTF-8: domain names may be in it as U-labels (RFC 6531 §3.7.3). */
function textOf(block: Buffer, field: HeaderField): string {
  return Buffer.from(fieldBody(block, field), "latin1").toString();
}

/** The domain of the "by" clause. Behind "from" stands a name, even if it is "by". */
function byDomain(received: string): CanonicalDomain | undefined {
  let previous = "";
  for (const token of tokensOf(received)) {
    if (token.kind === "special" && token.text === ";") return undefined;
    const word = token.kind === "word" ? token.text : "";
    if (previous === "by") return canonicalDomain(word);
    previous = previous === "from" ? "" : word.toLowerCase();
  }
  return undefined;
}

/**
 * Does an Authentication-Results body name, beyond doubt, another authentication service?
 * `[CFWS] authserv-id [ CFWS authres-version ]`, then ";" (RFC 8601 §2.2).
 */
function isResultOfAnother(body: string, hostname: CanonicalDomain): boolean {
  const tokens = tokensOf(body);
  const id = tokens.next().value;
  if (id === undefined || (id.kind !== "word" && id.kind !== "quoted")) return false;
  let behind = tokens.next().value;
  if (behind?.kind === "word") {
    if (!/^0*1$/.test(behind.text)) return false;
    behind = tokens.next().value;
  }
  const isGrammatical = behind === undefined || (behind.kind === "special" && behind.text === ";");
  if (!isGrammatical) return false;
  const domain = canonicalDomain(id.text.replaceAll(/\s/g, ""));
  return domain === undefined ? !id.text.toLowerCase().includes(hostname) : domain !== hostname;
}

interface Token {
  /** "broken": a comment or a quoted-string that never ends. */
  readonly kind: "word" | "quoted" | "special" | "broken";
  readonly text: string;
}

const wordPattern = /[^\s()<>@,;:\\"/[\]?=]+/y; // token of RFC 2045 §5.1, and octets above ASCII

/** The tokens of an unfolded structured field body; comments and white space only part them (RFC 5322 §3.2). */
function* tokensOf(text: string): Generator<Token, undefined> {
  let at = 0;
  while (at < text.length) {
    const character = text.charAt(at);
    if (character === "(" || character === '"') {
      const end = character === "(" ? endOfComment(text, at) : endOfQuotedString(text, at);
      if (end === undefined) yield { kind: "broken", text: text.slice(at) };
      else if (character === '"')
        yield { kind: "quoted", text: text.slice(at + 1, end - 1).replaceAll(/\\(.)/gs, "$1") };
      at = end ?? text.length;
    } else if (/\s/.test(character)) {
      at += 1;
    } else {
      wordPattern.lastIndex = at;
      const word = wordPattern.exec(text)?.[0];
      yield word === undefined ? { kind: "special", text: character } : { kind: "word", text: word };
      at += word?.length ?? 1;
    }
  }
}

/** Where the comment that begins at `start` ends: comments nest, and a backslash quotes (RFC 5322 §3.2.2). */
function endOfComment(text: string, start: number): number | undefined {
  let depth = 0;
  for (let at = start; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\\") at += 1;
    else if (character === "(") depth += 1;
    else if (character === ")" && (depth -= 1) === 0) return at + 1;
  }
  return undefined;
}

function endOfQuotedString(text: string, start: number): number | undefined {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === '"') return at + 1;
  }
  return undefined;
}
