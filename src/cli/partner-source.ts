/**
 * Where a partner's pin comes from, as it is typed: a certificate, a request that our CA signs, a bare fingerprint, a
 * trust anchor, what stands in quarantine, or what a host shows. For `partner enrol` and `partner rollover`. Pure.
 *
 * Promises: exactly one source, and no option that belongs to another. Fails with {@link CliError}, 2.
 */
import { canonicalDomain } from "../mail/domain.ts";
import { addressBytes } from "../partner/address-range.ts";
import { parseFingerprint } from "../partner/fingerprint.ts";
import type { Digest } from "../partner/pin.ts";
import { CliError } from "./output.ts";

export interface SourceOptions {
  readonly config: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly csr?: string;
  readonly pin?: string;
  readonly trustAnchor?: string;
  readonly name?: string;
  readonly revocationList?: readonly string[];
  readonly fromQuarantine?: string;
  readonly fromHost?: string;
  readonly implicitTls?: true;
  readonly pinCertificate?: true;
  readonly days: number;
  readonly json?: true;
}

export type Source =
  | { readonly kind: "certificate"; readonly file: string }
  | { readonly kind: "request"; readonly file: string }
  | { readonly kind: "pin"; readonly digest: Digest }
  | { readonly kind: "trustAnchor"; readonly file: string; readonly name: string; readonly lists: readonly string[] }
  | { readonly kind: "quarantine"; readonly id: string }
  | { readonly kind: "host"; readonly address: string; readonly port: number; readonly implicitTls: boolean };

const sourceFlags = {
  cert: "--cert",
  csr: "--csr",
  pin: "--pin",
  trustAnchor: "--trust-anchor",
  fromQuarantine: "--from-quarantine",
  fromHost: "--from-host",
} as const;
type SourceFlag = keyof typeof sourceFlags;

/** The one source that the options name. What does not go with it is wrong usage. */
export function readSource(options: SourceOptions, allowed: readonly SourceFlag[]): Source {
  const given = allowed.filter((flag) => options[flag] !== undefined);
  const [flag] = given;
  if (flag === undefined || given.length > 1) {
    const named = given.length === 0 ? "" : `, not ${given.map((one) => sourceFlags[one]).join(" and ")}`;
    throw new CliError(2, `give exactly one of ${allowed.map((one) => sourceFlags[one]).join(", ")}${named}`);
  }
  const refuse = (option: string, isGiven: boolean, needed: SourceFlag): void => {
    if (isGiven && flag !== needed) throw new CliError(2, `${option} goes with ${sourceFlags[needed]} only`);
  };
  refuse("--name", options.name !== undefined, "trustAnchor");
  refuse("--revocation-list", options.revocationList !== undefined, "trustAnchor");
  refuse("--implicit-tls", options.implicitTls === true, "fromHost");
  if (options.pinCertificate === true && (flag === "pin" || flag === "trustAnchor")) {
    throw new CliError(
      2,
      `--pin-certificate needs the partner's certificate: it does not go with ${sourceFlags[flag]}`,
    );
  }
  return sourceOf(flag, options[flag] ?? "", options);
}

function sourceOf(flag: SourceFlag, value: string, options: SourceOptions): Source {
  switch (flag) {
    case "cert":
      return { kind: "certificate", file: value };
    case "csr":
      return { kind: "request", file: value };
    case "pin": {
      const parsed = parseFingerprint(value);
      if (parsed.kind === "fault") throw new CliError(2, `--pin: ${parsed.fault}`);
      return { kind: "pin", digest: parsed.digest };
    }
    case "trustAnchor": {
      const name = canonicalDomain(options.name ?? "");
      if (name === undefined) {
        const what = options.name === undefined ? "is missing" : `'${options.name}' is no domain name`;
        throw new CliError(2, `--name ${what}: it is the DNS name that the partner's certificate must carry`);
      }
      return { kind: "trustAnchor", file: value, name, lists: options.revocationList ?? [] };
    }
    case "fromQuarantine":
      return { kind: "quarantine", id: value.trim().toLowerCase() };
    case "fromHost":
      return hostSource(value, options.implicitTls === true);
  }
}

function hostSource(text: string, implicitTls: boolean): Source {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text) ?? (addressBytes(text) && [text, text]);
  const address = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3] ?? (implicitTls ? 465 : 25));
  if (addressBytes(address) === undefined || port < 1 || port > 65_535) {
    throw new CliError(2, `--from-host ${text}: write an address and a port, as 203.0.113.5:25 or [2001:db8::5]:25`);
  }
  return { kind: "host", address, port, implicitTls };
}

/** What messages call it. */
export function sourceName(source: Source): string {
  switch (source.kind) {
    case "certificate":
    case "request":
    case "trustAnchor":
      return source.file;
    case "pin":
      return "--pin";
    case "quarantine":
      return `the certificate ${source.id} in quarantine`;
    case "host":
      return `the certificate of ${source.address}`;
  }
}
