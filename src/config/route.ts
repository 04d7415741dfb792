/**
 * Routes: domains, and the servers at fixed addresses that take their mail. The same under `routes` of relay.yaml and
 * under `deliver` of a partner's file.
 *
 * Promises: a hop is either verified, by pin or by trust anchor, or the operator wrote `mode: none`; there is no third
 * way. No domain has two routes, over all files.
 */
import { dirname, resolve } from "node:path";
import type { X509Certificate } from "node:crypto";
import { keyFault } from "../certs/key.ts";
import type { CanonicalDomain } from "../mail/domain.ts";
import type { HopTls, HopVerification, NextHop, Route } from "../partner/partner.ts";
import * as format from "./formats.ts";
import type { PemFiles } from "./pem.ts";
import { placeText, type Claims, type FileReport } from "./problems.ts";
import { group, list, optional, required, scalar, type Read } from "./schema.ts";
import type { Path } from "./text.ts";

/** What the files of one configuration have in common while they are read. */
export interface LoadContext {
  readonly now: Date;
  readonly claims: Claims;
  readonly pemFiles: PemFiles;
  /** relay.yaml, or what stands for it: places in other files are shown as seen from its folder. */
  readonly relayFile: string;
  /** The domains of our own routes; undefined where they are not known. */
  readonly ownDomains: ReadonlySet<CanonicalDomain> | undefined;
  /** The largest message that the relay takes from anybody; undefined where it is not known. */
  readonly messageBytesMax: number | undefined;
}

const digestOfKey = scalar({
  doc: "The digest of the server's public key (SPKI): sha256/ and base64.",
  format: format.digest,
  default: required,
});

const server = group({
  doc: "One server. It is known by its pin, or as `tls` says.",
  keys: {
    address: scalar({
      doc: "Where it is: an IP literal. No DNS is asked.",
      format: format.hopAddress,
      default: required,
    }),
    port: scalar({ doc: "Its SMTP port.", format: format.port, default: 25 }),
    name: scalar({
      doc: "Its name: for logs and SNI; with a trust anchor, the name that its certificate must carry.",
      format: format.domainName,
      default: optional,
    }),
    pin: list({
      doc: "The digest of the server's public key. Short for `tls: { mode: required, pin: … }`.",
      of: digestOfKey,
      orOne: true,
      itemsMin: 1,
      default: optional,
    }),
    tls: group({
      doc: "How the connection is secured. Never opportunistic: a server that cannot do it gets no mail.",
      keys: {
        mode: scalar({
          doc: "required: TLS with a verified server. none: plain text, for servers on this machine.",
          format: format.oneOf("required", "none"),
          default: "required",
        }),
        implicit: scalar({
          doc: "TLS from the first byte, as on port 465, in place of STARTTLS.",
          format: format.flag,
          default: false,
        }),
        pin: list({
          doc: "The digest of the server's public key; several during a rollover, any one suffices.",
          of: digestOfKey,
          orOne: true,
          itemsMin: 1,
          default: optional,
        }),
        "trust-anchor": scalar({
          doc: "A PEM file with the CA certificates that may vouch for the server. Needs `name`.",
          format: format.path,
          default: optional,
        }),
      },
      default: optional,
    }),
  },
  exactlyOne: ["pin", "tls"],
  default: required,
});

/** The keys of a route. */
export const route = group({
  doc: "Domains, and the servers that take their mail.",
  keys: {
    domains: list({
      doc: "The domains whose mail goes this way, each spelled out: a subdomain is a domain of its own.",
      of: scalar({ doc: "A domain name.", format: format.domainName, default: required }),
      itemsMin: 1,
      default: required,
    }),
    servers: list({
      doc: "The servers, in the order in which they are tried.",
      of: server,
      itemsMin: 1,
      default: required,
    }),
  },
  default: required,
});

