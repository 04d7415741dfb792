/**
 * What will identify a partner, got hold of from its source, before anything of it stands in a file.
 *
 * Promises: keys and signatures that are too weak are refused from wherever they come; our own key and one that a partner
 * is known by, or was until it was revoked, identify nobody new. A certificate that our CA signs is written before the
 * partner's file, and {@link Credential.undo} takes it away again. Fails with {@link CliError} or CertificateFault: 1 where
 * the answer is no.
 */
import { X509Certificate } from "node:crypto";
import { unlink } from "node:fs/promises";
import { basename, dirname, relative, resolve } from "node:path";
import { signRequest, writeCertificate } from "../certs/ca.ts";
import { checkCertificate, readCertificateFile, readRequestFile } from "../certs/certificate-file.ts";
import { judgeRequest } from "../certs/enrolment.ts";
import type { NewPin } from "../config/partner-file.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { fetchPeerCertificate, PeerCertificateFault } from "../deliverer/peer-certificate.ts";
import { isSubdomain } from "../mail/domain.ts";
import type { AddressRange } from "../partner/address-range.ts";
import { mayAuthenticateClients } from "../partner/path.ts";
import { certificateDigest, digestOf, spkiDigest, type Digest, type Pin } from "../partner/pin.ts";
import { pinTitle } from "../partner/rollover.ts";
import { readQuarantine } from "../sightings/reader.ts";
import type { Quarantined } from "../sightings/sightings.ts";
import { dayOf, describeRequest, ownNamesOf, refusalText, shown } from "./certificate-text.ts";
import { caDirectory } from "./command.ts";
import { CliError, printable, type Output } from "./output.ts";
import { sourceName, type Source, type SourceOptions } from "./partner-source.ts";

/** What will identify the partner. */
export interface Credential {
  readonly source: Source;
  /** The partner's, or the CA's for a trust anchor; undefined: nobody has seen it, only its fingerprint. */
  readonly certificate: X509Certificate | undefined;
  /** The pin without its life, and the digest that a person has to compare before it counts. */
  readonly pin: NewPin;
  readonly fingerprint: Digest;
  readonly fingerprintOf: "key" | "certificate" | "CA";
  /** Where our CA's work was written. */
  readonly signedFile: string | undefined;
  /** Where it was seen, for a certificate in quarantine. */
  readonly addresses: readonly string[];
  /** For the journal. */
  readonly how: string;
  /** Takes away what was written for it; never fails. */
  readonly undo: () => Promise<void>;
}

export interface Surroundings {
  readonly config: RelayConfig;
  /** The partner's name. */
  readonly name: string;
  readonly partnersFolder: string;
  /** The partner's, where they are known; an address in a request must be among them. */
  readonly hosts: readonly AddressRange[];
  /** Where the certificate that our CA signs is to go. */
  readonly signedFile: string;
  readonly now: Date;
}

/** Gets hold of the source's credential; what should be known of it is warned of. */
export async function obtainCredential(
  source: Source,
  options: SourceOptions,
  at: Surroundings,
  output: Output,
): Promise<Credential> {
  const credential = await readCredential(source, options, at, output);
  try {
    refuseKnown(credential, at.config, sourceName(source));
  } catch (error) {
    await credential.undo();
    throw error;
  }
  return credential;
}

