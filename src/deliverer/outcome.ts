/**
 * What became of an attempt, per recipient. Temporary is the answer to everything unknown: only a 5xx that the next hop
 * gave to this very message, or what it cannot carry, is permanent. Pure.
 */

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

/** A server that could not be used at all: the next one of the route is tried, and the message waits if there is none. */
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
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HopFault";
    this.status = status;
    this.remote = options.remote ?? false;
    this.afterData = options.afterData ?? false;
  }
}

const replyPattern = /^([245])\d\d(?:[ -]([245]\.\d{1,3}\.\d{1,3})(?= |$))?/;

/** The outcome that a refusing reply means (RFC 5321 §4.2.1): 5xx is for good, all else may pass. */
export function refusalOutcome(reply: string): DeliveryOutcome {
  const match = replyPattern.exec(reply);
  const permanent = match?.[1] === "5";
  const given = match?.[2];
  const status = given?.[0] === match?.[1] && given !== undefined ? given : permanent ? "5.0.0" : "4.0.0";
  return { kind: permanent ? "failed" : "temporary", status, text: reply, remote: true };
}
