/**
 * The arguments of MAIL and RCPT (RFC 5321 §4.1.1.2, §4.1.1.3): a path and parameters, parsed from the octets of the
 * line. The rule for parameters is default deny: one that is not listed here gets 555 (§4.1.1.11), one given twice 501.
 * Pure; an answer is the command or the reply.
 */
import {
  parseForwardPath,
  parseReversePath,
  type AddressFault,
  type ForwardPath,
  type ReversePath,
} from "../mail/address.ts";
import type { Notify } from "../mail/envelope.ts";
import type { ReplyName } from "../mail/reply.ts";

export interface MailCommand {
  readonly reversePath: ReversePath;
  /** SIZE= (RFC 1870), octets. */
  readonly declaredBytes: number | undefined;
  readonly body: "7bit" | "8bitmime";
  readonly smtpUtf8: boolean;
  readonly returnContent: "full" | "headers" | undefined;
  readonly envelopeId: string | undefined;
}

export interface RcptCommand {
  readonly forwardPath: ForwardPath;
  readonly notify: Notify | undefined;
  readonly originalRecipient: string | undefined;
}

export type ParsedCommand<T> =
  { readonly kind: "command"; readonly command: T } | { readonly kind: "refused"; readonly reply: ReplyName };

/** Parses a MAIL line. */
export function parseMail(line: Buffer): ParsedCommand<MailCommand> {
  const split = splitLine(line, "MAIL FROM");
  if (split === undefined) return refused("senderSyntax");
  const parameters = readParameters(split.parameters, mailParameters);
  if (typeof parameters === "string") return refused(parameters);
  const smtpUtf8 = parameters.has("SMTPUTF8");
  const path = parseReversePath(split.path, smtpUtf8);
  if (path.kind === "fault") return refused(senderFault(path.fault));
  const declared = parameters.get("SIZE");
  const command: MailCommand = {
    reversePath: path.value,
    declaredBytes: declared === undefined ? undefined : Number(declared),
    body: parameters.get("BODY")?.toUpperCase() === "8BITMIME" ? "8bitmime" : "7bit",
    smtpUtf8,
    returnContent: returnContent(parameters.get("RET")),
    envelopeId: parameters.get("ENVID"),
  };
  return { kind: "command", command };
}

/**
 * Parses an RCPT line.
 * @param smtpUtf8 was SMTPUTF8 given with MAIL (RFC 6531 §3.4)?
 */
export function parseRcpt(line: Buffer, smtpUtf8: boolean): ParsedCommand<RcptCommand> {
  const split = splitLine(line, "RCPT TO");
  if (split === undefined || split.path === "") return refused("recipientSyntax");
  const parameters = readParameters(split.parameters, rcptParameters);
  if (typeof parameters === "string") return refused(parameters);
  const path = parseForwardPath(split.path, smtpUtf8);
  if (path.kind === "fault") return refused(recipientFault(path.fault));
  const notify = parameters.get("NOTIFY");
  const command: RcptCommand = {
    forwardPath: path.value,
    notify: notify === undefined ? undefined : readNotify(notify),
    originalRecipient: parameters.get("ORCPT"),
  };
  return { kind: "command", command };
}

/** Parameter names and what their value must look like; null: it has none. Values are esmtp-value (§4.1.2). */
type ParameterRules = ReadonlyMap<string, RegExp | null>;

const mailParameters: ParameterRules = new Map([
  ["SIZE", /^\d{1,20}$/], // RFC 1870 §4
  ["BODY", /^(?:7BIT|8BITMIME)$/i], // RFC 6152 §2
  ["SMTPUTF8", null], // RFC 6531 §3.4
  ["RET", /^(?:FULL|HDRS)$/i], // RFC 3461 §4.3
  ["ENVID", xtext(1, 100)], // RFC 3461 §4.4
]);

