/**
 * Who a message says it is from: the mailboxes of a From field (RFC 5322 §3.6.2, RFC 6854 groups apart).
 *
 * Promises: strict, so that no two readers can see different mailboxes in what is taken: anything beyond names, comments
 * and mailboxes separated by commas is `undefined`, "cannot be told". Linear. Pure.
 */
import { parseMailbox, type Mailbox } from "./address.ts";

const commentDepthMax = 8;

/** @param body the field's body, unfolded, one character for each octet. */
export function fromMailboxes(body: string): Mailbox[] | undefined {
  const parts = splitList(Buffer.from(body, "latin1").toString("utf8"));
  if (parts === undefined) return undefined;
  const mailboxes = parts.map(({ display, address }) => mailboxOf(display, address));
  return mailboxes.every((mailbox) => mailbox !== undefined) ? mailboxes : undefined;
}

interface Part {
  /** What stands outside angle brackets, comments taken away, quoted strings as a pair of quotes. */
  readonly display: string;
  /** What stands within angle brackets; undefined: there were none, and `display` is the address. */
  readonly address: string | undefined;
}

function mailboxOf(display: string, address: string | undefined): Mailbox | undefined {
  // Without brackets the whole is the address; with them nothing of the name may look like one.
  if (address === undefined) return mailboxAt(display);
  return /[@<>,;:\\[\]]/.test(display.replaceAll(/"(?:[^"\\]|\\.)*"/gs, "")) ? undefined : mailboxAt(address);
}

function mailboxAt(text: string): Mailbox | undefined {
  const parsed = parseMailbox(text.trim(), true);
  return parsed.kind === "ok" ? parsed.value : undefined;
}

/** Splits at commas outside of quotes, comments and brackets; undefined where these do not close. */
function splitList(text: string): Part[] | undefined {
  const parts: Part[] = [];
  let display = "";
  let address: string | undefined;
  let at = 0;
  while (at < text.length) {
    const character = text[at] ?? "";
    if (character === '"') {
      const end = endOfQuoted(text, at);
      if (end === undefined) return undefined;
      display += text.slice(at, end);
      at = end;
    } else if (character === "(") {
      const end = endOfComment(text, at);
      if (end === undefined) return undefined;
      display += " ";
      at = end;
    } else if (character === "<") {
      const end = endOfBrackets(text, at);
      if (address !== undefined || end === undefined) return undefined;
      address = text.slice(at + 1, end - 1);
      at = end;
      // Behind the brackets only comments and white space may come.
      const rest = restOfPart(text, at);
      if (rest === undefined) return undefined;
      at = rest;
    } else if (character === ",") {
      parts.push({ display, address });
      display = "";
      address = undefined;
      at += 1;
    } else {
      display += character;
      at += 1;
    }
  }
  parts.push({ display, address });
  return parts;
}

/** From behind the brackets to the comma or the end. */
function restOfPart(text: string, from: number): number | undefined {
  let at = from;
  while (at < text.length && text[at] !== ",") {
    if (text[at] === "(") {
      const end = endOfComment(text, at);
      if (end === undefined) return undefined;
      at = end;
    } else if (text[at] === " " || text[at] === "\t") {
      at += 1;
    } else {
      return undefined;
    }
  }
  return at;
}

function endOfQuoted(text: string, from: number): number | undefined {
  for (let at = from + 1; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === '"') return at + 1;
  }
  return undefined;
}

/** Within brackets quotes may hold what would end them. */
function endOfBrackets(text: string, from: number): number | undefined {
  for (let at = from + 1; at < text.length; at += 1) {
    if (text[at] === '"') {
      const end = endOfQuoted(text, at);
      if (end === undefined) return undefined;
      at = end - 1;
    } else if (text[at] === ">") {
      return at + 1;
    } else if (text[at] === "<") {
      return undefined;
    }
  }
  return undefined;
}

function endOfComment(text: string, from: number): number | undefined {
  let depth = 0;
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "(" && (depth += 1) > commentDepthMax) return undefined;
    else if (text[at] === ")" && (depth -= 1) === 0) return at + 1;
  }
  return undefined;
}
