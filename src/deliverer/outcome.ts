/**
 * What became of an attempt, per recipient. Temporary is the answer to everything unknown: only a 5xx that the next hop
 * gave to this very message, or what it cannot carry, is permanent. Pure.
 *
 * Promises: what a remote said leaves here as text of bounded length, without control characters; only its line breaks
 * (LF) are kept.
 */
import type { NextHop } from "../partner/partner.ts";

export type DeliveryOutcome =
  | {
      readonly kind: "delivered";
      readonly reply: string;
      /** Has the next hop taken over the DSN requests? */ readonly dsnPassedOn: boolean;
    }
  | {
      readonly kind: "failed";
      readonly status: string;
      readonly text: string;
      /** The remote's words, if they are. */ readonly remote: boolean;
    }
  | { readonly kind: "temporary"; readonly status: string; readonly text: string; readonly remote: boolean };

/** A server that could not be used, or not now: the next one of the route is tried, and the message waits if there is none. */
export class HopFault extends Error {
  readonly status: string;
  /** Were these the remote's words? */
  readonly remote: boolean;
  /** Had the message been sent to its end, so that the server may have taken it? */
  readonly afterData: boolean;
  constructor(
    status: string,
    message: string,
    options: { remote?: boolean; afterData?: boolean; cause?: unknown } = {},
  ) {
    super(boundedText(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HopFault";
    this.status = status;
    this.remote = options.remote ?? false;
    this.afterData = options.afterData ?? false;
  }
}

const replyPattern = /^([45])\d\d(?:[ -]([45]\.\d{1,3}\.\d{1,3})(?= |$))?/;

/** The outcome that a refusing reply means (RFC 5321 §4.2.1): 5xx is for good, all else may pass. */
export function refusalOutcome(reply: string): Exclude<DeliveryOutcome, { kind: "delivered" }> {
  const match = replyPattern.exec(reply);
  const permanent = match?.[1] === "5";
  const given = match?.[2];
  const status = given?.[0] === match?.[1] && given !== undefined ? given : permanent ? "5.0.0" : "4.0.0";
  return { kind: permanent ? "failed" : "temporary", status, text: boundedText(reply), remote: true };
}

/** Does the reply refuse the command, rather than end the connection (421) or make no sense? */
export function isRefusal(reply: string): boolean {
  return /^[45]\d\d/.test(reply) && !reply.startsWith("421");
}

/**
 * Is it a reply (RFC 5321 §4.2.1: every line with the same code), its lines separated by LF? What is not tells that the
 * two sides do not talk about the same thing any more, and nothing is concluded from it.
 */
export function isReply(text: string): boolean {
  const code = text.slice(0, 3);
  if (!/^[2-5]\d\d$/.test(code)) return false;
  const lines = text.split("\n");
  const last = lines.pop() ?? "";
  return /^...(?: |$)/.test(last) && last.startsWith(code) && lines.every((line) => line.startsWith(`${code}-`));
}

/** An error of the connection as a fault of the server, in the remote's words if there were any. */
export function hopFault(error: unknown, phase: "connecting" | "envelope" | "content" | "end"): HopFault {
  if (error instanceof HopFault) return error;
  const details = error instanceof Error ? error : new Error(String(error));
  const afterData = phase === "end";
  const reply = textOf(details, "response");
  if (reply !== undefined) {
    return new HopFault(temporaryStatus(reply), reply, { remote: true, afterData, cause: error });
  }
  // The library overwrites the system's code and keeps it here.
  const code = textOf(details, "originalCode") ?? textOf(details, "code") ?? "";
  // CERT_HAS_EXPIRED, UNABLE_TO_VERIFY_LEAF_SIGNATURE and their kind are OpenSSL's verdicts on a chain.
  const isTls = code === "ETLS" || /^ERR_(?:SSL|TLS)/.test(code) || /^[A-DF-Z][A-Z]+_/.test(code);
  const status = isTls ? "4.7.5" : phase === "connecting" ? "4.4.1" : "4.4.2";
  return new HopFault(status, details.message, { afterData, cause: error });
}

/** The server says goodbye (421). Whatever it answers with that was not taken. */
export function closingFault(reply: string): HopFault {
  return new HopFault(temporaryStatus(reply), reply, { remote: true });
}

/** Whatever a server says of itself may pass: a 5xx that was not about the message counts as its 4xx. */
function temporaryStatus(reply: string): string {
  const given = replyPattern.exec(reply)?.[2];
  return given === undefined ? "4.3.2" : `4${given.slice(1)}`;
}

function textOf(error: Error, key: string): string | undefined {
  const value = (error as Error & Record<string, unknown>)[key];
  return typeof value === "string" ? value : undefined;
}

const charactersMax = 1_000;

/** Foreign words, bounded, and with nothing in them that moves a cursor or ends a string. */
export function boundedText(text: string): string {
  const kept = text.slice(0, charactersMax).toWellFormed();
  const plain = kept.replaceAll(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd");
  return text.length > charactersMax ? `${plain} [...]` : plain;
}

/** A server for logs and the queue: its name, if it has one, address and port. */
export function serverText(hop: NextHop): string {
  const address = hop.address.includes(":") ? `[${hop.address}]` : hop.address;
  return `${hop.name === undefined ? "" : `${hop.name} `}${address}:${hop.port}`;
}
