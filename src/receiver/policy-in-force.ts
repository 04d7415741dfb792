/**
 * The configuration as the receiver works with it: indexed, with the counters that its limits need. One object for all
 * sessions; a reload makes a new one.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import { PartnerIndex } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import { RouteTable } from "../partner/policy.ts";
import { TokenBucket } from "./token-bucket.ts";

export class PolicyInForce {
  readonly config: RelayConfig;
  readonly partners: PartnerIndex;
  readonly routes: RouteTable;
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(config: RelayConfig) {
    this.config = config;
    this.partners = new PartnerIndex(config.partners);
    this.routes = new RouteTable(config.routes, config.partners);
  }

  /** May the partner send one more message now? Takes it off its rate if so. */
  takeMessage(partner: Partner, nowMs: number): boolean {
    const bucket = this.#buckets.get(partner.name) ?? new TokenBucket(partner.limits.messagesPerMinute, nowMs);
    this.#buckets.set(partner.name, bucket);
    return bucket.take(nowMs);
  }

  messageBytesMax(partner: Partner): number {
    return Math.min(this.config.limits.messageBytesMax, partner.limits.messageBytesMax);
  }
}
