/**
 * `pinrelay partner list` and `show`: who the partners are, how their rollovers stand, and which certificates nobody knows.
 *
 * Promises: changes nothing. Fails with {@link CliError}: 1 where there is no such partner, 2 where the configuration is
 * invalid.
 */
import { readSignedCertificates } from "../certs/signed.ts";
import { PartnerIndex } from "../partner/identity.ts";
import { spkiDigest } from "../partner/pin.ts";
import { rolloverState, rolloverWarningText, type RolloverState } from "../partner/rollover.ts";
import { readPinSightings, readQuarantine } from "../sightings/reader.ts";
import type { Quarantined } from "../sightings/sightings.ts";
import { dayOf, describeCertificate } from "./certificate-text.ts";
import { caDirectory, loadValidConfig } from "./command.ts";
import { formatTable, jsonText, printable, type Output } from "./output.ts";
import { findPartner } from "./partner-change.ts";
import { describePartner, knownEnd, partnerJson, partnerRow, partnerTableHeader } from "./partner-text.ts";
import { drawTimeline, timelineBars } from "./partner-timeline.ts";

export interface ShowOptions {
  readonly config: string;
  readonly ca?: string;
  readonly json?: true;
}

export async function listPartners(options: ShowOptions, now: Date, output: Output): Promise<void> {
  const { partners, spool } = await loadValidConfig(options.config, now, output);
  const names = new Set(partners.map(({ name }) => name));
  const signedFor = Map.groupBy(await readSignedCertificates(caDirectory(options), names), ({ partner }) => partner);
  const usesOf = Map.groupBy(await readPinSightings(spool.path), ({ partner }) => partner);
  const known = partners.map((partner) => {
    const uses = usesOf.get(partner.name) ?? [];
    return { partner, uses, end: knownEnd(partner, signedFor.get(partner.name) ?? [], uses) };
  });
  if (options.json) {
    output.out(jsonText(known.map(({ partner, end, uses }) => partnerJson(partner, end, uses))));
  } else if (partners.length === 0) {
    output.out("There is no partner yet: pinrelay partner enrol --help tells how to add one.\n");
  } else {
    const rows = known.map(({ partner, end }) => partnerRow(partner, end));
    output.out(formatTable(rows, partnerTableHeader));
  }
}

export async function showPartner(name: string, options: ShowOptions, now: Date, output: Output): Promise<void> {
  const { config, partner, sightings, history } = await findPartner(name, options.config, now, output);
  const end = knownEnd(partner, await readSignedCertificates(caDirectory(options), new Set([name])), sightings);
  const state = rolloverState(partner, sightings, history, now, config.expiry.warnMs);
  const warnings = state.warnings.map((warning) => rolloverWarningText(warning, partner, now));
  if (options.json) {
    output.out(jsonText({ ...partnerJson(partner, end, sightings), state: { ...stateJson(state), warnings } }));
    return;
  }
  output.out(describePartner(partner, end, sightings));
  output.out(`Rollover: ${stateText(state)}\n${drawTimeline(timelineBars(partner, sightings, history), now)}`);
  for (const warning of warnings) output.out(`Warning: ${printable(warning)}\n`);
}

function stateText(state: RolloverState): string {
  switch (state.kind) {
    case "none":
      return "none under way";
    case "unconfirmed":
      return "the next pin waits for its confirmation";
    case "waiting":
      return "the next pin counts, and has not been used yet";
    case "overlapping":
      return `the next pin is in use since ${dayOf(state.nextFirstSeen)}, the old one retires on ${dayOf(state.retiresAt)}`;
    case "retired":
      return `the old pin has retired on ${dayOf(state.since)}`;
  }
}

function stateJson(state: RolloverState): object {
  switch (state.kind) {
    case "none":
    case "unconfirmed":
    case "waiting":
      return { kind: state.kind };
    case "overlapping":
      return {
        kind: state.kind,
        nextFirstSeen: state.nextFirstSeen.toISOString(),
        retiresAt: state.retiresAt.toISOString(),
      };
    case "retired":
      return { kind: state.kind, since: state.since.toISOString() };
  }
}

export async function listQuarantine(options: ShowOptions, now: Date, output: Output): Promise<void> {
  const { partners, spool } = await loadValidConfig(options.config, now, output);
  const index = new PartnerIndex(partners);
  // What has been confirmed since, or was revoked, is nobody's question any more.
  const isAnswered = ({ certificate }: Quarantined): boolean =>
    index.matches([certificate]).some(({ pin }) => pin.state !== "pending");
  const waiting = (await readQuarantine(spool.path)).filter((seen) => !isAnswered(seen));
  if (options.json) output.out(jsonText(waiting.map(quarantinedJson)));
  else if (waiting.length === 0) output.out("Nothing is in quarantine: nobody has shown an unknown certificate.\n");
  else output.out(waiting.map(quarantinedText).join("\n"));
}

function quarantinedText(seen: Quarantined): string {
  const { id, certificate, partners, addresses, count } = seen;
  const lines = [
    `${id}  from ${addresses.join(", ")}${partners.length === 0 ? "" : `, a host of ${partners.join(", ")}`}`,
    `  key      ${spkiDigest(certificate)}`,
    `  seen     ${timeText(seen.firstSeenMs)} to ${timeText(seen.lastSeenMs)}, ${count} ${count === 1 ? "time" : "times"}`,
    ...approvals(seen).map((command, at) => `  ${(at === 0 ? "approve" : "").padEnd(9)}${command}`),
    "           with the fingerprint that the partner reads to you, not the one above",
  ];
  const [head = "", ...rest] = lines.map((line) => `${printable(line)}\n`);
  return `${head}${describeCertificate(certificate)}${rest.join("")}`;
}

/** The commands that let it in, each with a fingerprint from a second channel. */
function approvals({ id, partners }: Quarantined): string[] {
  return partners.length === 0
    ? [`pinrelay partner enrol NAME --from-quarantine ${id} --from RULE --to RULE`]
    : partners.map((name) => `pinrelay partner confirm ${name} FINGERPRINT`);
}

function quarantinedJson(seen: Quarantined): object {
  const { id, certificate, partners, addresses, count } = seen;
  return {
    id,
    addresses,
    partners,
    subject: certificate.subject,
    names: certificate.subjectAltName,
    issuer: certificate.issuer,
    notBefore: instantOf(certificate.validFromDate),
    notAfter: instantOf(certificate.validToDate),
    spki: spkiDigest(certificate),
    firstSeen: new Date(seen.firstSeenMs).toISOString(),
    lastSeen: new Date(seen.lastSeenMs).toISOString(),
    count,
    approve: approvals(seen),
  };
}

/** Null where the certificate says something that is no date. */
function instantOf(date: Date): string | null {
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
