/**
 * Whether a server is worth trying: after a failure it is left alone for a while that doubles up to a limit, and then one
 * attempt finds out, so that a dead server is probed and not hammered. Attempts that were under way together and failed
 * together count once. Pure: the clock is passed in.
 */
const firstPauseMs = 5_000;
const longestPauseMs = 5 * 60_000;

/** What an attempt began in; to be handed back when it ends. */
export type Era = number;

export class Breaker {
  #failures = 0;
  #resumesAtMs = 0;
  #probing = false;
  /** Changes with every failure that counts. */
  #era: Era = 0;

  /** For an attempt that needed no leave, over a connection that was open already. */
  get era(): Era {
    return this.#era;
  }

  /** May an attempt be made now? While a failed server is probed, by one attempt only. */
  mayTry(nowMs: number): boolean {
    if (this.#failures === 0) return true;
    // A clock that was set back must not lengthen the pause.
    if (this.#resumesAtMs - nowMs > longestPauseMs) this.#resumesAtMs = nowMs;
    return nowMs >= this.#resumesAtMs && !this.#probing;
  }

  /** An attempt begins; exactly one of `succeeded`, `failed` and `released` ends it. */
  tried(): Era {
    this.#probing = this.#failures > 0;
    return this.#era;
  }

  /** A success that began before the last failure tells nothing new: the server may take no more connections. */
  succeeded(era: Era): void {
    if (era !== this.#era) return;
    this.#failures = 0;
    this.#probing = false;
  }

  failed(nowMs: number, era: Era): void {
    if (era !== this.#era) return;
    this.#era += 1;
    this.#probing = false;
    this.#resumesAtMs = nowMs + Math.min(longestPauseMs, firstPauseMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
  }

  /** The attempt was given up, and tells nothing about the server. */
  released(era: Era): void {
    if (era === this.#era) this.#probing = false;
  }

  /** When it is worth to look again, in milliseconds since 1970; undefined: now. */
  retryAtMs(nowMs: number): number | undefined {
    return this.#failures === 0 || nowMs >= this.#resumesAtMs ? undefined : this.#resumesAtMs;
  }
}
