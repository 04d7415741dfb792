/**
 * Mailboxes and paths as SMTP writes them (RFC 5321 §4.1.2, RFC 6531 §3.3): parsed once, at the edge, and compared by
 * meaning from then on, while the bytes that the client wrote are what is forwarded.
 *
 * Promises: a mailbox has one canonical form, whatever its spelling (quoting, case and encoding of the domain, trailing
 * dot); anything outside the grammar is refused with the reason. Pure.
 */
import { canonicalDomain, type CanonicalDomain } from "./domain.ts";

/** An address with a domain. */
export interface Mailbox {
  /** The address as it is sent on: the local part verbatim, the domain as written but for a trailing dot. */
  readonly address: string;
  /** The local part with quoting undone: what RFC 5321 §2.3.11 leaves to the receiving host to interpret. */
  readonly localPart: string;
  readonly domain: CanonicalDomain;
  /** Does it need SMTPUTF8 (RFC 6531 §3.1): is any octet of `address` outside ASCII? */
  readonly internationalized: boolean;
}

/** Where reports about a message go: a mailbox, or nowhere (`<>`, RFC 5321 §4.5.5). */
export type ReversePath = { readonly kind: "null" } | { readonly kind: "mailbox"; readonly mailbox: Mailbox };

/** A recipient: a mailbox, or the bare `<postmaster>` that every server takes (RFC 5321 §4.5.1). */
export type ForwardPath = { readonly kind: "postmaster" } | { readonly kind: "mailbox"; readonly mailbox: Mailbox };

export type AddressFault =
  | "syntax" // outside the grammar
  | "tooLong" // RFC 5321 §4.5.3.1
  | "domain" // no valid domain name
  | "addressLiteral" // user@[192.0.2.1]: mail goes by domain here
  | "routing" // the local part routes on: user%host@relay, host!user@relay
  | "notAscii"; // UTF-8 without SMTPUTF8

export type Parsed<T> =
  { readonly kind: "ok"; readonly value: T } | { readonly kind: "fault"; readonly fault: AddressFault };

const localPartOctetsMax = 64; // RFC 5321 §4.5.3.1.1
const pathOctetsMax = 256; // RFC 5321 §4.5.3.1.3, with the angle brackets

// eslint-disable-next-line no-control-regex -- the grammar is about control characters
const control = /[\u0000-\u001f\u007f-\u009f]/u;
/**
 * What nobody can see: formatting, bidirectional and ignorable characters, and every space but the ASCII one. No mailbox
 * needs them, and two that differ by one look alike. U+FFFD stands for octets that were not UTF-8: they are lost, and the
 * address with them.
 */
const invisible =
  /[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufffc-\uffff]/u;
const atomText = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\u{10ffff}-]+$/u;
const sourceRoute = /^@[^\s,:@<>]+(?:,@[^\s,:@<>]+)*:/;
const nonAscii = /[^\u0000-\u007f]/u; // eslint-disable-line no-control-regex

/**
 * Parses a mailbox. `text` is without angle brackets, decoded as UTF-8.
 * @param smtpUtf8 may octets outside ASCII stand in it (RFC 6531)?
 */
export function parseMailbox(text: string, smtpUtf8: boolean): Parsed<Mailbox> {
  if (Buffer.byteLength(text) + 2 > pathOctetsMax) return fault("tooLong");
  if (control.test(text) || invisible.test(text) || !text.isWellFormed()) return fault("syntax");
  const split = splitAtDomain(text);
  if (split === undefined) return fault("syntax");
  const localPart = unquote(split.local);
  if (localPart === undefined) return fault("syntax");
  if (Buffer.byteLength(split.local) > localPartOctetsMax) return fault("tooLong");
  if (split.domain.startsWith("[")) return fault("addressLiteral");
  const internationalized = nonAscii.test(text);
  if (internationalized && !smtpUtf8) return fault("notAscii");
  const domain = canonicalDomain(split.domain);
  if (domain === undefined) return fault("domain");
  const written = split.domain.endsWith(".") ? split.domain.slice(0, -1) : split.domain;
  return {
    kind: "ok",
    value: { address: `${split.local}@${written}`, localPart, domain, internationalized },
  };
}

/** Parses what stands between the angle brackets of MAIL FROM. A source route is dropped (RFC 5321 appendix C). */
export function parseReversePath(text: string, smtpUtf8: boolean): Parsed<ReversePath> {
  if (text === "") return { kind: "ok", value: { kind: "null" } };
  return asPath(parseMailbox(text.replace(sourceRoute, ""), smtpUtf8));
}

/**
 * Parses what stands between the angle brackets of RCPT TO. Beyond the grammar it refuses local parts that ask us to
 * route on (`user%elsewhere`, `elsewhere!user`, `user@elsewhere` in quotes): those are attempts to relay.
 */
export function parseForwardPath(text: string, smtpUtf8: boolean): Parsed<ForwardPath> {
  const direct = text.replace(sourceRoute, "");
  if (direct.toLowerCase() === "postmaster") return { kind: "ok", value: { kind: "postmaster" } };
  const parsed = parseMailbox(direct, smtpUtf8);
  if (parsed.kind === "ok" && /[%!@]/.test(parsed.value.localPart)) return fault("routing");
  return asPath(parsed);
}

/** One string per mailbox: equal exactly if the two are the same mailbox. The local part's case counts (§2.4). */
export function mailboxKey(mailbox: Mailbox): string {
  return `${mailbox.localPart.normalize("NFC")}@${mailbox.domain}`;
}

/** Is it the postmaster, in any case of letters (RFC 5321 §4.5.1)? */
export function isPostmaster(mailbox: Mailbox): boolean {
  return mailbox.localPart.toLowerCase() === "postmaster";
}

/** A path as it stands in a command, without angle brackets: `""` for the null reverse-path. */
export function pathText(path: ReversePath | ForwardPath): string {
  switch (path.kind) {
    case "null":
      return "";
    case "postmaster":
      return "postmaster";
    case "mailbox":
      return path.mailbox.address;
  }
}

function splitAtDomain(text: string): { local: string; domain: string } | undefined {
  if (text.startsWith('"')) {
    const end = /^"(?:[^"\\]|\\[ -~])*"/u.exec(text)?.[0].length;
    if (end === undefined || text[end] !== "@") return undefined;
    return { local: text.slice(0, end), domain: text.slice(end + 1) };
  }
  const at = text.indexOf("@");
  if (at < 0 || text.indexOf("@", at + 1) >= 0) return undefined;
  return { local: text.slice(0, at), domain: text.slice(at + 1) };
}

/** The meaning of a Dot-string or Quoted-string (RFC 5321 §4.1.2), or undefined if it is neither. */
function unquote(local: string): string | undefined {
  if (local.startsWith('"')) {
    const content = local.slice(1, -1);
    return content === "" ? undefined : content.replaceAll(/\\(.)/gu, "$1");
  }
  return local.split(".").every((atom) => atomText.test(atom)) ? local : undefined;
}

function asPath(parsed: Parsed<Mailbox>): Parsed<{ kind: "mailbox"; mailbox: Mailbox }> {
  return parsed.kind === "ok" ? { kind: "ok", value: { kind: "mailbox", mailbox: parsed.value } } : parsed;
}

function fault<T>(kind: AddressFault): Parsed<T> {
  return { kind: "fault", fault: kind };
}