async function readCredential(
  source: Source,
  options: SourceOptions,
  at: Surroundings,
  output: Output,
): Promise<Credential> {
  const warn = (warnings: readonly string[]): void => {
    for (const warning of warnings) output.err(`warning: ${printable(warning)}\n`);
  };
  const ofCertificate = (certificate: X509Certificate, how: string): Credential => ({
    ...pinnedBy(certificate, options.pinCertificate === true),
    source,
    certificate,
    signedFile: undefined,
    addresses: [],
    how,
    undo: async () => undefined,
  });
  switch (source.kind) {
    case "certificate": {
      const { leaf, warnings } = await readCertificateFile(source.file, { several: "leafFirst", now: at.now });
      warn([...warnings, ...authorityWarnings(leaf, source.file), ...soonWarnings(leaf, source.file, at)]);
      return ofCertificate(leaf, `from the certificate ${basename(source.file)}`);
    }
    case "request":
      return signSource(source.file, options, at, output, ofCertificate);
    case "pin":
      return {
        source,
        certificate: undefined,
        pin: { spki: source.digest },
        fingerprint: source.digest,
        fingerprintOf: "key",
        signedFile: undefined,
        addresses: [],
        how: "from a fingerprint alone",
        undo: async () => undefined,
      };
    case "trustAnchor":
      return anchorCredential(source, at, warn);
    case "quarantine": {
      const seen = await findQuarantined(source.id, at.config.spool.path);
      const what = `the certificate ${seen.id} in quarantine`;
      warn([...checkCertificate(seen.certificate, what, at.now), ...soonWarnings(seen.certificate, what, at)]);
      return { ...ofCertificate(seen.certificate, `from quarantine, ${seen.id}`), addresses: seen.addresses };
    }
    case "host": {
      const certificate = await fetchFrom(source, at.config.hostname);
      const what = `the certificate of ${options.fromHost ?? source.address}`;
      warn([...checkCertificate(certificate, what, at.now), ...soonWarnings(certificate, what, at)]);
      warn([`${what}: is what the host shows as a server; when it sends mail it may show another one, or none: ask`]);
      return ofCertificate(certificate, `as ${source.address} port ${source.port} showed it`);
    }
  }
}

async function signSource(
  file: string,
  options: SourceOptions,
  at: Surroundings,
  output: Output,
  ofCertificate: (certificate: X509Certificate, how: string) => Credential,
): Promise<Credential> {
  const request = await readRequestFile(file);
  if (options.json !== true) output.out(describeRequest(request));
  const judged = judgeRequest(request, ownNamesOf(at.config, at.name), at.hosts);
  if (judged.kind === "refused") throw new CliError(1, refusalText(file, judged.reasons));
  refuseKnownKey({ spki: digestOf(request.publicKey.export({ type: "spki", format: "der" })) }, at.config, file);
  const { dnsNames, ipAddresses, commonName = at.name } = judged.names;
  const { days } = options;
  const directory = caDirectory(options);
  const plan = { directory, request, commonName, dnsNames, ipAddresses, usages: "client", days, now: at.now } as const;
  const { certificate, certificatePem } = await signRequest(plan);
  const { signedFile } = at;
  await writeCertificate(signedFile, certificatePem);
  return {
    ...ofCertificate(certificate, `signed from the request ${basename(file)}`),
    signedFile,
    // Written above, where none was before.
    undo: async () => unlink(signedFile).catch(() => undefined),
  };
}

async function anchorCredential(
  source: Source & { kind: "trustAnchor" },
  at: Surroundings,
  warn: (warnings: readonly string[]) => void,
): Promise<Credential> {
  const { file, name, lists } = source;
  // One fingerprint confirms one certificate: a second one in the file would come in unseen.
  const { leaf: anchor, warnings } = await readCertificateFile(file, { several: "refuse", now: at.now });
  const { hostname, domains } = ownNamesOf(at.config, at.name);
  if ([hostname, ...domains].some((own) => name === own || isSubdomain(name, own))) {
    throw new CliError(1, `--name ${name}: is a name of ours, and no partner's`);
  }
  if (!anchor.ca) throw new CliError(1, `${file}: is no CA's certificate: give the partner's own with --cert`);
  warn([...warnings, ...soonWarnings(anchor, file, at)]);
  const asSeenFromPartners = (path: string): string => {
    const inside = relative(dirname(dirname(at.config.file)), resolve(path));
    return inside.startsWith("..") ? resolve(path) : relative(at.partnersFolder, resolve(path));
  };
  const revocationLists = lists.map(asSeenFromPartners);
  return {
    source,
    certificate: anchor,
    pin: { trustAnchor: asSeenFromPartners(file), name, ...(lists.length === 0 ? {} : { revocationLists }) },
    fingerprint: certificateDigest(anchor),
    fingerprintOf: "CA",
    signedFile: undefined,
    addresses: [],
    how: `from the CA's certificate ${basename(file)}, for ${name}`,
    undo: async () => undefined,
  };
}

function pinnedBy(
  certificate: X509Certificate,
  whole: boolean,
): Pick<Credential, "pin" | "fingerprint" | "fingerprintOf"> {
  if (!whole) {
    const spki = spkiDigest(certificate);
    return { pin: { spki }, fingerprint: spki, fingerprintOf: "key" };
  }
  const digest = certificateDigest(certificate);
  const pin = { certificate: digest, notAfter: dayOf(certificate.validToDate) };
  return { pin, fingerprint: digest, fingerprintOf: "certificate" };
}

