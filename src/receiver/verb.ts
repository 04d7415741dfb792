/**
 * Which command a line is: the commands that exist here, and what else a line may turn out to be. Pure.
 */

const verbs = ["EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT"] as const;

/** Commands that others know and we have no use for: they are answered with 502 (RFC 5321 §4.2.4). */
const notOffered = new Set(
  ["AUTH", "BDAT", "BURL", "ETRN", "EXPN", "HELP", "LHLO", "SAML", "SEND", "SOML", "TURN", "VRFY"].concat(
    "XCLIENT",
    "XFORWARD",
  ),
);

export type Verb = (typeof verbs)[number];

const known: ReadonlyMap<string, Verb> = new Map(verbs.map((verb) => [verb, verb]));
// eslint-disable-next-line no-control-regex -- it is about control characters; a tab is white space
const control = /[\u0000-\u0008\u000a-\u001f\u007f]/;
/** A web page that has its visitor's browser talk to us (cross-protocol attack). */
const httpRequest = / HTTP\/\d(?:\.\d)?\s*$/i;

/** The command of a line (without CRLF), or the name of the reply to what is none. */
export function verbOf(line: Buffer): Verb | "controlCharacter" | "notSmtp" | "notImplemented" | "unknownCommand" {
  const text = line.toString("latin1");
  if (control.test(text)) return "controlCharacter";
  const word = /^[A-Za-z]+(?=\s*$| )/.exec(text)?.[0].toUpperCase() ?? "";
  const verb = known.get(word);
  if (verb !== undefined) return verb;
  if (httpRequest.test(text)) return "notSmtp";
  return notOffered.has(word) ? "notImplemented" : "unknownCommand";
}
