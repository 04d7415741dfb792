/**
 * `pinrelay partner revoke`: a pin that lets nobody in any more. It is kept in the file as revoked, so that nobody enrols
 * the same key again by mistake.
 *
 * Promises: nothing is revoked that was not named or confirmed; sessions under the pin end with the reload. Fails with
 * {@link CliError}: 1 where the answer is no, 2 for what was typed or configured wrong.
 */
import { parseFingerprint } from "../partner/fingerprint.ts";
import type { Partner } from "../partner/partner.ts";
import { certificateDigest, pinKey, type Pin } from "../partner/pin.ts";
import { pinTitle } from "../partner/rollover.ts";
import { shown } from "./certificate-text.ts";
import { caDirectory } from "./command.ts";
import { CliError, jsonText, type Output } from "./output.ts";
import {
  applyChange,
  findPartnerInHaste,
  inForceText,
  indexOfPin,
  refuseUnlessInForce,
  settleAgain,
  type ChangeOptions,
} from "./partner-change.ts";
import { signedFileOf } from "./partner-text.ts";
import type { Terminal } from "./terminal.ts";

export interface RevokeOptions extends ChangeOptions {
  readonly ca?: string;
  readonly label?: string;
  readonly all?: true;
  readonly reason?: string;
  readonly yes?: true;
}

/** @param typed a fingerprint, in several arguments where it is words. */
export async function revoke(
  name: string,
  typed: readonly string[],
  options: RevokeOptions,
  now: Date,
  output: Output,
  terminal: Terminal,
): Promise<void> {
  const selectors = [typed.length > 0, options.label !== undefined, options.all === true].filter(Boolean);
  if (selectors.length > 1) throw new CliError(2, "name the pin in one way: by its fingerprint, by --label, or --all");
  const known = await findPartnerInHaste(name, options.config, now, output);
  const { partner } = known;
  const chosen = choosePins(partner, typed, options);
  const pins = chosen.filter(({ state }) => state !== "revoked");
  const said = chosen.map(pinTitle).join(", ");
  if (pins.length === 0) {
    const records = chosen.map((pin) => ({ action: "revoke", pin: pinKey(pin), how: "asked for again" }));
    const { inForce, text } = await settleAgain(known, records, options, now);
    output.out(
      options.json === true
        ? jsonText({ partner: name, revoked: [], changed: false, relay: inForce.kind })
        : `${said} of ${name} is revoked already${text}`,
    );
    refuseUnlessInForce(inForce, stillPasses(name));
    return;
  }
  if (options.yes !== true) await ask(partner, pins, terminal);
  const change = {
    edits: pins.map(
      (pin) => ({ kind: "setPinKeys", index: indexOfPin(partner, pin), keys: { state: "revoked" } }) as const,
    ),
    records: pins.map((pin) => ({
      action: "revoke",
      pin: pinKey(pin),
      how: options.yes === true ? "--yes" : "confirmed at the terminal",
      details: { was: pin.state, ...(options.reason === undefined ? {} : { reason: options.reason }) },
    })),
  };
  const inForce = await applyChange(known, change, options, now);
  if (options.json === true) {
    output.out(jsonText({ partner: name, revoked: pins.map(pinKey), changed: true, relay: inForce.kind }));
  } else {
    output.out(`Revoked ${pins.map(pinTitle).join(", ")} of ${name}.\n`);
    if (!partner.pins.some((pin) => isGood(pin) && !pins.includes(pin))) {
      output.out(
        `No pin of ${name} counts any more, its mail waits on its side: pinrelay partner rollover ${name} --help\n`,
      );
    }
    for (const pin of pins) {
      const file = await signedFileOf(partner, pin, caDirectory(options));
      if (file !== undefined) output.out(`Our CA signed its certificate: pinrelay ca revoke ${shown(file)}\n`);
    }
    output.out(inForceText(inForce));
  }
  refuseUnlessInForce(inForce, stillPasses(name));
}

/** The one thing that an operator in haste must not overlook. */
function stillPasses(name: string): string {
  return `the file is changed, but the running relay goes on as before: MAIL OF ${name} STILL PASSES until pinrelay reload succeeds; correct this first:`;
}

function isGood({ state }: Pin): boolean {
  return state === "active" || state === "next";
}

function choosePins(partner: Partner, typed: readonly string[], options: RevokeOptions): readonly Pin[] {
  const { name, pins } = partner;
  if (options.all === true) return pins;
  const labels = pins.map(pinTitle).join(", ");
  if (options.label !== undefined) {
    const found = pins.filter(({ label }) => label === options.label);
    if (found.length === 1) return found;
    const what = found.length === 0 ? "no pin" : `${found.length} pins`;
    throw new CliError(1, `${name} has ${what} with the label '${options.label}', of ${labels}`);
  }
  if (typed.length > 0) {
    const parsed = parseFingerprint(typed.join(" "));
    if (parsed.kind === "fault") throw new CliError(2, parsed.fault);
    const found = pins.filter((pin) =>
      pin.kind === "trustAnchor"
        ? pin.anchors.some((anchor) => certificateDigest(anchor) === parsed.digest)
        : pin.digest === parsed.digest,
    );
    if (found.length === 0) throw new CliError(1, `no pin of ${name} has this fingerprint: it has ${labels}`);
    return found;
  }
  const left = pins.filter(({ state }) => state !== "revoked");
  if (left.length > 1) {
    throw new CliError(2, `${name} has ${left.length} pins (${left.map(pinTitle).join(", ")}): say which, or --all`);
  }
  return left.length === 1 ? left : pins;
}

/** Fails with 2 where nobody is there to be asked, with 1 where the answer is no. */
async function ask({ name }: Partner, pins: readonly Pin[], terminal: Terminal): Promise<void> {
  const what = `${pins.map(pinTitle).join(", ")} of ${name}`;
  const answer = await terminal.ask(`Revoke ${what}? Its mail stops at once. Type the partner's name to confirm: `);
  if (answer === undefined) throw new CliError(2, `${what}: add --yes to revoke it without being asked`);
  if (answer.trim() !== name) throw new CliError(1, "nothing is revoked: that was not the partner's name");
}
