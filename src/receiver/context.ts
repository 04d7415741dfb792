/**
 * What all connections of a receiver share: the policy, the drop-box, the log, the clock, the counts, the deadlines.
 */
import type { DecisionLog } from "../audit/decision-log.ts";
import type { SessionTimeouts } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import type { Witness } from "../sightings/sightings.ts";
import type { DropBox } from "../spool/spool.ts";
import type { ConnectionCensus } from "./census.ts";
import type { HandshakeRates } from "./handshake-rates.ts";
import type { Meter } from "./partner-rates.ts";
import type { PolicyInForce } from "./policy-in-force.ts";

export interface ReceiverContext {
  policy: PolicyInForce;
  readonly dropBox: DropBox;
  readonly usage: Usage;
  /** Is told of the certificates that are seen, and remembers them. */
  readonly sightings: Witness;
  /** Is told of what the rules said. */
  readonly decisions: DecisionLog;
  readonly log: Log;
  readonly now: () => Date;
  readonly census: ConnectionCensus;
  readonly handshakes: HandshakeRates;
  /** What partners have sent, against their rates. */
  readonly rates: Meter;
  /** Those of the policy in force: each session begins with those of its time. */
  readonly timeouts: Timeouts;
  readonly work: OpenWork;
}

/** How much of the spool is in use, in octets, as of about a second ago. */
export interface Usage {
  totalBytes(): number;
  /** What waits of a partner's messages. */
  partnerBytes(partner: string): number;
}

/** How long a client may take; nothing that it does extends a deadline but `idleMs`. */
export interface Timeouts extends SessionTimeouts {
  /** For a client that is turned away: until it must be gone. */
  readonly turnedAwayMs: number;
  /** For the spool, to make a message durable: behind it the client is told to try again. */
  readonly commitMs: number;
  /** For messages that are coming in when the receiver is to stop. */
  readonly drainMs: number;
}

/** Those that are no matter of configuration. */
export const fixedTimeouts: Omit<Timeouts, keyof SessionTimeouts> = {
  turnedAwayMs: 10_000,
  commitMs: 5 * 60_000, // the client waits for ten (RFC 5321 §4.5.3.2.6)
  drainMs: 60_000,
};

const bytesPerMsMin = 16; // 128 kbit/s

/** The deadline for content of at most `bytesMax`: a slow line may be slow, one octet a minute holds nothing. */
export function messageTimeoutMs(timeouts: Timeouts, bytesMax: number): number {
  return timeouts.messageMs + bytesMax / bytesPerMsMin;
}

/** What is still being written or removed on behalf of connections, which may be gone themselves. */
export class OpenWork {
  readonly #open = new Set<Promise<void>>();

  /** Passes the promise through. */
  track(work: Promise<void>): Promise<void> {
    const settled = work
      .catch(() => undefined) // whoever has the promise itself hears of it
      .finally(() => this.#open.delete(settled));
    this.#open.add(settled);
    return work;
  }

  /** Resolves when nothing is open. */
  async idle(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open);
  }
}
