/**
 * How long the deliverer waits, and how much it holds: every deadline and bound of it, in one object, so that a test may
 * make one short. The time limits of RFC 5321 §4.5.3.2 are minimums, and these keep them.
 */
export interface DeliveryLimits {
  // one connection
  readonly connectTimeoutMs: number;
  readonly greetingTimeoutMs: number;
  /** For each reply on the way to the content, and for the TLS handshake. */
  readonly replyTimeoutMs: number;
  /** For all replies to one envelope together. */
  readonly envelopeTimeoutMs: number;
  /** For each piece of the content to be taken. */
  readonly blockTimeoutMs: number;
  /** A server that takes a content more slowly than this, on the whole, is given up. */
  readonly bytesPerSecondMin: number;
  /** From the final dot to the reply. */
  readonly endTimeoutMs: number;
  /** From QUIT to its reply; nothing depends on it any more. */
  readonly quitTimeoutMs: number;
  readonly messagesPerConnectionMax: number;
  // one route
  readonly connectionsPerRouteMax: number;
  readonly idleConnectionMs: number;
  /** Messages that may wait for one route; fewer for each where several routes are busy. */
  readonly waitingPerRouteMax: number;
  readonly recipientsPerTransactionMax: number;
  // the whole
  /** Messages that may wait for routes, all together; a route that nobody else waits for can always take some. */
  readonly waitingMax: number;
  /** Messages that are claimed at a time; and those that are being planned, settled or put back. */
  readonly claimMax: number;
  readonly unplacedMax: number;
  readonly scanIntervalMs: number;
  /** After a fault of the spool: how long before it is tried again. */
  readonly faultPauseMs: number;
}

const secondMs = 1_000;
const minuteMs = 60 * secondMs;

export const deliveryLimits: DeliveryLimits = {
  connectTimeoutMs: 30 * secondMs,
  greetingTimeoutMs: 5 * minuteMs, // §4.5.3.2.1
  replyTimeoutMs: 5 * minuteMs, // §4.5.3.2.2 MAIL, .3 RCPT; .4 wants two minutes for DATA
  envelopeTimeoutMs: 60 * minuteMs,
  blockTimeoutMs: 3 * minuteMs, // §4.5.3.2.5
  bytesPerSecondMin: 2_000,
  endTimeoutMs: 10 * minuteMs, // §4.5.3.2.6
  quitTimeoutMs: 5 * secondMs,
  messagesPerConnectionMax: 1_000,
  connectionsPerRouteMax: 5,
  idleConnectionMs: 5 * secondMs,
  waitingPerRouteMax: 500,
  recipientsPerTransactionMax: 100, // what every server must take: RFC 5321 §4.5.3.1.8
  waitingMax: 1_000,
  claimMax: 100,
  unplacedMax: 300,
  scanIntervalMs: secondMs,
  faultPauseMs: 5 * secondMs,
};
