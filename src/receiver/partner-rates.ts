/**
 * How much each partner has sent of late, against the rates and daily quotas of its file. One object for the life of a
 * receiver: a reload changes the rates, and nobody gains a fresh one by it.
 *
 * Promises: what is refused is not counted; one partner's counts are no other's; no more is kept than there are partners.
 * Pure: the clock is passed in, and `rates-file.ts` carries the counts over a restart.
 */
import type { ReplyName } from "../mail/reply.ts";
import type { Partner, PartnerLimits } from "../partner/partner.ts";
import { TokenBucket, type BucketLevel } from "./token-bucket.ts";

/** Counts what partners send; the reply is that of the limit that is reached, and undefined where none is. */
export interface Meter {
  /** One more message? `declaredBytes` of it are not counted yet, but there must be room for them. */
  takeMessage(partner: Partner, declaredBytes: number | undefined, nowMs: number): ReplyName | undefined;
  takeRecipient(partner: Partner, nowMs: number): ReplyName | undefined;
  /** A message has come in whole. */
  takeBytes(partner: Partner, bytes: number, nowMs: number): ReplyName | undefined;
  /** It was not accepted after all. */
  giveBackBytes(partner: Partner, bytes: number, nowMs: number): void;
}

/** Counts nothing: for whoever asks what the receiver would say, and sends nothing. */
export const unmetered: Meter = {
  takeMessage: () => undefined,
  takeRecipient: () => undefined,
  takeBytes: () => undefined,
  giveBackBytes: () => undefined,
};

const minuteMs = 60_000;
const dayMs = 86_400_000;

interface RateKind {
  /** As the key is called in a partner's file: also in the file of counts. */
  readonly name: string;
  readonly of: (limits: PartnerLimits) => number | undefined;
  readonly periodMs: number;
  readonly reply: ReplyName;
}

const messages: readonly RateKind[] = [
  {
    name: "messages-per-minute",
    of: ({ messagesPerMinute }) => messagesPerMinute,
    periodMs: minuteMs,
    reply: "rateExceeded",
  },
  { name: "messages-per-day", of: ({ messagesPerDay }) => messagesPerDay, periodMs: dayMs, reply: "dayRateExceeded" },
];
const bytes: readonly RateKind[] = [
  {
    name: "bytes-per-minute",
    of: ({ bytesPerMinute }) => bytesPerMinute,
    periodMs: minuteMs,
    reply: "byteRateExceeded",
  },
  { name: "bytes-per-day", of: ({ bytesPerDay }) => bytesPerDay, periodMs: dayMs, reply: "byteDayRateExceeded" },
];
const recipients: readonly RateKind[] = [
  {
    name: "recipients-per-minute",
    of: ({ recipientsPerMinute }) => recipientsPerMinute,
    periodMs: minuteMs,
    reply: "recipientRateExceeded",
  },
  {
    name: "recipients-per-day",
    of: ({ recipientsPerDay }) => recipientsPerDay,
    periodMs: dayMs,
    reply: "recipientDayRateExceeded",
  },
];

/** The names of all rates. */
export const rateNames: ReadonlySet<string> = new Set([...messages, ...bytes, ...recipients].map(({ name }) => name));

/** Levels by partner and by the name of the rate; what is full is not among them. */
export type RateLevels = ReadonlyMap<string, ReadonlyMap<string, BucketLevel>>;

export class PartnerRates implements Meter {
  readonly #onChanged: () => void;
  /** What came over from the life before, until it is asked for. */
  readonly #levels: Map<string, Map<string, BucketLevel>>;
  readonly #buckets = new Map<string, Map<string, TokenBucket>>();

  /** @param onChanged something has been counted. */
  constructor(levels: RateLevels = new Map(), onChanged: () => void = () => undefined) {
    this.#levels = new Map([...levels].map(([partner, ofPartner]) => [partner, new Map(ofPartner)]));
    this.#onChanged = onChanged;
  }

  takeMessage(partner: Partner, declaredBytes: number | undefined, nowMs: number): ReplyName | undefined {
    // A size that is not declared may be anything: in debt is no room for it either.
    return (
      this.#exceeded(partner, bytes, Math.max(1, declaredBytes ?? 1), nowMs) ?? this.#take(partner, messages, 1, nowMs)
    );
  }

  takeRecipient(partner: Partner, nowMs: number): ReplyName | undefined {
    return this.#take(partner, recipients, 1, nowMs);
  }

  takeBytes(partner: Partner, sizeBytes: number, nowMs: number): ReplyName | undefined {
    return this.#take(partner, bytes, sizeBytes, nowMs);
  }

  giveBackBytes(partner: Partner, sizeBytes: number, nowMs: number): void {
    this.#charge(partner, bytes, -sizeBytes, nowMs);
  }

  /** Forgets all partners but these. */
  retain(partners: Iterable<{ readonly name: string }>): void {
    const names = new Set([...partners].map(({ name }) => name));
    for (const kept of [this.#levels, this.#buckets]) {
      for (const name of kept.keys()) if (!names.has(name)) kept.delete(name);
    }
  }

  levels(nowMs: number): RateLevels {
    const all = new Map([...this.#levels].map(([partner, ofPartner]) => [partner, new Map(ofPartner)]));
    for (const [partner, buckets] of this.#buckets) {
      const ofPartner = all.get(partner) ?? new Map<string, BucketLevel>();
      for (const [name, bucket] of buckets) {
        const level = bucket.level(nowMs);
        if (level !== undefined) ofPartner.set(name, level);
      }
      all.set(partner, ofPartner);
    }
    return new Map([...all].filter(([, ofPartner]) => ofPartner.size > 0));
  }

  /** Of a minute and a day both must have it before either is charged. */
  #take(partner: Partner, kinds: readonly RateKind[], amount: number, nowMs: number): ReplyName | undefined {
    const exceeded = this.#exceeded(partner, kinds, amount, nowMs);
    if (exceeded === undefined) this.#charge(partner, kinds, amount, nowMs);
    return exceeded;
  }

  #exceeded(partner: Partner, kinds: readonly RateKind[], amount: number, nowMs: number): ReplyName | undefined {
    return kinds.find((kind) => this.#bucket(partner, kind, nowMs)?.holds(amount, nowMs) === false)?.reply;
  }

  #charge(partner: Partner, kinds: readonly RateKind[], amount: number, nowMs: number): void {
    for (const kind of kinds) this.#bucket(partner, kind, nowMs)?.take(amount, nowMs);
    this.#onChanged();
  }

  /** Undefined where the partner has no such limit. */
  #bucket({ name, limits }: Partner, kind: RateKind, nowMs: number): TokenBucket | undefined {
    const amount = kind.of(limits);
    if (amount === undefined) return undefined;
    const rate = { amount, periodMs: kind.periodMs };
    const ofPartner = this.#buckets.get(name) ?? new Map<string, TokenBucket>();
    this.#buckets.set(name, ofPartner);
    let bucket = ofPartner.get(kind.name);
    if (bucket === undefined) {
      bucket = new TokenBucket(rate, nowMs, this.#levels.get(name)?.get(kind.name));
      this.#levels.get(name)?.delete(kind.name);
      ofPartner.set(kind.name, bucket);
    }
    bucket.setRate(rate);
    return bucket;
  }
}
