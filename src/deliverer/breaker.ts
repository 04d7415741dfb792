/**
 * Whether a server is worth trying: after a failure it is left alone for a while that doubles up to a limit, and then one
 * attempt finds out, so that a dead server is probed and not hammered. Pure: the clock is passed in.
 */
const firstPauseMs = 5_000;
const longestPauseMs = 5 * 60_000;

export class Breaker {
  #failures = 0;
  #closedUntilMs = 0;
  #probing = false;

  /** May an attempt be made now? While a failed server is probed, by one attempt only. */
  mayTry(nowMs: number): boolean {
    if (this.#failures === 0) return true;
    // A clock that was set back must not lengthen the pause.
    if (this.#closedUntilMs - nowMs > longestPauseMs) this.#closedUntilMs = nowMs;
    return nowMs >= this.#closedUntilMs && !this.#probing;
  }

  /** An attempt begins. */
  tried(): void {
    this.#probing = this.#failures > 0;
  }

  succeeded(): void {
    this.#failures = 0;
    this.#probing = false;
  }

  failed(nowMs: number): void {
    this.#probing = false;
    this.#closedUntilMs = nowMs + Math.min(longestPauseMs, firstPauseMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
  }

  /** When it is worth to look again, in milliseconds since 1970; undefined: now. */
  retryAtMs(nowMs: number): number | undefined {
    return this.#failures === 0 || nowMs >= this.#closedUntilMs ? undefined : this.#closedUntilMs;
  }
}
