/**
 * A rate limit: a bucket that refills steadily, so that a burst up to one period's worth passes and the average holds.
 * What is more than a whole period's worth passes when the bucket is full, and leaves a debt: it would never pass
 * otherwise. A clock that is set back refills nothing and takes nothing away. Pure: the clock is passed in.
 */
export interface Rate {
  readonly amount: number;
  readonly periodMs: number;
}

/** What there was at a time; below zero: a debt. */
export interface BucketLevel {
  readonly tokens: number;
  readonly atMs: number;
}

export class TokenBucket {
  #rate: Rate;
  #tokens: number;
  #filledAtMs: number;

  /** @param level what there is; absent: it is full. */
  constructor(rate: Rate, nowMs: number, level?: BucketLevel) {
    this.#rate = rate;
    this.#tokens = Math.min(rate.amount, level?.tokens ?? rate.amount);
    this.#filledAtMs = level?.atMs ?? nowMs;
  }

  /** Works by another rate from now on, and holds no more than before: a new limit is no new period. */
  setRate(rate: Rate): void {
    if (rate.amount === this.#rate.amount && rate.periodMs === this.#rate.periodMs) return;
    this.#rate = rate;
    this.#tokens = Math.min(rate.amount, this.#tokens);
  }

  /** Is there so much, or, for what is larger than the bucket, is it full? */
  holds(amount: number, nowMs: number): boolean {
    this.#refill(nowMs);
    return this.#tokens >= Math.min(amount, this.#rate.amount);
  }

  /** Takes it, whether it is there or not; a negative amount gives back. */
  take(amount: number, nowMs: number): void {
    this.#refill(nowMs);
    this.#tokens = Math.min(this.#rate.amount, this.#tokens - amount);
  }

  /** Undefined if it is full: there is nothing to remember. */
  level(nowMs: number): BucketLevel | undefined {
    this.#refill(nowMs);
    return this.#tokens >= this.#rate.amount ? undefined : { tokens: this.#tokens, atMs: this.#filledAtMs };
  }

  #refill(nowMs: number): void {
    const passedMs = Math.max(0, nowMs - this.#filledAtMs);
    const { amount, periodMs } = this.#rate;
    this.#tokens = Math.min(amount, this.#tokens + (passedMs / periodMs) * amount);
    this.#filledAtMs = nowMs;
  }
}
