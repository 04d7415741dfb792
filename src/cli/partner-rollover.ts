/**
 * `pinrelay partner rollover`: the next pin of a partner that is there; and its end, in good order or called off.
 *
 * Promises: one rollover at a time; the next pin is pending until `partner confirm`; a pin in use is never removed but
 * where it has retired by itself. Fails with {@link CliError}: 1 where the answer is no, 2 for what was typed or
 * configured wrong.
 */
import { dirname, join } from "node:path";
import { authorityFileName, exists } from "../certs/ca.ts";
import type { PartnerEdit } from "../config/partner-edit.ts";
import type { NewPin } from "../config/partner-file.ts";
import type { Partner } from "../partner/partner.ts";
import { pinKey, type Pin } from "../partner/pin.ts";
import { pinRecord, pinTitle, rolloverState, type RolloverState } from "../partner/rollover.ts";
import { dayOf, shown } from "./certificate-text.ts";
import { caDirectory } from "./command.ts";
import { CliError, jsonText, type Output } from "./output.ts";
import {
  applyChange,
  editFile,
  findPartner,
  inForceText,
  indexOfPin,
  newPinRecord,
  refuseUnlessInForce,
  settleChange,
  type Change,
  type ChangeOptions,
  type InForce,
  type KnownPartner,
} from "./partner-change.ts";
import { credentialJson, credentialText, nextStepsText } from "./partner-credential-text.ts";
import { clientUsageWarning, lacksClientUsage, obtainCredential, type Credential } from "./partner-credential.ts";
import { readSource, type SourceOptions } from "./partner-source.ts";
import { partnerCertificateFile } from "../certs/places.ts";

export interface RolloverOptions extends SourceOptions, ChangeOptions {
  readonly config: string;
  readonly json?: true;
  readonly notBefore?: string;
  readonly notAfter?: string;
  readonly label?: string;
  /** Leaves the dates of the old pin as they are. */
  readonly keepDates?: true;
  readonly finish?: true;
  readonly cancel?: true;
  readonly qr?: true;
}

export const rolloverSources = ["cert", "csr", "pin", "fromQuarantine", "fromHost"] as const;

export async function rollover(
  name: string,
  options: RolloverOptions,
  now: Date,
  output: Output,
  shows: boolean,
): Promise<void> {
  const isSourceGiven = rolloverSources.some((flag) => options[flag] !== undefined);
  if (options.finish === true || options.cancel === true) {
    if (isSourceGiven || (options.finish === true && options.cancel === true)) {
      throw new CliError(2, "--finish and --cancel go alone: give one of them, or a source of the next pin");
    }
    const known = await findPartner(name, options.config, now, output);
    const state = rolloverState(known.partner, known.sightings, known.history, now);
    await end(known, options.finish === true ? finish(known, state) : cancel(known, state), options, now, output);
    return;
  }
  await begin(name, options, now, output, shows);
}

async function begin(name: string, options: RolloverOptions, now: Date, output: Output, shows: boolean): Promise<void> {
  const source = readSource(options, rolloverSources);
  const known = await findPartner(name, options.config, now, output);
  const { config, partner } = known;
  const state = rolloverState(partner, known.sightings, known.history, now);
  refuseUnderWay(partner, state);
  const at = {
    config,
    name,
    partnersFolder: dirname(partner.file),
    hosts: partner.hosts,
    signedFile: await nextCertificateFile(caDirectory(options), name, now),
    now,
  };
  const credential = await obtainCredential(source, options, at, output);
  const tidied = tidyEdits(partner, state);
  const pin: NewPin = {
    ...credential.pin,
    label: options.label ?? `rollover ${dayOf(now)}`,
    state: "pending",
    ...(options.notBefore === undefined ? {} : { notBefore: options.notBefore }),
    ...(options.notAfter === undefined ? {} : { notAfter: options.notAfter }),
  };
  const needsAny = partner.extendedKeyUsage === "clientAuth" && lacksClientUsage(credential);
  const dated = options.keepDates === true ? [] : datesOfOld(known, tidied.edits, now);
  const edits: PartnerEdit[] = [
    ...tidied.edits,
    ...dated.map(({ index, day }) => ({ kind: "setPinKeys", index, keys: { "not-after": day } }) as const),
    { kind: "addPin", pin },
    ...(needsAny ? [{ kind: "setKey", key: "extended-key-usage", value: "any" } as const] : []),
  ];
  const records = [...tidied.records, newPinRecord("rollover", credential)];
  try {
    await editFile(partner, edits, now);
  } catch (error) {
    await credential.undo(); // the first error is the one that tells
    throw error;
  }
  const inForce = await settleChange(known, records, options, now);
  if (needsAny) output.err(clientUsageWarning(partner.file));
  for (const warning of gapWarnings(options.notBefore, known, credential, now)) output.err(`warning: ${warning}\n`);
  report(partner, credential, dated, inForce, options, output, shows);
  refuseUnlessInForce(inForce);
}

