/** Partners for tests: complete and valid, with what a test wants to be different. */
import { parseMailbox, type Mailbox } from "../../src/mail/address.ts";
import { canonicalDomain } from "../../src/mail/domain.ts";
import { parseAddressRange, type AddressRange } from "../../src/partner/address-range.ts";
import type { AddressRule, Partner, Route } from "../../src/partner/partner.ts";

export const source = { file: "partners/acme.yaml", line: 1 };

export function mailbox(text: string): Mailbox {
  const parsed = parseMailbox(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed.value;
}

export function range(text: string): AddressRange {
  const parsed = parseAddressRange(text);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed;
}

/** A rule as it is written in a partner's file. */
export function rule(text: string): AddressRule {
  if (text.startsWith("@*.")) return { kind: "subdomains", text, domain: domain(text.slice(3)), source };
  if (text.startsWith("@")) return { kind: "domain", text, domain: domain(text.slice(1)), source };
  return { kind: "mailbox", text, mailbox: mailbox(text), source };
}

export function route(name: string, kind: Route["kind"], domains: readonly string[]): Route {
  return { name, kind, domains: domains.map(domain), servers: [], source };
}

export function partner(name: string, different: Partial<Partner> = {}): Partner {
  return {
    name,
    file: `partners/${name}.yaml`,
    description: name,
    contact: undefined,
    notifyContact: false,
    mode: "enforce",
    hosts: [range("203.0.113.0/28")],
    pins: [],
    keyExchange: "any",
    content: { headerSyntax: "observe", singleFrom: "observe", fromAlignment: "observe" },
    extendedKeyUsage: "clientAuth",
    rollover: { retireAfterMs: 14 * 86_400_000 },
    allow: { from: [rule("@acme.example")], to: [rule("orders@corp.example")] },
    limits: {
      messageBytesMax: 1024,
      recipientsMax: 10,
      messagesPerMinute: 60,
      messagesPerDay: undefined,
      bytesPerMinute: undefined,
      bytesPerDay: undefined,
      recipientsPerMinute: undefined,
      recipientsPerDay: undefined,
      connectionsMax: 2,
      queueBytesMax: 4096,
    },
    deliver: undefined,
    ...different,
  };
}

function domain(text: string): string {
  const canonical = canonicalDomain(text);
  if (canonical === undefined) throw new Error(`${text}: no domain`);
  return canonical;
}
