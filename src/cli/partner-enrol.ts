/**
 * `pinrelay partner enrol`: from a certificate, or whatever else tells which one it is, to a partner's file.
 *
 * Promises: the new pin is pending: it lets nobody in until `partner confirm`. Nothing is overwritten; the partner's file
 * is written last, and where that fails the certificate that was signed for it is taken away again. Fails with
 * {@link CliError} or {@link CertificateFault}: 1 where the partner or its key is there already or the request is refused,
 * 2 for what was typed or configured wrong.
 */
import { dirname, join, resolve } from "node:path";
import { authorityFileName, exists } from "../certs/ca.ts";
import { formatProblem, loadConfig } from "../config/load.ts";
import { PartnerFileError, writeNewPartner, type NewPartner } from "../config/partner-file.ts";
import { isPartnerName } from "../config/partner.ts";
import { parseAddressRange, type AddressRange } from "../partner/address-range.ts";
import { parseFingerprint } from "../partner/fingerprint.ts";
import type { Digest } from "../partner/pin.ts";
import { dayOf, shown } from "./certificate-text.ts";
import { caDirectory, loadValidConfig, readConfigText } from "./command.ts";
import { CliError, jsonText, type Output } from "./output.ts";
import { inForceText, newPinRecord, refuseUnlessInForce, settleChange, type InForce } from "./partner-change.ts";
import { credentialJson, credentialText, nextStepsText } from "./partner-credential-text.ts";
import { clientUsageWarning, lacksClientUsage, obtainCredential, type Credential } from "./partner-credential.ts";
import { readSource, type SourceOptions } from "./partner-source.ts";
import { partnerCertificateFile } from "../certs/places.ts";

export interface EnrolOptions extends SourceOptions {
  readonly host?: readonly string[];
  readonly from: readonly string[];
  readonly to: readonly string[];
  readonly contact?: string;
  readonly description?: string;
  readonly label?: string;
  readonly deliverDomain?: readonly string[];
  readonly deliverServer?: readonly string[];
  readonly deliverName?: string;
  readonly deliverPin?: readonly string[];
  readonly qr?: true;
  /** False: `--no-reload`. */
  readonly reload: boolean;
}

export const enrolSources = ["cert", "csr", "pin", "trustAnchor", "fromQuarantine", "fromHost"] as const;

/** @param shows does a person see the output? Then it has a QR code. */
export async function enrol(
  name: string,
  options: EnrolOptions,
  now: Date,
  output: Output,
  shows: boolean,
): Promise<void> {
  if (!isPartnerName(name)) {
    throw new CliError(2, `'${name}' is no name for a partner: use lower-case letters, digits and hyphens, as acme-2`);
  }
  const source = readSource(options, enrolSources);
  if (options.host === undefined && source.kind !== "quarantine") {
    throw new CliError(2, "required option '--host <range...>' not specified: where does the partner connect from?");
  }
  const hosts = parseHosts(options.host ?? []);
  const deliver = readDeliver(options);
  const config = await loadValidConfig(options.config, now, output);
  const folder = await partnersFolder(options.config);
  const file = join(folder, `${name}.yaml`);
  if (await exists(file)) {
    throw new CliError(
      1,
      `${shown(file)}: exists and is left as it is: a new certificate for it comes with pinrelay partner rollover ${name}`,
    );
  }
  const signedFile = partnerCertificateFile(caDirectory(options), name);
  const at = { config, name, partnersFolder: folder, hosts, signedFile, now };
  const credential = await obtainCredential(source, options, at, output);
  const partner = { ...newPartner(name, options, credential, now), ...(deliver === undefined ? {} : { deliver }) };
  try {
    await writeNewPartner(folder, partner, now);
  } catch (error) {
    await credential.undo(); // the first error is the one that tells
    if (error instanceof PartnerFileError) throw new CliError(2, error.message, { cause: error });
    throw error;
  }
  const records = [newPinRecord("enrol", credential)];
  // In force at once, so that the partner's first mail waits there and is not sent back.
  const inForce = await settleChange({ config, partner: { name, file } }, records, options, now);
  if (lacksClientUsage(credential)) output.err(clientUsageWarning(file));
  await warnOf(file, options.config, now, output);
  report(name, file, credential, inForce, options, output, shows);
  refuseUnlessInForce(inForce);
}

