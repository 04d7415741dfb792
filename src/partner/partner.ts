/**
 * What a partner is: who may speak for it (hosts and pins), what it may send to whom, and how mail reaches it.
 * Pure data, complete and valid by construction: `config` makes it out of one file and nothing else does.
 */
import type { X509Certificate } from "node:crypto";
import type { Mailbox } from "../mail/address.ts";
import type { CanonicalDomain } from "../mail/domain.ts";
import type { AddressRange } from "./address-range.ts";
import type { ContentRules } from "./content-policy.ts";
import type { Digest, Pin } from "./pin.ts";

/** Where in a file something stands, for messages to the operator. */
export interface SourceRef {
  readonly file: string;
  /** 1-based. */
  readonly line: number;
}

/** One entry of `allow.from` or `allow.to`. */
export type AddressRule =
  | { readonly kind: "mailbox"; readonly text: string; readonly mailbox: Mailbox; readonly source: SourceRef }
  | { readonly kind: "domain"; readonly text: string; readonly domain: CanonicalDomain; readonly source: SourceRef } // @acme.example
  | {
      readonly kind: "subdomains";
      readonly text: string;
      readonly domain: CanonicalDomain;
      readonly source: SourceRef;
    }; // @*.acme.example

export interface PartnerLimits {
  /** Octets of one message as RFC 1870 counts them: with CRLF, without dot-stuffing. */
  readonly messageBytesMax: number;
  readonly recipientsMax: number;
  readonly messagesPerMinute: number;
  /** Of these, undefined: no limit. */
  readonly messagesPerDay: number | undefined;
  readonly bytesPerMinute: number | undefined;
  readonly bytesPerDay: number | undefined;
  readonly recipientsPerMinute: number | undefined;
  readonly recipientsPerDay: number | undefined;
  readonly connectionsMax: number;
  readonly queueBytesMax: number;
}

export interface Partner {
  /** The name of its file without `.yaml`: lower-case letters, digits and hyphens. */
  readonly name: string;
  readonly file: string;
  readonly description: string;
  readonly contact: string | undefined;
  /** Is the contact, which is a mail address then, told by mail when the partner's own certificate runs out? */
  readonly notifyContact: boolean;
  /** `observe` reports what the sender and recipient rules would refuse, and lets it pass; identity is enforced always. */
  readonly mode: "enforce" | "observe";
  readonly hosts: readonly AddressRange[];
  readonly pins: readonly Pin[];
  /** Which key exchange a session of the partner must have: `post-quantum` wants a hybrid with ML-KEM. */
  readonly keyExchange: "any" | "post-quantum";
  /**
   * Which extended key usage the partner's certificate must have (RFC 5280 §4.2.1.12): `clientAuth`, or no restriction at
   * all; `any` where the partner's CA issues server certificates only.
   */
  readonly extendedKeyUsage: "clientAuth" | "any";
  readonly rollover: {
    /** From the first use of the next pin until the old ones no longer count. */
    readonly retireAfterMs: number;
  };
  readonly allow: { readonly from: readonly AddressRule[]; readonly to: readonly AddressRule[] };
  readonly content: ContentRules;
  readonly limits: PartnerLimits;
  /** How mail reaches the partner; undefined: we send it none. */
  readonly deliver: Route | undefined;
}

/** How the server at a next hop is known to be the right one. */
export type HopVerification =
  | { readonly kind: "pin"; readonly digests: readonly Digest[] }
  | { readonly kind: "trustAnchor"; readonly file: string; readonly anchors: readonly X509Certificate[] };

export type HopTls =
  | { readonly mode: "required"; readonly implicit: boolean; readonly verification: HopVerification }
  /** Only where the operator says so. */
  | { readonly mode: "none" };

/** One server at a fixed address. */
export interface NextHop {
  /** IPv4 or IPv6 literal, never a name: no DNS is asked. */
  readonly address: string;
  readonly port: number;
  /** The name its certificate must carry where a trust anchor verifies it; also for SNI and logs. */
  readonly name: string | undefined;
  readonly tls: HopTls;
  readonly source: SourceRef;
}

/** Where mail for some domains goes: servers in the order in which they are tried. */
export interface Route {
  /** The key under `routes`, or the partner's name. */
  readonly name: string;
  readonly kind: "internal" | "partner";
  readonly domains: readonly CanonicalDomain[];
  readonly servers: readonly NextHop[];
  readonly source: SourceRef;
}
