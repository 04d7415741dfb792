/**
 * What runs out, and when: one list of everything with an end that mail depends on, for `check`, for `status` and for the
 * daily mail. Pure: what was read and seen, and the clock, are passed in.
 *
 * What no longer matters is not in it: pins that are revoked, retired, or not confirmed; pins whose successor is in use
 * already (the rollover's warnings watch those); certificates that the same pin has been seen without since.
 */
import type { X509Certificate } from "node:crypto";
import { PartnerIndex } from "./identity.ts";
import type { Partner, Route } from "./partner.ts";
import { certificateDigest, pinKey, type Pin } from "./pin.ts";
import { pinTitle, retiresAt, type PinHistory, type PinUse } from "./rollover.ts";

export type ExpiryState = "ok" | "warning" | "critical" | "expired";

export type ExpiringThing =
  | "server certificate"
  /** One that the server sends along with its own. */
  | "issuer certificate"
  /** Our own CA's. */
  | "CA certificate"
  /** As last seen. */
  | "partner certificate"
  /** One that our CA signed for a partner, who has not shown it yet. */
  | "signed certificate"
  | "trust anchor"
  | "revocation list"
  | "pin";

export interface ExpiryItem {
  readonly what: ExpiringThing;
  /** The name of the partner whose mail stops. */
  readonly partner: string | undefined;
  /** The file that holds what ends; undefined where it is in none of ours. */
  readonly file: string | undefined;
  /** The subject of the certificate, the issuer of the list, the title of the pin: in foreign words. */
  readonly subject: string | undefined;
  /** The {@link pinKey} of the pin concerned, which a partner may be told: it is about its own certificate. */
  readonly pin: string | undefined;
  /** The key in the configuration that names it. */
  readonly at: { readonly file: string; readonly path: ReadonlyArray<string | number> } | undefined;
  readonly endsAt: Date;
  /** Whole days; negative: past. */
  readonly daysLeft: number;
  readonly state: ExpiryState;
}

export interface ExpiryThresholds {
  readonly warnMs: number;
  readonly criticalMs: number;
}

/** Everything that may run out. */
export interface ExpirySources {
  /** The file of the relay's configuration. */
  readonly configFile: string;
  readonly server: { readonly file: string; readonly chain: readonly X509Certificate[] };
  readonly routes: readonly Route[];
  readonly partners: readonly Partner[];
  /** Of all partners. */
  readonly uses: readonly PinUse[];
  readonly history: PinHistory;
  /** Our CA; undefined where there is none. */
  readonly authority: { readonly file: string; readonly certificate: X509Certificate } | undefined;
  /** What it signed for partners. */
  readonly signed: ReadonlyArray<{
    readonly partner: string;
    readonly file: string;
    readonly certificate: X509Certificate;
  }>;
}

const dayMs = 86_400_000;
const states = ["expired", "critical", "warning", "ok"] as const satisfies readonly ExpiryState[];

/** At the last instant itself it still counts. */
export function expiryState(endsAt: Date, now: Date, { warnMs, criticalMs }: ExpiryThresholds): ExpiryState {
  const leftMs = endsAt.getTime() - now.getTime();
  if (leftMs < 0) return "expired";
  if (leftMs <= criticalMs) return "critical";
  return leftMs <= warnMs ? "warning" : "ok";
}

/** Must somebody act now, lest mail stops? */
export function isUrgent({ state }: ExpiryItem): boolean {
  return state === "expired" || state === "critical";
}

/** What runs out, the most urgent first. */
export function expiryItems(sources: ExpirySources, thresholds: ExpiryThresholds, now: Date): ExpiryItem[] {
  const list = new ExpiryList(thresholds, now);
  addServer(list, sources);
  for (const route of sources.routes) addHops(list, route, undefined, sources.configFile, ["routes", route.name]);
  const usesOf = Map.groupBy(sources.uses, ({ partner }) => partner);
  const signedFor = Map.groupBy(sources.signed, ({ partner }) => partner);
  for (const partner of sources.partners) {
    const own = { uses: usesOf.get(partner.name) ?? [], signed: signedFor.get(partner.name) ?? [] };
    addPartner(list, partner, own, sources.history, now);
  }
  const { authority } = sources;
  if (authority !== undefined) {
    list.addCertificate(authority.certificate, { what: "CA certificate", file: authority.file });
  }
  return list.sorted();
}

type Description = Pick<ExpiryItem, "what"> & Partial<Pick<ExpiryItem, "partner" | "file" | "subject" | "pin" | "at">>;

class ExpiryList {
  readonly #items: ExpiryItem[] = [];
  readonly #thresholds: ExpiryThresholds;
  readonly #now: Date;
  /** Certificates by their file that are listed already: many may name one file. */
  readonly #listed = new Set<string>();

  constructor(thresholds: ExpiryThresholds, now: Date) {
    this.#thresholds = thresholds;
    this.#now = now;
  }

