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
import { checkContact } from "./contact.ts";
import * as format from "./formats.ts";
import { makePartnerLimits, partnerLimits } from "./limits.ts";
import { placeText, type FileReport } from "./problems.ts";
import { readFileAs } from "./read.ts";
import { makeAnchors, makeRoute, route, type LoadContext } from "./route.ts";
import { makeRevocationLists } from "./revocation-list.ts";
import { group, list, optional, required, scalar } from "./schema.ts";
import type { ConfigNode } from "./source.ts";
import type { Path } from "./text.ts";

const ruleMode = format.oneOf("off", "observe", "enforce");

/** The keys of a partner's file. */
export const partnerKeys = group({
  doc: "A partner.",
  keys: {
    description: scalar({ doc: "Who it is, for people.", format: format.text, default: "" }),
    contact: scalar({ doc: "Whom to ask there: best a mail address.", format: format.text, default: optional }),
    "notify-contact": scalar({
      doc: "Is the contact, a mail address then, told by mail when the partner's certificate runs out? Needs `deliver`.",
      format: format.flag,
      default: false,
    }),
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
          "revocation-list": list({
            doc: "With trust-anchor: files with the CAs' revocation lists (CRL). Where there are any, that of the CA which signed the certificate must be among them and not out of date.",
            of: scalar({ doc: "A file with a revocation list, PEM or DER.", format: format.path, default: required }),
            orOne: true,
            itemsMin: 1,
            default: optional,
          }),
          label: scalar({ doc: "For people, as the year of the key.", format: format.text, default: optional }),
          state: scalar({
            doc: "active; pending: waits for `pinrelay partner confirm`; next: replaces the active ones in a rollover; revoked.",
            format: format.oneOf("active", "pending", "next", "revoked"),
            default: "active",
          }),
          "not-before": scalar({
            doc: "The pin counts from the beginning of this day (UTC), or from this time.",
            format: format.startDate,
            default: optional,
          }),
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
    "key-exchange": scalar({
      doc: "post-quantum: mail is taken only over a hybrid key exchange such as X25519MLKEM768.",
      format: format.oneOf("any", "post-quantum"),
      default: "any",
    }),
    "extended-key-usage": scalar({
      doc: "What the partner's certificate must be good for: clientAuth, or any where its CA issues for servers only.",
      format: format.oneOf("clientAuth", "any"),
      default: "clientAuth",
    }),
    rollover: group({
      doc: "What happens between an old pin and the next one.",
      keys: {
        "retire-after": scalar({
          doc: "From the first use of the next pin until the old one no longer counts.",
          format: format.period,
          default: "14d",
        }),
      },
      default: {},
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
    content: group({
      doc: "What is asked of a message's header: off, observe (reported and let through) or enforce.",
      keys: {
        "header-syntax": scalar({
          doc: "Its lines are header fields of at most 998 octets, in ASCII unless SMTPUTF8 was asked for.",
          format: ruleMode,
          default: "observe",
        }),
        "single-from": scalar({ doc: "It has exactly one From field.", format: ruleMode, default: "observe" }),
        "from-alignment": scalar({
          doc: "All addresses of its From field are among `allow.from`: the partner poses as nobody else.",
          format: ruleMode,
          default: "observe",
        }),
      },
      default: {},
    }),
    limits: partnerLimits,
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
  if (written["extended-key-usage"] === "any") {
    const risk = "a certificate that was issued for servers only will do: whoever runs that server could send mail";
    report.warning(["extended-key-usage"], `${risk}; ask for one with clientAuth if you can`);
  }
  const from = makeFrom(written, report, context);
  const to = makeTo(written, report, context);
  warnOfLimits(written, report, context);
  const deliver =
    written.deliver === undefined
      ? undefined
      : await makeRoute({ name, kind: "partner" }, written.deliver, ["deliver"], report, context);
  if (written["notify-contact"]) checkContact(written.contact, deliver, written.deliver !== undefined, report);
  if (report.errors > 0) return undefined;
  const { description, contact, mode, limits, rollover, content } = written;
  return {
    name,
    file: report.file,
    description,
    contact,
    notifyContact: written["notify-contact"],
    mode,
    hosts,
    pins,
    keyExchange: written["key-exchange"],
    extendedKeyUsage: written["extended-key-usage"],
    rollover: { retireAfterMs: rollover["retire-after"] },
    allow: { from, to },
    content: {
      headerSyntax: content["header-syntax"],
      singleFrom: content["single-from"],
      fromAlignment: content["from-alignment"],
    },
    limits: makePartnerLimits(limits),
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
  const dateOf = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms));
  const life = {
    label: written.label,
    state: written.state,
    notBefore: dateOf(written["not-before"]),
    notAfter: dateOf(written["not-after"]),
    source: report.source(path),
  };
  if (report.isSet([...path, "trust-anchor"])) {
    if (!report.isSet([...path, "name"])) {
      report.error([...path, "trust-anchor"], "needs `name`: the DNS name that the partner's certificate must carry");
    }
    const file = written["trust-anchor"];
    const anchors =
      file === undefined ? undefined : await makeAnchors(file, [...path, "trust-anchor"], report, context);
    if (anchors === undefined || written.name === undefined) return undefined;
    const listPath = [...path, "revocation-list"];
    const lists = await makeRevocationLists(written["revocation-list"] ?? [], anchors, listPath, report, context);
    return { ...anchors, ...life, name: written.name, revocationLists: lists };
  }
  for (const key of ["name", "revocation-list"].filter((candidate) => report.isSet([...path, candidate]))) {
    report.errorAtKey([...path, key], "means something with `trust-anchor` only: remove it");
  }
  if (written.spki !== undefined) return { ...life, kind: "spki", digest: written.spki };
  if (written.certificate === undefined) return undefined;
  return { ...life, kind: "certificate", digest: written.certificate };
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