function refuseUnderWay(partner: Partner, state: RolloverState): void {
  const { name } = partner;
  switch (state.kind) {
    case "none":
      if (partner.pins.some((pin) => pin.state === "pending")) {
        throw new CliError(
          1,
          `${name} has a pin that is not confirmed yet: pinrelay partner confirm ${name} FINGERPRINT`,
        );
      }
      return;
    case "retired": // it is finished on the way
      return;
    case "unconfirmed":
      throw new CliError(
        1,
        `a rollover of ${name} is under way: ${state.pending.map(pinTitle).join(", ")} waits for pinrelay partner confirm; --cancel calls it off`,
      );
    case "waiting":
      throw new CliError(
        1,
        `a rollover of ${name} is under way: ${state.next.map(pinTitle).join(", ")} has not been used yet; --cancel calls it off`,
      );
    case "overlapping":
      throw new CliError(
        1,
        `a rollover of ${name} is under way: ${state.old.map(pinTitle).join(", ")} retires on ${dayOf(state.retiresAt)}; after that a new one can begin`,
      );
  }
}

/** A next pin that begins when the old one, or its own certificate, has ended: nobody could send in between, or at all. */
function gapWarnings(
  notBefore: string | undefined,
  { partner, sightings }: KnownPartner,
  { certificate }: Credential,
  now: Date,
): string[] {
  if (notBefore === undefined) return [];
  const begins = new Date(notBefore);
  const ends = partner.pins
    .filter(({ state }) => state === "active" || state === "next")
    .flatMap((pin) => pin.notAfter ?? pinRecord(partner, pin, sightings).certificate?.validToDate ?? []);
  const last = new Date(Math.max(...ends.map((date) => date.getTime())));
  return [
    ...(ends.length > 0 && last > now && last < begins
      ? [`no pin of ${partner.name} counts between ${dayOf(last)} and ${dayOf(begins)}: give an earlier --not-before`]
      : []),
    ...(certificate !== undefined && certificate.validToDate < begins
      ? [`the new certificate ends on ${dayOf(certificate.validToDate)}, before its pin begins`]
      : []),
  ];
}

/** The file of the certificate that identifies it now stays where it is. */
async function nextCertificateFile(directory: string, name: string, now: Date): Promise<string> {
  const first = partnerCertificateFile(directory, name);
  if (!(await exists(first))) return first;
  // A partner's name has no dot, so that no other partner's file has this name.
  const dated = partnerCertificateFile(directory, `${name}.${dayOf(now)}`);
  return (await exists(dated)) ? partnerCertificateFile(directory, `${name}.${now.toISOString()}`) : dated;
}

interface OldEnd {
  readonly index: number;
  readonly pin: Pin;
  /** `YYYY-MM-DD` */
  readonly day: string;
}

/** The old pin ends with its certificate, so that nobody wonders what it is still there for. */
function datesOfOld({ partner, sightings }: KnownPartner, others: readonly PartnerEdit[], now: Date): OldEnd[] {
  const isRemoved = (index: number): boolean =>
    others.some((edit) => edit.kind === "removePin" && edit.index === index);
  return partner.pins.flatMap((pin, index): OldEnd[] => {
    const counts = pin.state === "active" || pin.state === "next";
    if (pin.kind !== "spki" || !counts || pin.notAfter !== undefined || isRemoved(index)) return [];
    const ends = pinRecord(partner, pin, sightings).certificate?.validToDate;
    return ends === undefined || ends < now ? [] : [{ index, pin, day: dayOf(ends) }];
  });
}