function parseHosts(texts: readonly string[]): AddressRange[] {
  return texts.map((text) => {
    const range = parseAddressRange(text);
    if (range.kind === "fault") throw new CliError(2, `--host ${text}: ${range.fault}`);
    return range;
  });
}

/** Not in the loaded configuration: with no partner in it, nothing there tells the folder. */
async function partnersFolder(configFile: string): Promise<string> {
  return resolve(dirname(configFile), (await readConfigText(configFile, "partners")) ?? "partners");
}

function newPartner(name: string, options: EnrolOptions, credential: Credential, now: Date): NewPartner {
  const { host, from, to, description, contact, label = `enrolled ${dayOf(now)}` } = options;
  return {
    name,
    hosts: host ?? credential.addresses,
    pins: [{ ...credential.pin, label, state: "pending" }],
    from,
    to,
    ...(lacksClientUsage(credential) ? { extendedKeyUsage: "any" as const } : {}),
    ...(description === undefined ? {} : { description }),
    ...(contact === undefined ? {} : { contact }),
  };
}

/** What a partner's file says under `deliver`; undefined: nothing. */
function readDeliver(options: EnrolOptions): NewPartner["deliver"] {
  const { deliverDomain: domains = [], deliverServer: servers = [], deliverName: name, deliverPin = [] } = options;
  if (domains.length === 0 && servers.length === 0 && name === undefined && deliverPin.length === 0) return undefined;
  if (domains.length === 0 || servers.length === 0 || deliverPin.length === 0) {
    throw new CliError(2, "mail to the partner needs --deliver-domain, --deliver-server and --deliver-pin together");
  }
  const pins = deliverPin.map((text): Digest => {
    const parsed = parseFingerprint(text);
    if (parsed.kind === "fault") throw new CliError(2, `--deliver-pin: ${parsed.fault}`);
    return parsed.digest;
  });
  return {
    domains,
    servers: servers.map((text) => ({ ...parseServer(text), ...(name === undefined ? {} : { name }), pins })),
  };
}

function parseServer(text: string): { address: string; port?: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const address = match?.[1] ?? match?.[2] ?? text.replaceAll(/^\[|\]$/g, "");
  const range = parseAddressRange(address);
  if (range.kind !== "network" || address.includes("/")) {
    throw new CliError(2, `--deliver-server ${text}: write an address, as 203.0.113.5:25 or [2001:db8::5]:25`);
  }
  return match?.[3] === undefined ? { address } : { address, port: Number(match[3]) };
}

/** What `pinrelay check` would say of the new file: rules that can never match, hosts that are any. */
async function warnOf(file: string, configFile: string, now: Date, output: Output): Promise<void> {
  const result = await loadConfig(configFile, now);
  if (result.kind === "invalid") return; // somebody else is editing it
  for (const problem of result.warnings) if (problem.file === file) output.err(`${formatProblem(problem)}\n`);
}

function report(
  name: string,
  file: string,
  credential: Credential,
  inForce: InForce,
  options: EnrolOptions,
  output: Output,
  shows: boolean,
): void {
  if (options.json === true) {
    output.out(jsonText({ partner: name, file, state: "pending", ...credentialJson(credential), relay: inForce.kind }));
    return;
  }
  const { signedFile } = credential;
  output.out(
    [
      `Enrolled ${name}, not confirmed yet: ${shown(file)}\n`,
      signedFile === undefined ? "" : `Signed its certificate: ${shown(signedFile)}\n`,
      credentialText(credential, options.qr ?? shows),
      inForceText(inForce, "pending"),
      nextStepsText(name, credential, join(caDirectory(options), authorityFileName)),
    ].join(""),
  );
}
