/**
 * When to try again, when to say that it takes long, and when to give up (RFC 5321 §4.5.4.1).
 *
 * Promises: the next attempt is in the future and never further away than the longest delay, whatever the clock did in
 * between; a date that is none delays nothing and expires nothing. Pure: clock and randomness are passed in.
 */

/** Part of a delay by which it is made shorter or longer, so that what failed together is not tried together. */
const jitter = 0.1;

export interface AttemptHistory {
  /** Attempts made so far, those that never got a connection included. */
  readonly attempts: number;
  readonly arrivedAt: Date;
  readonly now: Date;
}

/** A message with the settings of `retry` that say when it is tried. */
export interface RetryInput extends AttemptHistory {
  /** Delay after the first attempt, after the second, …; the last one repeats. Never empty. */
  readonly scheduleMs: readonly number[];
  /** If given: an attempt that would fall behind the expiry is made at the expiry, so that the sender hears in time. */
  readonly expireMs?: number | undefined;
  /** A number from 0 up to 1, like Math.random. */
  readonly random: () => number;
}

/** When the next attempt is due, after `attempts` have failed; at once if none was made. */
export function nextAttemptAt(input: RetryInput): Date {
  const { attempts, scheduleMs, expireMs } = input;
  const nowMs = input.now.getTime();
  if (!(attempts >= 1)) return new Date(nowMs);
  const longestMs = Math.max(...scheduleMs);
  const delayMs = scheduleMs[Math.min(Math.floor(attempts), scheduleMs.length) - 1] ?? longestMs;
  const earliestMs = delayMs * (1 - jitter);
  const latestMs = Math.min(delayMs * (1 + jitter), longestMs);
  const waitMs = earliestMs + (latestMs - earliestMs) * input.random();
  const leftMs = expireMs === undefined ? Number.NaN : expireMs - ageMs(input);
  return new Date(nowMs + Math.round(leftMs > 0 && leftMs < waitMs ? leftMs : waitMs));
}

/**
 * Is an attempt due that was set for `nextAttempt`? Also if that is further away than any delay: then the clock was set
 * back since, and waiting for it could take years.
 */
export function isDue(nextAttempt: Date, now: Date, scheduleMs: readonly number[]): boolean {
  const waitMs = nextAttempt.getTime() - now.getTime();
  return !(waitMs > 0 && waitMs <= Math.max(...scheduleMs));
}

/** Is it time to give up? Never before an attempt was made: the relay itself may have been down for days. */
export function isExpired(input: AttemptHistory & { readonly expireMs: number }): boolean {
  return input.attempts >= 1 && ageMs(input) >= input.expireMs;
}

/** Is it time to tell the sender that the message is late? Once for each message, and only if it was tried at all. */
export function warnDue(
  input: AttemptHistory & { readonly warnAfterMs: number; readonly warnedAt?: Date | undefined },
): boolean {
  return input.warnedAt === undefined && input.attempts >= 1 && ageMs(input) >= input.warnAfterMs;
}

/** Negative where the clock was set back since. */
function ageMs(input: AttemptHistory): number {
  return input.now.getTime() - input.arrivedAt.getTime();
}
