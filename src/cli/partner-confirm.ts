/**
 * `pinrelay partner confirm`: the fingerprint that came over a second channel makes a pin count.
 *
 * Promises: only the whole fingerprint confirms, and it is never shown here to be copied; what was seen of the partner in
 * quarantine is approved by the same fingerprint and in no other way; doing it twice does no harm. Fails with
 * {@link CliError}: 1 where nothing fits, 2 where what was typed is no fingerprint.
 */
import { timingSafeEqual } from "node:crypto";
import { checkCertificate } from "../certs/certificate-file.ts";
import type { PartnerEdit } from "../config/partner-edit.ts";
import type { NewPin } from "../config/partner-file.ts";
import { rangeHolds } from "../partner/address-range.ts";
import { parseFingerprint } from "../partner/fingerprint.ts";
import type { Partner } from "../partner/partner.ts";
import { mayAuthenticateClients } from "../partner/path.ts";
import { certificateDigest, pinKey, spkiDigest, type Digest, type Pin } from "../partner/pin.ts";
import { pinTitle } from "../partner/rollover.ts";
import { readQuarantine } from "../sightings/reader.ts";
import type { Quarantined } from "../sightings/sightings.ts";
import { dayOf } from "./certificate-text.ts";
import { CliError, jsonText, printable, type Output } from "./output.ts";
import {
  applyChange,
  findPartner,
  inForceText,
  indexOfPin,
  newPinKey,
  pinKindText,
  refuseUnlessInForce,
  settleAgain,
  type Change,
  type ChangeOptions,
  type KnownPartner,
} from "./partner-change.ts";
import { clientUsageWarning, refuseKnownKey } from "./partner-credential.ts";
import { duration } from "./queue.ts";
import type { Terminal } from "./terminal.ts";

/** @param typed the arguments, as words come in several; `-`: it stands on the standard input. */
export async function confirm(
  name: string,
  typed: readonly string[],
  options: ChangeOptions,
  now: Date,
  output: Output,
  terminal: Terminal,
): Promise<void> {
  const parsed = parseFingerprint(typed.join(" ") === "-" ? await terminal.read() : typed.join(" "));
  if (parsed.kind === "fault") throw new CliError(2, parsed.fault);
  const known = await findPartner(name, options.config, now, output);
  const { config, partner } = known;
  const { digest } = parsed;
  const state = partner.pins.some((pin) => pin.state === "active") ? "next" : "active";
  const found = partner.pins.find((pin) => isFingerprintOf(pin, digest));
  if (found !== undefined && found.state !== "pending") {
    await reportKnown(known, found, `fingerprint, ${formOf(typed)}`, options, now, output);
    return;
  }
  let change: Change;
  if (found === undefined) {
    const { seen, pin } = await findSeen(partner, digest, config.spool.path);
    const what = `the certificate ${seen.id} in quarantine`;
    refuseKnownKey(
      { spki: spkiDigest(seen.certificate), certificate: certificateDigest(seen.certificate) },
      config,
      what,
    );
    for (const warning of checkCertificate(seen.certificate, what, now)) {
      output.err(`warning: ${printable(warning)}\n`);
    }
    change = approval(partner, seen, pin, state, now);
    if (change.edits.length > 1) output.err(clientUsageWarning(partner.file));
  } else {
    change = {
      edits: [{ kind: "setPinKeys", index: indexOfPin(partner, found), keys: { state: written(state) } }],
      records: [{ action: "confirm", pin: pinKey(found), how: `fingerprint, ${formOf(typed)}`, details: { state } }],
    };
  }
  const inForce = await applyChange(known, change, options, now);
  const [changed] = change.records;
  if (options.json === true) {
    output.out(jsonText({ partner: name, pin: changed?.pin, state, changed: true, relay: inForce.kind }));
  } else {
    output.out(`${confirmedText(partner, state, found === undefined)}${inForceText(inForce)}`);
  }
  refuseUnlessInForce(inForce);
}

/** The key that stands for a state in the file: active is what a pin without one is. */
function written(state: "active" | "next"): "next" | undefined {
  return state === "active" ? undefined : "next";
}

function isFingerprintOf(pin: Pin, digest: Digest): boolean {
  switch (pin.kind) {
    case "spki":
    case "certificate":
      return isSame(pin.digest, digest);
    case "trustAnchor": {
      const [anchor, ...others] = pin.anchors;
      // One fingerprint says nothing of a second certificate in the same file.
      return anchor !== undefined && others.length === 0 && isSame(certificateDigest(anchor), digest);
    }
  }
}

/** Both have one length. How long it takes tells nothing of where they differ. */
function isSame(a: Digest, b: Digest): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

