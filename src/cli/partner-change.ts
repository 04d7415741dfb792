/**
 * What every command that changes a partner does alike: finds the partner, edits its file, writes down who did it, and
 * lets the running relay know.
 *
 * Promises: the file first, then the journal, then the reload; what is said at the end is what came of each. Fails with
 * {@link CliError}: 1 where the answer is no, 2 where the configuration or the file would be invalid.
 */
import { readActions, recordAction, whoAmI, type OperatorAction } from "../audit/operator-journal.ts";
import { resolve } from "node:path";
import { loadConfig } from "../config/load.ts";
import { editPartnerFile, type PartnerEdit } from "../config/partner-edit.ts";
import { PartnerFileError } from "../config/partner-file.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { loadSnapshot } from "../config/snapshot.ts";
import type { Partner } from "../partner/partner.ts";
import { certificateDigest, pinKey, type Digest, type Pin } from "../partner/pin.ts";
import { historyOf, readPinSightings } from "../sightings/reader.ts";
import type { PinSighting } from "../sightings/sightings.ts";
import type { PinHistory } from "../partner/rollover.ts";
import { requestReload } from "../supervisor/reload-request.ts";
import { snapshotFile } from "../supervisor/state.ts";
import { shown } from "./certificate-text.ts";
import { findSpool, loadValidConfig } from "./command.ts";
import { CliError, type Output } from "./output.ts";
import type { Credential } from "./partner-credential.ts";

/** The options that all of them take. */
export interface ChangeOptions {
  readonly config: string;
  readonly json?: true;
  /** False: `--no-reload`. */
  readonly reload: boolean;
}

/** A partner, and what is known of its certificates. */
export interface KnownPartner {
  readonly config: RelayConfig;
  readonly partner: Partner;
  readonly sightings: readonly PinSighting[];
  readonly history: PinHistory;
}

/** Fails with 1 if there is no such partner. */
export async function findPartner(name: string, configFile: string, now: Date, output: Output): Promise<KnownPartner> {
  const config = await loadValidConfig(configFile, now, output);
  const partner = config.partners.find((candidate) => candidate.name === name);
  if (partner === undefined) {
    throw new CliError(1, `there is no partner '${name}': pinrelay partner list shows those there are`);
  }
  const sightings = await readPinSightings(config.spool.path);
  return { config, partner, sightings, history: historyOf(sightings) };
}

/**
 * The same for what cannot wait: while some other file is invalid, the partner is taken as it is in force, or as it was
 * when the relay last ran. The change is written; whether it counts is for the reload to say.
 */
export async function findPartnerInHaste(
  name: string,
  configFile: string,
  now: Date,
  output: Output,
): Promise<KnownPartner> {
  if ((await loadConfig(configFile, now)).kind === "loaded") return findPartner(name, configFile, now, output);
  const { path } = await findSpool(configFile, now, output);
  const inForce = await loadSnapshot(snapshotFile(path), resolve(configFile)).catch(() => undefined);
  if (inForce?.kind !== "loaded") return findPartner(name, configFile, now, output); // says what is wrong
  const { config } = inForce;
  const partner = config.partners.find((candidate) => candidate.name === name);
  if (partner === undefined) throw new CliError(1, `there is no partner '${name}' in force: see pinrelay partner list`);
  const sightings = await readPinSightings(path);
  return { config, partner, sightings, history: historyOf(sightings) };
}

export interface Change {
  readonly edits: readonly PartnerEdit[];
  /** What stands in the journal of each pin that is changed. */
  readonly records: ReadonlyArray<Pick<OperatorAction, "action" | "pin" | "how" | "details">>;
}

/** What came of it for the relay that runs. */
export type InForce = { readonly kind: "notAsked" } | Awaited<ReturnType<typeof requestReload>>;

/** Edits the partner's file, records it and, if the options say so, has the running relay take it up. */
export async function applyChange(
  known: Pick<KnownPartner, "config" | "partner">,
  change: Change,
  options: ChangeOptions,
  now: Date,
): Promise<InForce> {
  await editFile(known.partner, change.edits, now);
  return settleChange(known, change.records, options, now);
}

/** Fails with 2, and then nothing has changed. */
export async function editFile(partner: Partner, edits: readonly PartnerEdit[], now: Date): Promise<void> {
  try {
    await editPartnerFile(partner.file, edits, { now, expected: partner });
  } catch (error) {
    if (error instanceof PartnerFileError) throw new CliError(2, error.message, { cause: error });
    throw error;
  }
}

