/**
 * A partner's file: its keys, and what they mean together.
 *
 * Promises: no pin identifies two partners, over all files; what a partner may not do is the default. What is unwise but
 * has a meaning is a warning, what has none is an error.
 */
import type { X509Certificate } from "node:crypto";
import { basename } from "node:path";
import { isSubdomain, type CanonicalDomain } from "../mail/domain.ts";
import type { AddressRule, Partner } from "../partner/partner.ts";
import { certificateDigest, type Pin } from "../partner/pin.ts";
import * as format from "./formats.ts";
import { placeText, type FileReport } from "./problems.ts";
import { readFileAs } from "./read.ts";
import { makeAnchors, makeRoute, route, type LoadContext } from "./route.ts";
import { group, list, optional, required, scalar } from "./schema.ts";
import type { ConfigNode } from "./source.ts";
import type { Path } from "./text.ts";

/** The keys of a partner's file. */
export const partnerKeys = group({
  doc: "A partner.",
  keys: {
    description: scalar({ doc: "Who it is, for people.", format: format.text, default: "" }),
    contact: scalar({ doc: "Whom to ask there, for people.", format: format.text, default: optional }),
    mode: scalar({
      doc: "observe: what `allow` would refuse is reported and let through. Identity is enforced always.",
      format: format.oneOf("enforce", "observe"),
      default: "enforce",
    }),
    hosts: list({
      doc: "The addresses and networks that the partner connects from.",
      of: scalar({
        doc: "An address, a network as 192.0.2.0/28, or any.",
        format: format.addressRange,
        default: required,
      }),
      itemsMin: 1,
      default: required,
    }),
    pins: list({
      doc: "What the partner's certificate must match: any one suffices, two during a rollover.",
      of: group({
        doc: "One way to know the partner's certificate.",
        keys: {
          spki: scalar({
            doc: "The digest of the certificate's public key: it survives renewal with the same key.",
            format: format.digest,
            default: optional,
          }),
          certificate: scalar({
            doc: "The digest of one whole certificate: a renewed one has another.",
            format: format.digest,
            default: optional,
          }),
          "trust-anchor": scalar({
            doc: "A PEM file with CA certificates: any certificate of theirs with the right `name` will do.",
            format: format.path,
            default: optional,
          }),
          name: scalar({
            doc: "With trust-anchor: the DNS name that the certificate must carry.",
            format: format.domainName,
            default: optional,
          }),
          label: scalar({ doc: "For people, as the year of the key.", format: format.text, default: optional }),
          "not-after": scalar({
            doc: "The pin counts until the end of this day (UTC), or until this time.",
            format: format.endDate,
            default: optional,
          }),
        },
        exactlyOne: ["spki", "certificate", "trust-anchor"],
        default: required,
      }),
      itemsMin: 1,
      default: required,
    }),
    allow: group({
      doc: "What the partner may send. What is not here is refused.",
      keys: {
        from: list({
          doc: "Senders: user@domain, @domain or @*.domain. Reports (the null reverse-path) always pass.",
          of: scalar({
            doc: "user@domain, @domain, or @*.domain for all below it.",
            format: format.reversePathRule,
            default: required,
          }),
          default: [],
        }),
        to: list({
          doc: "Recipients, in our domains: user@domain, @domain or @*.domain.",
          of: scalar({
            doc: "user@domain, @domain, or @*.domain for all below it.",
            format: format.forwardPathRule,
            default: required,
          }),
          itemsMin: 1,
          default: required,
        }),
      },
      default: required,
    }),
    limits: group({
      doc: "What the relay takes at most from this partner.",
      keys: {
        "message-size": scalar({ doc: "The size of one message.", format: format.size, default: "10MiB" }),
        recipients: scalar({ doc: "Recipients of one message.", format: format.count, default: 100 }),
        "messages-per-minute": scalar({ doc: "Messages in a minute.", format: format.count, default: 600 }),
        connections: scalar({ doc: "Connections at a time.", format: format.count, default: 10 }),
        "queue-bytes": scalar({
          doc: "The size of its mail that waits for delivery.",
          format: format.size,
          default: "1GiB",
        }),
      },
      default: {},
    }),
    deliver: { ...route, doc: "How mail reaches the partner. Absent: it gets none.", default: optional },
  },
  default: required,
});

