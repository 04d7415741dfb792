/**
 * Gathers what runs out: what the configuration names, what our CA's folder holds, and what the receiver has seen. Each is
 * looked at where it is there. Opens no connection and changes nothing; never fails: what cannot be read is said.
 */
import { join } from "node:path";
import type { X509Certificate } from "node:crypto";
import { authorityFileName } from "../certs/ca.ts";
import { defaultCaDirectory } from "../certs/places.ts";
import { readCertificateIfThere, readSignedCertificates } from "../certs/signed.ts";
import { expiryItems, type ExpiryItem, type ExpirySources } from "../partner/expiry.ts";
import type { Partner } from "../partner/partner.ts";
import { rolloverState, type RolloverWarning } from "../partner/rollover.ts";
import { historyOf, readPinSightings } from "../sightings/reader.ts";
import type { PinSighting } from "../sightings/sightings.ts";
import { parsePem } from "./pem.ts";
import type { RelayConfig } from "./relay-config.ts";
import { readBounded } from "./source.ts";
import { systemFault } from "./text.ts";

export interface Expiry {
  /** The most urgent first. */
  readonly items: readonly ExpiryItem[];
  readonly rollovers: ReadonlyArray<{ readonly partner: Partner; readonly warning: RolloverWarning }>;
  /** Why the certificates that partners showed are not among them; undefined: they are. */
  readonly unseen: string | undefined;
}

/** What runs out under this configuration. */
export async function readExpiry(config: RelayConfig, now: Date): Promise<Expiry> {
  const { sightings, unseen } = await readSightings(config.spool.path);
  const history = historyOf(sightings);
  const caDirectory = defaultCaDirectory(config.file);
  const sources: ExpirySources = {
    configFile: config.file,
    server: { file: config.tls.certificateFile, chain: await presentChain(config) },
    routes: config.routes,
    partners: config.partners,
    uses: sightings,
    history,
    authority: await readAuthority(caDirectory),
    signed: await readSignedCertificates(caDirectory, new Set(config.partners.map(({ name }) => name))),
  };
  const usesOf = Map.groupBy(sightings, ({ partner }) => partner);
  const rollovers = config.partners.flatMap((partner) => {
    const { warnings } = rolloverState(partner, usesOf.get(partner.name) ?? [], history, now, config.expiry.warnMs);
    return warnings.map((warning) => ({ partner, warning }));
  });
  return { items: expiryItems(sources, config.expiry, now), rollovers, unseen };
}

/** The chain that the server shows, as it was loaded. */
export function serverChain({ tls }: RelayConfig): readonly X509Certificate[] {
  const read = parsePem(Buffer.from(tls.certificate));
  if (read.kind === "fault") throw new Error(`a certificate that was loaded ${read.fault}`);
  return read.certificates;
}

/** The receiver takes a renewed certificate by itself: what the file says now counts, if it says anything. */
async function presentChain(config: RelayConfig): Promise<readonly X509Certificate[]> {
  const bytes = await readBounded(config.tls.certificateFile);
  const read = "fault" in bytes ? undefined : parsePem(bytes);
  return read?.kind === "certificates" ? read.certificates : serverChain(config);
}

async function readSightings(spoolPath: string): Promise<{ sightings: PinSighting[]; unseen: string | undefined }> {
  try {
    return { sightings: await readPinSightings(spoolPath), unseen: undefined };
  } catch (error) {
    return { sightings: [], unseen: systemFault(error) };
  }
}

async function readAuthority(caDirectory: string): Promise<ExpirySources["authority"]> {
  const file = join(caDirectory, authorityFileName);
  const certificate = await readCertificateIfThere(file);
  return certificate === undefined ? undefined : { file, certificate };
}
