/**
 * The configuration as the receiver works with it: indexed. One object for all sessions; a reload makes a new one.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import { PartnerIndex } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import { RouteTable } from "../partner/policy.ts";

export class PolicyInForce {
  readonly config: RelayConfig;
  readonly partners: PartnerIndex;
  readonly routes: RouteTable;

  constructor(config: RelayConfig) {
    this.config = config;
    this.partners = new PartnerIndex(config.partners);
    this.routes = new RouteTable(config.routes, config.partners, config.hostname);
  }

  messageBytesMax(partner: Partner): number {
    return Math.min(this.config.limits.messageBytesMax, partner.limits.messageBytesMax);
  }
}
