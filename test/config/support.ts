/**
 * What the tests of the configuration need: folders that are removed again, and certificates minted on the spot, in a
 * few lines of DER, so that tests know nothing of src/certs and no fixture ever expires.
 */
import { generateKeyPairSync, sign, X509Certificate, type KeyObject } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import type { ConfigProblem, RelayConfig } from "../../src/config/relay-config.ts";

const folders: string[] = [];
afterAll(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

/** A new folder with these files. */
export async function folderWith(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "pinrelay-config-"));
  folders.push(folder);
  for (const name of new Set(Object.keys(files).map(dirname))) await mkdir(join(folder, name), { recursive: true });
  const write = async ([name, content]: [string, string | Uint8Array]): Promise<void> =>
    writeFile(join(folder, name), content, { mode: 0o600 });
  const entries = Object.entries(files);
  for (let from = 0; from < entries.length; from += 64) await Promise.all(entries.slice(from, from + 64).map(write));
  return folder;
}

export interface Minted {
  readonly pem: string;
  readonly keyPem: string;
  readonly certificate: X509Certificate;
  readonly privateKey: KeyObject;
}

/** Mints a certificate, self-signed or by `issuer`. */
export function mint(wanted: {
  commonName?: string;
  dnsName?: string;
  ca?: boolean;
  notBefore?: string;
  notAfter?: string;
  issuer?: { minted: Minted; commonName: string };
}): Minted {
  const { commonName = "mx.corp.example", dnsName = commonName, ca = false, issuer } = wanted;
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ecdsaWithSha256 = sequence(oid("2a8648ce3d040302"));
  const tbs = sequence(
    der(0xa0, der(0x02, Buffer.of(2))), // version 3
    der(0x02, Buffer.of(1 + folders.length)),
    ecdsaWithSha256,
    distinguishedName(issuer?.commonName ?? commonName),
    sequence(time(wanted.notBefore ?? "2020-01-01"), time(wanted.notAfter ?? "2120-01-01")),
    distinguishedName(commonName),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(ca ? basicConstraints() : subjectAltName(dnsName))),
  );
  const signature = sign("sha256", tbs, issuer?.minted.privateKey ?? privateKey);
  const certificate = new X509Certificate(
    sequence(tbs, ecdsaWithSha256, der(0x03, Buffer.concat([Buffer.of(0), signature]))),
  );
  const keyPem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  return { pem: certificate.toString(), keyPem, certificate, privateKey };
}

function der(tag: number, content: Buffer): Buffer {
  const length = content.length;
  if (length < 0x80) return Buffer.concat([Buffer.of(tag, length), content]);
  if (length < 0x100) return Buffer.concat([Buffer.of(tag, 0x81, length), content]);
  return Buffer.concat([Buffer.of(tag, 0x82, length >> 8, length & 0xff), content]);
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, "hex"));
}

function distinguishedName(commonName: string): Buffer {
  return sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(commonName)))));
}

function time(day: string): Buffer {
  return der(0x18, Buffer.from(`${day.replaceAll("-", "")}000000Z`)); // GeneralizedTime
}

function basicConstraints(): Buffer {
  return sequence(oid("551d13"), der(0x01, Buffer.of(0xff)), der(0x04, sequence(der(0x01, Buffer.of(0xff)))));
}

function subjectAltName(dnsName: string): Buffer {
  return sequence(oid("551d11"), der(0x04, sequence(der(0x82, Buffer.from(dnsName)))));
}

/** The server of the tests, minted once. */
export const server = mint({});
/** A CA of the tests. */
export const authority = mint({ commonName: "Inside CA", ca: true });

/** Digests that nobody has a certificate for. */
export const digests = [
  "sha256/n6ihd5yEzgqYBDoWNFyUKjXTfEufz7vQEX52WoG7/n4=",
  "sha256/54T/ebkRB5LfftiDLhr0IeEnnMNNrOwNA+tf6GhkwsM=",
  "sha256/SGl+o+3NMQcCMe+rAKBjRxUSxnrSZj+clRYO2Kxmx4M=",
] as const;

/** The smallest relay.yaml: 9 lines, then what is given. */
export function relayYaml(more = ""): string {
  return `hostname: mx.corp.example
listen: [{ address: 127.0.0.1, port: 0 }]
tls:
  certificate: server.pem
  key: server.key
routes:
  internal:
    domains: [corp.example]
    servers: [{ address: 10.1.0.10, pin: "${digests[0]}" }]
${more}`;
}

/** The smallest partner: 4 lines, then what is given. */
export function partnerYaml(more = "", pin: string = digests[1]): string {
  return `hosts: [203.0.113.1]
pins: [{ spki: "${pin}" }]
allow: { from: ["@acme.example"], to: ["@corp.example"] }
# line 4
${more}`;
}

/** Files of a configuration; what is not given is the smallest that is valid. */
export function configFiles(changed: Readonly<Record<string, string | Uint8Array>> = {}) {
  return {
    "relay.yaml": relayYaml(),
    "partners/acme.yaml": partnerYaml(),
    "server.pem": server.pem,
    "server.key": server.keyPem,
    ...changed,
  };
}

/** The date of the tests. */
export const now = new Date("2026-06-15T12:00:00Z");

/** Loads a configuration that must be valid. */
export async function loaded(
  changed: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<{ folder: string; config: RelayConfig; warnings: string[] }> {
  const folder = await folderWith(configFiles(changed));
  const result = await loadConfig(join(folder, "relay.yaml"), now);
  if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
  return { folder, config: result.config, warnings: shown(result.warnings, folder) };
}

/** Loads a configuration that must not be valid: its problems, one line each, without the folder. */
export async function problemsOf(changed: Readonly<Record<string, string | Uint8Array>>): Promise<string[]> {
  const folder = await folderWith(configFiles(changed));
  const result = await loadConfig(join(folder, "relay.yaml"), now);
  if (result.kind === "loaded") throw new Error("the configuration is valid");
  return shown(result.problems, folder);
}

/** `relay.yaml:3: error: tls.key: …` */
export function shown(problems: readonly ConfigProblem[], folder: string): string[] {
  return problems.map(({ file, line, severity, keyPath, message }) => {
    const place = `${file}${line === undefined ? "" : `:${line}`}`;
    return [place, severity, ...(keyPath === "" ? [] : [keyPath]), message].join(": ").replaceAll(`${folder}/`, "");
  });
}