/** What is left over of the rollover before: old pins that have retired go, and the next ones become the active ones. */
function tidyEdits(partner: Partner, state: RolloverState): Pick<Change, "edits" | "records"> {
  if (state.kind !== "retired" && state.kind !== "none") return { edits: [], records: [] };
  const old = state.kind === "retired" ? state.old : [];
  const next = partner.pins.filter((pin) => pin.state === "next");
  const edits: PartnerEdit[] = [
    ...old.map((pin) => ({ kind: "removePin", index: indexOfPin(partner, pin) }) as const),
    ...next.map(
      (pin) => ({ kind: "setPinKeys", index: indexOfPin(partner, pin), keys: { state: undefined } }) as const,
    ),
  ];
  const details = { removed: old.map(pinKey), active: next.map(pinKey) };
  return { edits, records: edits.length === 0 ? [] : [{ action: "finish", how: "the old pin has retired", details }] };
}

interface Ending extends Change {
  readonly said: string;
}

function finish({ partner }: KnownPartner, state: RolloverState): Ending {
  const tidied = tidyEdits(partner, state);
  if (tidied.edits.length > 0) {
    const gone = state.kind === "retired" ? `${state.old.map(pinTitle).join(", ")} removed, ` : "";
    const next = partner.pins.filter((pin) => pin.state === "next");
    return {
      ...tidied,
      said: `The rollover of ${partner.name} is finished: ${gone}${next.map(pinTitle).join(", ")} active.\n`,
    };
  }
  switch (state.kind) {
    case "none":
    case "retired":
      throw new CliError(1, `there is no rollover of ${partner.name} to finish`);
    case "unconfirmed":
      throw new CliError(
        1,
        `the rollover of ${partner.name} is not confirmed yet: nothing to finish; --cancel calls it off`,
      );
    case "waiting":
      throw new CliError(1, `the next pin of ${partner.name} has not been used yet: the old one is still needed`);
    case "overlapping":
      throw new CliError(
        1,
        `the old pin of ${partner.name} is still good: it retires on ${dayOf(state.retiresAt)}; pinrelay partner revoke ends it now`,
      );
  }
}

function cancel({ partner, history }: KnownPartner, state: RolloverState): Ending {
  const wrong = (pin: Pin): boolean => pin.state === "pending" || pin.state === "next";
  const candidates = state.kind === "none" ? [] : partner.pins.filter(wrong);
  if (candidates.length === 0) throw new CliError(1, `there is no rollover of ${partner.name} to cancel`);
  for (const pin of candidates) {
    const since = pin.state === "next" ? history.firstSeen(partner, pin) : undefined;
    if (since === undefined) continue;
    throw new CliError(
      1,
      `${pinTitle(pin)} of ${partner.name} has been in use since ${dayOf(since)}: it cannot be called off any more`,
    );
  }
  return {
    edits: candidates.map((pin) => ({ kind: "removePin", index: indexOfPin(partner, pin) })),
    records: candidates.map((pin) => ({ action: "cancel", pin: pinKey(pin), how: "it has never been used" })),
    said: `The rollover of ${partner.name} is called off: ${candidates.map(pinTitle).join(", ")} removed.\n`,
  };
}

async function end(
  known: KnownPartner,
  ending: Ending,
  options: RolloverOptions,
  now: Date,
  output: Output,
): Promise<void> {
  const inForce = await applyChange(known, ending, options, now);
  output.out(
    options.json === true
      ? jsonText({
          partner: known.partner.name,
          changed: ending.records,
          relay: inForce.kind,
        })
      : `${ending.said}${inForceText(inForce)}`,
  );
  refuseUnlessInForce(inForce);
}

function report(
  partner: Partner,
  credential: Credential,
  dated: readonly OldEnd[],
  inForce: InForce,
  options: RolloverOptions,
  output: Output,
  shows: boolean,
): void {
  const { name, file } = partner;
  if (options.json === true) {
    output.out(jsonText({ partner: name, file, state: "pending", ...credentialJson(credential), relay: inForce.kind }));
    return;
  }
  const { signedFile } = credential;
  output.out(
    [
      `Added the next pin of ${name}, not confirmed yet: ${shown(file)}\n`,
      ...dated.map(({ pin, day }) => `The old pin ${pinTitle(pin)} ends with its certificate, on ${day}\n`),
      signedFile === undefined ? "" : `Signed its certificate: ${shown(signedFile)}\n`,
      credentialText(credential, options.qr ?? shows),
      nextStepsText(name, credential, join(caDirectory(options), authorityFileName)),
      inForceText(inForce, "pending"),
    ].join(""),
  );
}
