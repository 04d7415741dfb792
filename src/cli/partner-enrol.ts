/**
 * `pinrelay partner enrol`: from a certificate, or a request that our CA signs, to a partner's file.
 *
 * Promises: nothing is overwritten; the partner's file is written last, and where that fails the certificate that was
 * signed for it is taken away again. Our own key, and one that another partner is known by, identify nobody new. The
 * running relay learns of it by `reload` only. Fails with {@link CliError} or {@link CertificateFault}: 1 where the
 * partner or its key is there already or the request is refused, 2 for what was typed or configured wrong.
 */
import { X509Certificate, type KeyObject } from "node:crypto";
import { unlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { authorityFileName, exists, signRequest, writeCertificate } from "../certs/ca.ts";
import { readCertificateFile, readRequestFile } from "../certs/certificate-file.ts";
import { judgeRequest } from "../certs/enrolment.ts";
import { describeKey } from "../certs/key.ts";
import { PartnerFileError, writeNewPartner, type NewPartner } from "../config/partner-file.ts";
import { isPartnerName } from "../config/partner.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { parseAddressRange, type AddressRange } from "../partner/address-range.ts";
import { certificateDigest, digestHex, digestOf, spkiDigest, type Digest } from "../partner/pin.ts";
import { dayOf, describeCertificate, describeRequest, ownNamesOf, refusalText, shown } from "./certificate-text.ts";
import { caDirectory, loadValidConfig, readConfigText } from "./command.ts";
import { CliError, printable, type Output } from "./output.ts";
import { partnerCertificateFile } from "./partner-text.ts";

export interface EnrolOptions {
  readonly config: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly csr?: string;
  readonly host: readonly string[];
  readonly from: readonly string[];
  readonly to: readonly string[];
  readonly contact?: string;
  readonly description?: string;
  readonly pinCertificate?: true;
  readonly days: number;
}

/** What the partner will show when it connects. */
interface Credential {
  readonly certificate: X509Certificate;
  /** Where our CA's work was written; undefined for a certificate of the partner's own. */
  readonly signedFile: string | undefined;
}

export async function enrol(name: string, options: EnrolOptions, now: Date, output: Output): Promise<void> {
  const hosts = checkUsage(name, options);
  const config = await loadValidConfig(options.config, now, output);
  const folder = await partnersFolder(options.config);
  const file = join(folder, `${name}.yaml`);
  if (await exists(file))
    throw new CliError(1, `${shown(file)}: exists and is left as it is: edit it, or choose another name`);
  const credential = await obtainCredential(name, options, { config, hosts, now }, output);
  try {
    await writeNewPartner(folder, newPartner(name, options, credential.certificate, now), now);
  } catch (error) {
    // Written above, where none was before. The first error is the one that tells.
    if (credential.signedFile !== undefined) await unlink(credential.signedFile).catch(() => undefined);
    if (error instanceof PartnerFileError) throw new CliError(2, error.message, { cause: error });
    throw error;
  }
  output.out(report(name, file, credential, caDirectory(options)));
}

/** What can be told of the command line alone; returns the hosts. */
function checkUsage(name: string, options: EnrolOptions): AddressRange[] {
  if (!isPartnerName(name)) {
    throw new CliError(2, `'${name}' is no name for a partner: use lower-case letters, digits and hyphens, as acme-2`);
  }
  if ((options.cert === undefined) === (options.csr === undefined)) {
    throw new CliError(2, "give either the partner's certificate with --cert, or its request with --csr");
  }
  return options.host.map((text) => {
    const range = parseAddressRange(text);
    if (range.kind === "fault") throw new CliError(2, `--host ${text}: ${range.fault}`);
    return range;
  });
}

/** Not in the loaded configuration: with no partner in it, nothing there tells the folder. */
async function partnersFolder(configFile: string): Promise<string> {
  return resolve(dirname(configFile), (await readConfigText(configFile, "partners")) ?? "partners");
}

interface Surroundings {
  readonly config: RelayConfig;
  readonly hosts: readonly AddressRange[];
  readonly now: Date;
}

async function obtainCredential(
  name: string,
  options: EnrolOptions,
  { config, hosts, now }: Surroundings,
  output: Output,
): Promise<Credential> {
  if (options.cert !== undefined) {
    const { leaf, warnings } = await readCertificateFile(options.cert, { several: "leafFirst", now });
    for (const warning of [...warnings, ...warningsOf(leaf, options.cert)])
      output.err(`warning: ${printable(warning)}\n`);
    refuseKnown(leaf.publicKey, certificateDigest(leaf), config);
    return { certificate: leaf, signedFile: undefined };
  }
  const csr = options.csr ?? "";
  const request = await readRequestFile(csr);
  output.out(describeRequest(request));
  const judged = judgeRequest(request, ownNamesOf(config), hosts);
  if (judged.kind === "refused") throw new CliError(1, refusalText(csr, judged.reasons));
  refuseKnown(request.publicKey, undefined, config);
  const { dnsNames, ipAddresses, commonName = name } = judged.names;
  const { days } = options;
  const directory = caDirectory(options);
  const plan = { directory, request, commonName, dnsNames, ipAddresses, usages: "client", days, now } as const;
  const { certificate, certificatePem } = await signRequest(plan);
  const signedFile = partnerCertificateFile(directory, name);
  await writeCertificate(signedFile, certificatePem);
  return { certificate, signedFile };
}

/** A partner must not be known by a key of ours, nor by another partner's. */
function refuseKnown(key: KeyObject, certificate: Digest | undefined, config: RelayConfig): void {
  if (new X509Certificate(config.tls.certificate).publicKey.equals(key)) {
    throw new CliError(1, "this is the certificate of our own relay: ask the partner for theirs");
  }
  const digests = { spki: digestOf(key.export({ type: "spki", format: "der" })), certificate };
  const other = config.partners.find(({ pins }) =>
    pins.some((pin) => pin.kind !== "trustAnchor" && pin.digest === digests[pin.kind]),
  );
  if (other !== undefined) {
    throw new CliError(
      1,
      `this key already identifies the partner '${other.name}': every partner needs a key of its own`,
    );
  }
}

/** What may be meant, but often is a mistake. */
function warningsOf(leaf: X509Certificate, file: string): string[] {
  if (!leaf.ca) return [];
  return leaf.checkIssued(leaf)
    ? [
        `${file}: is marked as a CA; if the partner's host shows another certificate, no mail will pass: ask for that one`,
      ]
    : [`${file}: is the certificate of a CA, not of a host: ask for the one that the partner's host shows`];
}

function newPartner(name: string, options: EnrolOptions, certificate: X509Certificate, now: Date): NewPartner {
  const { host: hosts, from, to, description, contact } = options;
  const label = `enrolled ${dayOf(now)}`;
  const pin = options.pinCertificate
    ? { certificate: certificateDigest(certificate), label, notAfter: dayOf(certificate.validToDate) }
    : { spki: spkiDigest(certificate), label };
  return {
    name,
    hosts,
    pins: [pin],
    from,
    to,
    ...(description === undefined ? {} : { description }),
    ...(contact === undefined ? {} : { contact }),
  };
}

function report(name: string, file: string, { certificate, signedFile }: Credential, ca: string): string {
  const keyDigest = spkiDigest(certificate);
  return [
    `Enrolled ${name}: ${shown(file)}`,
    ...(signedFile === undefined ? [] : [`Signed its certificate: ${shown(signedFile)}`]),
    describeCertificate(certificate).trimEnd(),
    `  key      ${describeKey(certificate.publicKey)}`,
    "Fingerprint of its key, SHA-256",
    `  ${keyDigest}`,
    `  ${digestHex(keyDigest)}`,
    "Fingerprint of its certificate, SHA-256",
    `  ${certificateDigest(certificate)}`,
    `  ${digestHex(certificateDigest(certificate))}`,
    "What to do next",
    ...(signedFile === undefined ? stepsForOwn : stepsForSigned(signedFile, ca)),
    "  pinrelay check",
    "  and restart the relay: it reads its files when it starts",
    "",
  ].join("\n");
}

const stepsForOwn = [
  "  Let the partner read its fingerprint to you over the telephone, and compare. It is printed by",
  "    openssl x509 -in CERTIFICATE -noout -fingerprint -sha256",
];

function stepsForSigned(signedFile: string, ca: string): string[] {
  return [
    "  Let the partner read the fingerprint of its key to you over the telephone, and compare. It is printed by",
    "    openssl req -in REQUEST -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -c",
    `  Send the partner ${shown(signedFile)} and ${shown(join(ca, authorityFileName))}: nothing in them is secret.`,
  ];
}