  /** @param worst where it is missed less than its own end says. */
  add(endsAt: Date, { what, partner, file, subject, pin, at }: Description, worst: ExpiryState = "expired"): void {
    const own = expiryState(endsAt, this.#now, this.#thresholds);
    const state = states.indexOf(own) < states.indexOf(worst) ? worst : own;
    const daysLeft = Math.floor((endsAt.getTime() - this.#now.getTime()) / dayMs);
    this.#items.push({ what, partner, file, subject, pin, at, endsAt, daysLeft, state });
  }

  addCertificate(certificate: X509Certificate, about: Description, worst?: ExpiryState): void {
    const place = `${certificateDigest(certificate)} ${about.file ?? ""}`;
    if (this.#listed.has(place)) return;
    this.#listed.add(place);
    this.add(certificate.validToDate, { subject: nameText(certificate.subject), ...about }, worst);
  }

  /** Of several anchors one may be on its way out: only the last that counts is missed. */
  addAnchors(
    { file, anchors }: { readonly file: string; readonly anchors: readonly X509Certificate[] },
    about: Description,
  ): void {
    const lastMs = Math.max(...anchors.map(({ validToDate }) => validToDate.getTime()));
    for (const certificate of anchors) {
      const isLast = certificate.validToDate.getTime() === lastMs;
      this.addCertificate(certificate, { ...about, file }, isLast ? undefined : "warning");
    }
  }

  sorted(): ExpiryItem[] {
    return this.#items.toSorted(
      (a, b) => states.indexOf(a.state) - states.indexOf(b.state) || a.endsAt.getTime() - b.endsAt.getTime(),
    );
  }
}

function addServer(list: ExpiryList, { configFile, server }: ExpirySources): void {
  for (const [index, certificate] of server.chain.entries()) {
    list.addCertificate(certificate, {
      what: index === 0 ? "server certificate" : "issuer certificate",
      file: server.file,
      at: { file: configFile, path: ["tls", "certificate"] },
    });
  }
}

function addHops(
  list: ExpiryList,
  route: Route,
  partner: string | undefined,
  file: string,
  path: ReadonlyArray<string | number>,
): void {
  for (const [index, { tls }] of route.servers.entries()) {
    if (tls.mode === "none" || tls.verification.kind === "pin") continue;
    const at = { file, path: [...path, "servers", index, "tls", "trust-anchor"] };
    list.addAnchors(tls.verification, { what: "trust anchor", partner, at });
  }
}

function addPartner(
  list: ExpiryList,
  partner: Partner,
  { uses, signed }: Pick<ExpirySources, "uses" | "signed">, // its own
  history: PinHistory,
  now: Date,
): void {
  const inForce = new Set(partner.pins.filter((pin) => countsAtAll(partner, pin, history)));
  const seen = new Set<Pin>();
  for (const [index, pin] of partner.pins.entries()) {
    if (!inForce.has(pin)) continue;
    const about = { partner: partner.name, pin: pinKey(pin) };
    const at = (key: string) => ({ file: partner.file, path: ["pins", index, ...(key === "" ? [] : [key])] });
    if (pin.notAfter !== undefined) {
      list.add(pin.notAfter, {
        ...about,
        what: "pin",
        file: partner.file,
        subject: pinTitle(pin),
        at: at("not-after"),
      });
    }
    const last = lastUse(pin, uses);
    // Beyond its own end the pin lets in no certificate, whatever its date.
    if (last !== undefined && (pin.notAfter === undefined || now <= pin.notAfter)) {
      seen.add(pin);
      list.addCertificate(last.certificate, { ...about, what: "partner certificate", at: at("") });
    }
    if (pin.kind !== "trustAnchor") continue;
    list.addAnchors(pin, { ...about, what: "trust anchor", at: at("trust-anchor") });
    for (const { file, nextUpdate, issuer } of latestLists(pin)) {
      const subject = issuer === undefined ? undefined : nameText(issuer.subject);
      list.add(nextUpdate, { ...about, what: "revocation list", file, subject, at: at("revocation-list") });
    }
  }
  addSigned(list, partner, signed, (pin) => inForce.has(pin) && !seen.has(pin));
  if (partner.deliver !== undefined) addHops(list, partner.deliver, partner.name, partner.file, ["deliver"]);
}

/** What the partner shows says more than what was once sent to it. */
function addSigned(
  list: ExpiryList,
  partner: Partner,
  signed: ExpirySources["signed"],
  isExpected: (pin: Pin) => boolean,
): void {
  if (signed.length === 0) return;
  const index = new PartnerIndex([partner]);
  const latest = new Map<Pin, (typeof signed)[number]>();
  for (const one of signed) {
    const pin = index.matches([one.certificate]).find((match) => isExpected(match.pin))?.pin;
    const known = pin === undefined ? undefined : latest.get(pin);
    if (pin === undefined || (known !== undefined && known.certificate.validToDate > one.certificate.validToDate))
      continue;
    latest.set(pin, one);
  }
  for (const [pin, { file, certificate }] of latest) {
    list.addCertificate(certificate, { what: "signed certificate", partner: partner.name, file, pin: pinKey(pin) });
  }
}

/** With the CA of each. Of several of one CA, the one that lasts longest is what is asked. */
function latestLists(
  pin: Pin & { readonly kind: "trustAnchor" },
): Array<{ readonly file: string; readonly nextUpdate: Date; readonly issuer: X509Certificate | undefined }> {
  const lists = pin.revocationLists.map((list) => ({
    file: list.file,
    nextUpdate: list.nextUpdate,
    issuer: pin.anchors.find((anchor) => list.isOf(anchor)),
  }));
  return lists.filter(
    ({ issuer, nextUpdate }) => !lists.some((other) => other.issuer === issuer && other.nextUpdate > nextUpdate),
  );
}

/** Dates apart: may the pin let somebody in, and is it not on its way out already? */
function countsAtAll(partner: Partner, pin: Pin, history: PinHistory): boolean {
  switch (pin.state) {
    case "pending":
    case "revoked":
      return false;
    case "next":
    case "active":
      return retiresAt(partner, pin, history) === undefined;
  }
}

/** @param uses the partner's own. */
function lastUse(pin: Pin, uses: readonly PinUse[]): PinUse | undefined {
  const key = pinKey(pin);
  return uses.filter((use) => use.pin === key).toSorted((a, b) => b.lastSeenMs - a.lastSeenMs)[0];
}

/** A distinguished name on one line; node:crypto gives undefined, whatever its type says, for a name without any part. */
function nameText(name: string | undefined): string | undefined {
  return name?.replaceAll("\n", ", ");
}
