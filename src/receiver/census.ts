/**
 * Who is connected: counted, so that nobody takes the places of others. Shared by all listeners of a receiver.
 *
 * Promises: a connection has a seat from accept until its socket is closed, whichever way it goes, and leaves it once,
 * however often it is told to. Who is turned away takes no seat from those who are let in, but has few of its own:
 * strangers cost little, and their number costs partners nothing.
 */
import type { ReplyName } from "../mail/reply.ts";

export interface ConnectionLimits {
  readonly connectionsMax: number;
  readonly connectionsPerAddressMax: number;
  /** Of those that are being told that they are turned away. */
  readonly turnedAwayMax: number;
}

export type Admission =
  | { readonly kind: "admitted"; readonly seat: Seat }
  /** To be told so, and to go. */
  | { readonly kind: "turnedAway"; readonly reply: ReplyName; readonly seat: Seat }
  /** Too many are being told so already. */
  | { readonly kind: "dropped"; readonly reply: ReplyName };

export class ConnectionCensus {
  readonly #admitted = new Counter();
  readonly #turnedAway = new Counter();
  readonly #byAddress = new Counter();
  readonly #byPartner = new Counter();

  /** Connections that are open, those that are being turned away among them. */
  get connections(): number {
    return this.#admitted.total + this.#turnedAway.total;
  }

  /** A connection has come in. */
  enter(address: string, isKnown: boolean, limits: ConnectionLimits): Admission {
    const reply = this.#refusal(address, isKnown, limits);
    if (reply === undefined) return { kind: "admitted", seat: new Seat([this.#admitted, this.#byAddress], address) };
    if (this.#turnedAway.total >= limits.turnedAwayMax) return { kind: "dropped", reply };
    return { kind: "turnedAway", reply, seat: new Seat([this.#turnedAway], address) };
  }

  #refusal(address: string, isKnown: boolean, limits: ConnectionLimits): ReplyName | undefined {
    if (!isKnown) return "addressUnknown";
    if (this.#byAddress.of(address) >= limits.connectionsPerAddressMax) return "tooManyConnectionsOfAddress";
    return this.#admitted.total >= limits.connectionsMax ? "tooManyConnections" : undefined;
  }

  /** A connection turns out to be a partner's; undefined: it has as many as it may have. */
  enterAs(partner: string, connectionsMax: number): Seat | undefined {
    return this.#byPartner.of(partner) < connectionsMax ? new Seat([this.#byPartner], partner) : undefined;
  }
}

/** One place in some counts. */
export class Seat {
  readonly key: string;
  #counters: readonly Counter[];

  constructor(counters: readonly Counter[], key: string) {
    this.key = key;
    this.#counters = counters;
    for (const counter of counters) counter.add(key, 1);
  }

  leave(): void {
    for (const counter of this.#counters) counter.add(this.key, -1);
    this.#counters = [];
  }
}

class Counter {
  readonly #counts = new Map<string, number>();
  total = 0;

  of(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: string, change: 1 | -1): void {
    this.total += change;
    const count = this.of(key) + change;
    if (count === 0) this.#counts.delete(key);
    else this.#counts.set(key, count);
  }
}