/** For the journal: in which form it came. */
function formOf(typed: readonly string[]): string {
  if (typed.join(" ") === "-") return "read from the standard input";
  return /(?:[a-z]{3,}[\s,]+){20}/i.test(`${typed.join(" ")} `) ? "24 words" : "typed";
}

async function reportKnown(
  known: KnownPartner,
  pin: Pin,
  how: string,
  options: ChangeOptions,
  now: Date,
  output: Output,
): Promise<void> {
  const { partner } = known;
  if (pin.state === "revoked") {
    throw new CliError(
      1,
      `${pinTitle(pin)} of ${partner.name} was revoked and stays so: ask the partner for a new key`,
    );
  }
  const records = [{ action: "confirm", pin: pinKey(pin), how, details: { state: pin.state } }];
  const { inForce, text } = await settleAgain(known, records, options, now);
  output.out(
    options.json === true
      ? jsonText({ partner: partner.name, pin: pinKey(pin), state: pin.state, changed: false, relay: inForce.kind })
      : `${pinTitle(pin)} of ${partner.name} is confirmed already${text}`,
  );
  refuseUnlessInForce(inForce);
}

/**
 * What the partner has shown and nobody knows, by either fingerprint: that of the certificate vouches for the key in it, and
 * the key is what is pinned, so that a renewal with the same key passes. Fails with 1, and says what is waited for.
 */
async function findSeen(
  partner: Partner,
  digest: Digest,
  spoolPath: string,
): Promise<{ seen: Quarantined; pin: NewPin }> {
  for (const seen of await readQuarantine(spoolPath)) {
    if (!isFrom(partner, seen)) continue;
    const key = spkiDigest(seen.certificate);
    if (isSame(key, digest) || isSame(certificateDigest(seen.certificate), digest)) return { seen, pin: { spki: key } };
  }
  throw new CliError(1, mismatchText(partner));
}

/** From an address that it lists by itself: with `any`, everybody's certificate would be among them. */
function isFrom(partner: Partner, { partners, addresses }: Quarantined): boolean {
  const lists = addresses.some((address) =>
    partner.hosts.some((range) => range.kind === "network" && rangeHolds(range, address)),
  );
  return lists || partners.includes(partner.name);
}

/** What is expected is not shown: it would be typed here without asking anybody. */
function mismatchText(partner: Partner): string {
  const pending = partner.pins.filter(({ state }) => state === "pending");
  if (pending.length === 0) {
    return `no pin of ${partner.name} is waiting, and no certificate with this fingerprint was seen from its hosts: pinrelay partner list --quarantine`;
  }
  const what = pending.map((pin) => `${pinTitle(pin)}, the fingerprint of a ${pinKindText(pin)}`).join("; ");
  return `this fingerprint differs from what is waiting for ${partner.name} (${what}), and no certificate with it was seen from its hosts: have it read to you once more; if it differs again, the certificate is not the partner's${keyHint(pending)}`;
}

/** `openssl x509 -fingerprint` prints the other one, and that is what people know by heart. */
function keyHint(pending: readonly Pin[]): string {
  if (!pending.some(({ kind }) => kind === "spki")) return "";
  return ". Is it the fingerprint of the whole certificate? That of its key is printed by openssl x509 -in CERTIFICATE -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256";
}

function approval(partner: Partner, seen: Quarantined, pin: NewPin, state: "active" | "next", now: Date): Change {
  const usage: PartnerEdit[] =
    partner.extendedKeyUsage === "clientAuth" && !mayAuthenticateClients(seen.certificate)
      ? [{ kind: "setKey", key: "extended-key-usage", value: "any" }]
      : [];
  const added: NewPin = { ...pin, label: `seen ${dayOf(now)}`, ...(state === "next" ? { state } : {}) };
  const key =
    "spki" in pin ? newPinKey("spki", pin.spki) : newPinKey("certificate", certificateDigest(seen.certificate));
  return {
    edits: [{ kind: "addPin", pin: added }, ...usage],
    records: [
      {
        action: "confirm",
        pin: key,
        how: `fingerprint, of the certificate ${seen.id} in quarantine`,
        details: { state, certificate: certificateDigest(seen.certificate), addresses: seen.addresses },
      },
    ],
  };
}

function confirmedText(partner: Partner, state: "active" | "next", fromQuarantine: boolean): string {
  const what = fromQuarantine ? "The certificate in quarantine is the partner's" : "The fingerprint fits";
  const then =
    state === "active"
      ? `the pin of ${partner.name} counts`
      : `the next pin of ${partner.name} counts, and the old one too, until ${duration(partner.rollover.retireAfterMs)} after the first use of the next`;
  return `${what}: ${then}.\n`;
}
