/**
 * How many TLS handshakes each address has begun of late: a handshake is what costs us most of all that a peer may ask
 * for before it has shown who it is. What is kept is bounded: of too many addresses those go that were not seen for
 * longest. Pure: the clock is passed in.
 */
import { TokenBucket } from "./token-bucket.ts";

const addressesMax = 10_000;
const minuteMs = 60_000;

export class HandshakeRates {
  /** The one that was not seen for longest is the first. */
  readonly #byAddress = new Map<string, TokenBucket>();

  get addresses(): number {
    return this.#byAddress.size;
  }

  /** May one more handshake begin? It is counted if so. */
  take(address: string, perMinute: number, nowMs: number): boolean {
    const rate = { amount: perMinute, periodMs: minuteMs };
    const bucket = this.#byAddress.get(address) ?? new TokenBucket(rate, nowMs);
    bucket.setRate(rate);
    this.#byAddress.delete(address);
    this.#byAddress.set(address, bucket);
    if (this.#byAddress.size > addressesMax) this.#forgetOldest();
    if (!bucket.holds(1, nowMs)) return false;
    bucket.take(1, nowMs);
    return true;
  }

  #forgetOldest(): void {
    for (const address of this.#byAddress.keys()) {
      this.#byAddress.delete(address);
      return;
    }
  }
}