type Written = NonNullable<ReturnType<typeof readFileAs<(typeof partnerKeys)["keys"]>>>;
type WrittenPin = NonNullable<NonNullable<Written["pins"]>[number]>;

/** Is it a name for a partner? Names stand in file names, logs and commands. */
export function isPartnerName(name: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,62}$/.test(name);
}

/** Makes a partner of a file's tree; undefined if anything in it is wrong, which is then reported. */
export async function readPartner(
  root: ConfigNode | undefined,
  report: FileReport,
  context: LoadContext,
): Promise<Partner | undefined> {
  const name = basename(report.file, ".yaml");
  if (!isPartnerName(name)) {
    const rule = "lower-case letters, digits and hyphens, a letter or digit first, at most 63";
    report.error([], `the file's name is the partner's name, and must be made of ${rule}: rename it`);
  }
  const written = root === undefined ? undefined : readFileAs(partnerKeys, root, report);
  if (written === undefined) return undefined;
  const hosts = makeHosts(written, report);
  const pins = await makePins(written, report, context);
  const from = makeFrom(written, report, context);
  const to = makeTo(written, report, context);
  warnOfLimits(written, report, context);
  const deliver =
    written.deliver === undefined
      ? undefined
      : await makeRoute({ name, kind: "partner" }, written.deliver, ["deliver"], report, context);
  if (report.errors > 0) return undefined;
  const { description, contact, mode, limits } = written;
  return {
    name,
    file: report.file,
    description,
    contact,
    mode,
    hosts,
    pins,
    allow: { from, to },
    limits: {
      messageBytesMax: limits["message-size"],
      recipientsMax: limits.recipients,
      messagesPerMinute: limits["messages-per-minute"],
      connectionsMax: limits.connections,
      queueBytesMax: limits["queue-bytes"],
    },
    deliver,
  };
}

function makeHosts(written: Written, report: FileReport): Partner["hosts"] {
  return (written.hosts ?? []).flatMap((range, index) => {
    if (range?.kind === "any") {
      report.warning(["hosts", index], "any host may try: the certificate alone decides; list addresses if you can");
    }
    return range ?? [];
  });
}

async function makePins(written: Written, report: FileReport, context: LoadContext): Promise<Pin[]> {
  const pins: Pin[] = [];
  for (const [index, one] of (written.pins ?? []).entries()) {
    if (one === undefined) continue;
    const path = ["pins", index];
    const pin = await makePin(one, path, report, context);
    if (pin === undefined) continue;
    pins.push(pin);
    for (const key of pinKeys(pin)) claimPin(key, [...path, keyOf(pin)], report, context);
    if (pin.notAfter !== undefined && pin.notAfter < context.now) {
      report.warning([...path, "not-after"], "is past: this pin no longer counts; remove it");
    }
  }
  return pins;
}

