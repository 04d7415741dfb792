/**
 * A rate limit: a bucket that refills steadily, so that a burst up to one minute's worth passes and the average holds.
 * A clock that is set back refills nothing and takes nothing away. Pure: the clock is passed in.
 */
export class TokenBucket {
  readonly #perMinute: number;
  #tokens: number;
  #filledAtMs: number;

  constructor(perMinute: number, nowMs: number) {
    this.#perMinute = perMinute;
    this.#tokens = perMinute;
    this.#filledAtMs = nowMs;
  }

  /** Takes one token; false if there is none. */
  take(nowMs: number): boolean {
    const passedMs = Math.max(0, nowMs - this.#filledAtMs);
    this.#tokens = Math.min(this.#perMinute, this.#tokens + (passedMs / 60_000) * this.#perMinute);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