/** Makes a route of what was read at `path`; undefined if anything in it is wrong, which is then reported. */
export async function makeRoute(
  naming: Pick<Route, "name" | "kind">,
  written: Read<typeof route>,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<Route | undefined> {
  const domains = (written.domains ?? []).flatMap((domain, index) => {
    if (domain === undefined) return [];
    claimDomain(domain, [...path, "domains", index], report, context);
    return domain;
  });
  const servers: NextHop[] = [];
  for (const [index, one] of (written.servers ?? []).entries()) {
    const hop = one === undefined ? undefined : await makeHop(one, [...path, "servers", index], report, context);
    if (hop !== undefined) servers.push(hop);
  }
  if (domains.length === 0 || servers.length < (written.servers?.length ?? 1)) return undefined;
  return { ...naming, domains, servers, source: report.source(path) };
}

function claimDomain(domain: CanonicalDomain, path: Path, report: FileReport, context: LoadContext): void {
  const earlier = context.claims.claim(`domain ${domain}`, report.place(path));
  if (earlier === undefined) return;
  report.error(path, `${domain} has a route already, at ${placeText(earlier, context.relayFile)}: remove one of them`);
}

type WrittenServer = Read<typeof server>;

async function makeHop(
  written: WrittenServer,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<NextHop | undefined> {
  const tls = await makeTls(written, path, report, context);
  const { address, port, name } = written;
  if (address === undefined || tls === undefined) return undefined;
  if (tls.mode === "none" && !format.isLoopback(address)) {
    report.warning([...path, "tls", "mode"], `mail to ${address} goes in plain text: anybody on the way can read it`);
  }
  return { address, port, name, tls, source: report.source(path) };
}

async function makeTls(
  written: WrittenServer,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<HopTls | undefined> {
  const isSet = (...keys: string[]): boolean => report.isSet([...path, ...keys]);
  if (isSet("pin") === isSet("tls")) return undefined; // reported by its description
  if (written.tls?.mode === "none") {
    const errorsBefore = report.errors;
    for (const key of ["implicit", "pin", "trust-anchor"].filter((candidate) => isSet("tls", candidate))) {
      report.errorAtKey([...path, "tls", key], "means nothing with `mode: none`: remove one of them");
    }
    return report.errors === errorsBefore ? { mode: "none" } : undefined;
  }
  if (isSet("tls", "pin") && isSet("tls", "trust-anchor")) {
    report.errorAtKey([...path, "tls", "trust-anchor"], "cannot stand beside `pin`: a server is known by one of them");
    return undefined;
  }
  if (isSet("tls") && !isSet("tls", "pin") && !isSet("tls", "trust-anchor")) {
    const ways = "`pin: sha256/…` or `trust-anchor: FILE`; plain text is `mode: none`";
    report.error([...path, "tls"], `says nothing by which the server is known: add ${ways}`);
    return undefined;
  }
  const verification = await makeVerification(written, path, report, context);
  if (verification === undefined) return undefined;
  return { mode: "required", implicit: written.tls?.implicit ?? false, verification };
}

async function makeVerification(
  written: WrittenServer,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<HopVerification | undefined> {
  const anchorFile = written.tls?.["trust-anchor"];
  if (anchorFile === undefined) {
    const pins = written.pin ?? written.tls?.pin ?? [];
    const digests = pins.filter((pin) => pin !== undefined);
    return digests.length > 0 && digests.length === pins.length ? { kind: "pin", digests } : undefined;
  }
  const anchorPath = [...path, "tls", "trust-anchor"];
  if (!report.isSet([...path, "name"])) {
    report.error(anchorPath, "needs `name` beside `address`: the name that the server's certificate must carry");
  }
  return makeAnchors(anchorFile, anchorPath, report, context);
}

/** Reads the file of a trust anchor, named relative to the file that names it. */
export async function makeAnchors(
  written: string,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<{ kind: "trustAnchor"; file: string; anchors: readonly X509Certificate[] } | undefined> {
  const file = resolve(dirname(report.file), written);
  const read = await context.pemFiles.read(file);
  if (read.kind === "fault") {
    report.error(path, `${file} ${read.fault}`);
    return undefined;
  }
  // Only a CA can have issued anything; a leaf in this place would verify nobody, itself neither.
  if (!read.certificates.some((certificate) => certificate.ca)) {
    report.error(
      path,
      `${file} holds no CA certificate: use \`pin\` or \`certificate\` for a server's or client's own`,
    );
    return undefined;
  }
  const fault = read.certificates.map(anchorFault).find((one) => one !== undefined);
  if (fault !== undefined) {
    report.error(path, `${file} holds a CA that must not be trusted: ${fault}`);
    return undefined;
  }
  return { kind: "trustAnchor", file, anchors: read.certificates };
}

/** Whoever breaks a CA's weak key is everybody that the CA may vouch for. */
function anchorFault(certificate: X509Certificate): string | undefined {
  try {
    return keyFault(certificate.publicKey);
  } catch {
    return "its key is of a kind that cannot be read here: ask for a CA with EC P-256 or RSA 3072";
  }
}