/** By the id that the peer was told. Fails with 1 where there is none. */
async function findQuarantined(id: string, spoolPath: string): Promise<Quarantined> {
  const found = (await readQuarantine(spoolPath)).filter((one) => one.id === id);
  const [seen] = found;
  if (seen === undefined) {
    throw new CliError(
      1,
      `nothing in quarantine has the id '${id}': pinrelay partner list --quarantine shows what is there`,
    );
  }
  if (found.length > 1) {
    // The id is short: somebody has made two certificates for this.
    throw new CliError(
      1,
      `${found.length} certificates in quarantine have the id '${id}': take the partner's with --cert`,
    );
  }
  return seen;
}

const fetchTimeoutMs = 20_000;

async function fetchFrom(source: Source & { kind: "host" }, hostname: string): Promise<X509Certificate> {
  const { address, port, implicitTls } = source;
  try {
    const { chain } = await fetchPeerCertificate({ address, port, implicitTls, hostname, timeoutMs: fetchTimeoutMs });
    const [leaf] = chain;
    if (leaf === undefined) throw new CliError(1, `${address}: showed no certificate`);
    return leaf;
  } catch (error) {
    if (error instanceof PeerCertificateFault) throw new CliError(1, error.message, { cause: error });
    throw error;
  }
}

/** A partner must not be known by a key of ours, nor by one that a partner has, or had until it was revoked. */
function refuseKnown({ certificate, pin, fingerprintOf }: Credential, config: RelayConfig, what: string): void {
  if (fingerprintOf === "CA" || "trustAnchor" in pin) return; // two partners may have one CA, under two names
  const spki = certificate === undefined ? ("spki" in pin ? pin.spki : undefined) : spkiDigest(certificate);
  refuseKnownKey({ spki, certificate: certificate && certificateDigest(certificate) }, config, what);
}

/** @param what it is called by in messages. */
export function refuseKnownKey(
  digests: { readonly spki: Digest | undefined; readonly certificate?: Digest | undefined },
  config: RelayConfig,
  what: string,
): void {
  if (spkiDigest(new X509Certificate(config.tls.certificate)) === digests.spki) {
    throw new CliError(1, `${what}: is the certificate of our own relay: ask the partner for theirs`);
  }
  const knows = (pin: Pin): boolean => pin.kind !== "trustAnchor" && pin.digest === digests[pin.kind];
  for (const { name, pins } of config.partners) {
    const pin = pins.find(knows);
    if (pin === undefined) continue;
    if (pin.state === "revoked") {
      throw new CliError(
        1,
        `${what}: its key was revoked as ${pinTitle(pin)} of the partner '${name}': ask for a new key`,
      );
    }
    throw new CliError(
      1,
      `${what}: its key already identifies the partner '${name}' (${pinTitle(pin)}, ${pin.state}): every partner and every rollover needs a key of its own`,
    );
  }
}

/** What may be meant, but often is a mistake. */
function authorityWarnings(leaf: X509Certificate, file: string): string[] {
  if (!leaf.ca) return [];
  return leaf.checkIssued(leaf)
    ? [
        `${file}: is marked as a CA; if the partner's host shows another certificate, no mail will pass: ask for that one`,
      ]
    : [`${file}: is the certificate of a CA, not of a host: ask for the one that the partner's host shows`];
}

function soonWarnings({ validToDate }: X509Certificate, what: string, { config, now }: Surroundings): string[] {
  const leftMs = validToDate.getTime() - now.getTime();
  if (leftMs < 0 || leftMs > config.expiry.warnMs) return [];
  return [`${what}: the certificate expires soon, on ${dayOf(validToDate)}: ask for the next one too`];
}

/**
 * Must the partner's file ask for no key usage? Public CAs have stopped issuing certificates for clients, so that a
 * partner with such a certificate could send nothing at all.
 */
export function lacksClientUsage({ certificate, fingerprintOf }: Credential): boolean {
  return certificate !== undefined && fingerprintOf !== "CA" && !mayAuthenticateClients(certificate);
}

export function clientUsageWarning(file: string): string {
  return `warning: the certificate is not issued for clients (its extended key usage lacks clientAuth, which public CAs no longer issue): ${shown(file)} says extended-key-usage: any, and the pin alone decides\n`;
}