const rcptParameters: ParameterRules = new Map([
  ["NOTIFY", /^(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2})$/i], // RFC 3461 §4.1
  // RFC 3461 §4.2. In the form of RFC 6533 §3 (`\x{41}`) a control character may hide as in xtext, and may as little.
  [
    "ORCPT",
    new RegExp(
      `^(?=.{1,500}$)(?!.*(?:[\\p{Cc}\\s]|\\\\x\\{0*(?:1?[0-9A-F]|7F)\\}))[A-Za-z0-9-]{1,40};${xtextOf("\\u0080-\\u{10ffff}")}+$`,
      "u",
    ),
  ],
]);

/** Splits `MAIL FROM:<path> parameters`; undefined unless it has that form. One space behind the colon is let pass. */
function splitLine(line: Buffer, verb: "MAIL FROM" | "RCPT TO"): { path: string; parameters: string } | undefined {
  const text = decodeUtf8(line);
  if (text === undefined) return undefined;
  const colon = text.indexOf(":");
  if (colon < 0 || text.slice(0, colon).trimEnd().toUpperCase() !== verb) return undefined;
  const match = /^ ?<((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>(?: +(.*))?$/u.exec(text.slice(colon + 1).trimEnd());
  return match === null ? undefined : { path: match[1] ?? "", parameters: match[2] ?? "" };
}

function readParameters(text: string, rules: ParameterRules): Map<string, string> | ReplyName {
  const read = new Map<string, string>();
  for (const parameter of text.split(" ").filter((part) => part !== "")) {
    const equals = parameter.indexOf("=");
    const name = (equals < 0 ? parameter : parameter.slice(0, equals)).toUpperCase();
    const rule = rules.get(name);
    if (rule === undefined) return "parameterUnknown";
    if (read.has(name)) return "parameterRepeated";
    const value = equals < 0 ? "" : parameter.slice(equals + 1);
    if (rule === null ? equals >= 0 : !rule.test(value)) return "parameterSyntax";
    read.set(name, value);
  }
  return read;
}

/** xtext of some length (RFC 3461 §4). */
function xtext(charactersMin: number, charactersMax: number): RegExp {
  return new RegExp(`^${xtextOf("")}{${charactersMin},${charactersMax}}$`);
}

/**
 * One character of xtext: printable ASCII without `+` and `=`, others as `+XX`, which must not hide controls; octets above
 * 127 stand for UTF-8, as Postfix writes them. The two forms begin differently, and must: an expression that could read one text in two ways would read it in 2^n ways.
 */
function xtextOf(more: string): string {
  return `(?:[!-*,-<>-~${more}]|\\+(?:[2-689A-F][0-9A-F]|7[0-9A-E]))`;
}

function readNotify(value: string): Notify {
  const wanted = value.toLowerCase().split(",");
  if (wanted.includes("never")) return "never";
  const kinds = ["success", "failure", "delay"] as const;
  return kinds.filter((kind) => wanted.includes(kind));
}

function returnContent(value: string | undefined): "full" | "headers" | undefined {
  if (value === undefined) return undefined;
  return value.toUpperCase() === "FULL" ? "full" : "headers";
}

function senderFault(fault: AddressFault): ReplyName {
  return fault === "notAscii" ? "internationalizedSender" : "senderSyntax";
}

/** Literals and routing local parts are refused as what they are: attempts to have us relay. */
function recipientFault(fault: AddressFault): ReplyName {
  switch (fault) {
    case "addressLiteral":
    case "routing":
      return "relayingDenied";
    case "notAscii":
      return "internationalizedRecipient";
    case "syntax":
    case "tooLong":
    case "domain":
      return "recipientSyntax";
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeUtf8(octets: Buffer): string | undefined {
  try {
    return utf8.decode(octets);
  } catch {
    return undefined; // not UTF-8: outside every grammar that we know
  }
}

function refused<T>(reply: ReplyName): ParsedCommand<T> {
  return { kind: "refused", reply };
}