/** What follows once the file is changed. What cannot be recorded is in force all the same: a revocation cannot wait. */
export async function settleChange(
  { config, partner }: { readonly config: RelayConfig; readonly partner: Pick<Partner, "name" | "file"> },
  records: Change["records"],
  options: ChangeOptions,
  now: Date,
): Promise<InForce> {
  const recorded = await Promise.allSettled([record(config, partner.name, partner.file, records, now)]);
  const inForce: InForce = options.reload ? await requestReload(config.spool.path) : { kind: "notAsked" };
  for (const result of recorded) if (result.status === "rejected") throw result.reason;
  return inForce;
}

/**
 * What stands in the file already may be unknown to the journal and to the relay that runs: whoever did it may have died
 * in between, or another file was invalid then. Both are made up for.
 * @returns what there is to say of it.
 */
export async function settleAgain(
  known: Pick<KnownPartner, "config" | "partner">,
  records: Change["records"],
  options: ChangeOptions,
  now: Date,
): Promise<{ readonly inForce: InForce; readonly text: string }> {
  const actions = await readActions(known.config.audit.path);
  const missing = records.filter(
    ({ action, pin }) =>
      !actions.some((one) => one.partner === known.partner.name && one.action === action && one.pin === pin),
  );
  const found = missing.map((one) => ({ ...one, how: `${one.how ?? ""}; it stood in the file already` }));
  const inForce = await settleChange(known, found, options, now);
  if (inForce.kind === "notRunning" && missing.length === 0) return { inForce, text: ": nothing to do.\n" };
  return { inForce, text: `.\n${inForceText(inForce)}` };
}

/** Writes down what has been done. */
export async function record(
  config: RelayConfig,
  partner: string,
  file: string,
  records: Change["records"],
  now: Date,
): Promise<void> {
  try {
    for (const one of records) await recordAction(config.audit.path, { at: now, who: whoAmI(), partner, ...one });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(1, `${shown(file)} is changed, but that cannot be recorded: ${reason}`, { cause: error });
  }
}

/** The last line of a command. */
export function inForceText(inForce: InForce, pinCounts: "counts" | "pending" = "counts"): string {
  switch (inForce.kind) {
    case "notAsked":
      return "The running relay has not been told: pinrelay reload does that.\n";
    case "notRunning":
      return "The relay is not running: it will use this when it starts.\n";
    case "reloaded":
      return pinCounts === "counts"
        ? "The running relay uses it from now on.\n"
        : "The running relay knows of it: mail under this pin waits at the partner until it is confirmed.\n";
    case "refused":
    case "timeout":
      return "";
  }
}

/** Ends the command with 1 where the running relay has not taken the change up; to be called last. */
export function refuseUnlessInForce(
  inForce: InForce,
  consequence = "the file is changed, but the running relay goes on as before",
): void {
  switch (inForce.kind) {
    case "notAsked":
    case "notRunning":
    case "reloaded":
      return;
    case "refused":
      throw new CliError(1, `${consequence}\n${inForce.problems.join("\n")}`);
    case "timeout":
      throw new CliError(1, "the file is changed, but the running relay has not answered: see pinrelay status");
  }
}

/** For people: what kind of fingerprint a pin has. */
export function pinKindText(pin: Pin): string {
  switch (pin.kind) {
    case "spki":
      return "key";
    case "certificate":
      return "certificate";
    case "trustAnchor":
      return "CA's certificate";
  }
}

/** The key that a new pin will have in records. */
export function newPinKey(kind: "spki" | "certificate", digest: Digest): string {
  return `${kind} ${digest}`;
}

/** What the journal has of a pin that was added. */
export function newPinRecord(action: string, credential: Credential): Change["records"][number] {
  const { certificate, fingerprint, fingerprintOf, how, signedFile, source } = credential;
  const details = {
    state: "pending",
    ...(certificate === undefined ? {} : { certificate: certificateDigest(certificate) }),
    ...(signedFile === undefined ? {} : { signedFile }),
  };
  if (source.kind === "trustAnchor") {
    return { action, pin: `trust-anchor ${fingerprint} for ${source.name}`, how, details };
  }
  return { action, pin: newPinKey(fingerprintOf === "key" ? "spki" : "certificate", fingerprint), how, details };
}

/** Where a pin stands in the file's list. */
export function indexOfPin(partner: Partner, pin: Pin): number {
  return partner.pins.findIndex((candidate) => pinKey(candidate) === pinKey(pin));
}