async function makePin(
  written: WrittenPin,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<Pin | undefined> {
  const label = written.label;
  const notAfter = written["not-after"] === undefined ? undefined : new Date(written["not-after"]);
  const nameIsSet = report.isSet([...path, "name"]);
  if (report.isSet([...path, "trust-anchor"])) {
    if (!nameIsSet) {
      report.error([...path, "trust-anchor"], "needs `name`: the DNS name that the partner's certificate must carry");
    }
    const file = written["trust-anchor"];
    const anchors =
      file === undefined ? undefined : await makeAnchors(file, [...path, "trust-anchor"], report, context);
    if (anchors === undefined || written.name === undefined) return undefined;
    return { ...anchors, name: written.name, label, notAfter };
  }
  if (nameIsSet) report.errorAtKey([...path, "name"], "means something with `trust-anchor` only: remove it");
  if (written.spki !== undefined) return { kind: "spki", digest: written.spki, label, notAfter };
  if (written.certificate === undefined) return undefined;
  return { kind: "certificate", digest: written.certificate, label, notAfter };
}

function keyOf(pin: Pin): string {
  return pin.kind === "trustAnchor" ? "trust-anchor" : pin.kind;
}

/** What a pin lets in: two pins with a key in common would let the same certificate in. */
function pinKeys(pin: Pin): string[] {
  switch (pin.kind) {
    case "spki":
    case "certificate":
      return [`${pin.kind} ${pin.digest}`];
    case "trustAnchor":
      return [...new Set(pin.anchors.map((anchor) => `${anchorDigest(anchor)} for ${pin.name}`))];
  }
}

/** Many partners may share an anchor: its digest is made once. */
function anchorDigest(anchor: X509Certificate): string {
  const known = anchorDigests.get(anchor) ?? certificateDigest(anchor);
  anchorDigests.set(anchor, known);
  return known;
}
const anchorDigests = new WeakMap<X509Certificate, string>();

function claimPin(key: string, path: Path, report: FileReport, context: LoadContext): void {
  const earlier = context.claims.claim(`pin ${key}`, report.place(path));
  if (earlier === undefined) return;
  report.error(
    path,
    earlier.file === report.file
      ? `is the same pin as ${earlier.keyPath} in line ${earlier.line}: remove one of them`
      : `is a pin of another partner, at ${placeText(earlier, context.relayFile)}: a certificate is one partner's`,
  );
}

function makeFrom(written: Written, report: FileReport, { ownDomains }: LoadContext): AddressRule[] {
  const path = ["allow", "from"];
  // A list that is not valid has been reported, and is empty here.
  if (written.allow?.from.length === 0 && (report.errors === 0 || !report.isSet(path))) {
    report.warning(path, "no sender is allowed: only reports (the null reverse-path) pass; add `from`");
  }
  return makeRules(written.allow?.from, path, report, (rule) =>
    ownDomains !== undefined && touches(rule, ownDomains)
      ? `${rule.text} is ours: the partner could write in our name`
      : undefined,
  );
}

function makeTo(written: Written, report: FileReport, { ownDomains }: LoadContext): AddressRule[] {
  return makeRules(written.allow?.to, ["allow", "to"], report, (rule) =>
    ownDomains !== undefined && !touches(rule, ownDomains)
      ? `${rule.text} can never match: no route of ours has the domain`
      : undefined,
  );
}

function makeRules(
  forms: ReadonlyArray<format.RuleForm | undefined> | undefined,
  path: Path,
  report: FileReport,
  warningOf: (rule: AddressRule) => string | undefined,
): AddressRule[] {
  return (forms ?? []).flatMap((form, index) => {
    if (form === undefined) return [];
    const rule: AddressRule = { ...form, source: report.source([...path, index]) };
    const warning = warningOf(rule);
    if (warning !== undefined) report.warning([...path, index], warning);
    return rule;
  });
}

/** Does a rule cover mailboxes in one of the domains? */
function touches(rule: AddressRule, domains: ReadonlySet<CanonicalDomain>): boolean {
  switch (rule.kind) {
    case "mailbox":
      return domains.has(rule.mailbox.domain);
    case "domain":
      return domains.has(rule.domain);
    case "subdomains":
      return [...domains].some((domain) => isSubdomain(domain, rule.domain));
  }
}

function warnOfLimits(written: Written, report: FileReport, { messageBytesMax }: LoadContext): void {
  const path = ["limits", "message-size"];
  // A default that is above what the relay takes is nobody's mistake.
  if (messageBytesMax === undefined || !report.isSet(path) || written.limits["message-size"] <= messageBytesMax) return;
  report.warning(path, "is above `limits.message-size` of relay.yaml, which holds for everybody");
}
