/**
 * A folder with a working configuration: a test CA, the relay's certificate, two partners (acme at 127.0.0.11, globex at
 * 127.0.0.12), an outsider's certificate, and a route inside. Ports are chosen by the system.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { initCa, issue, writeKeyPair } from "../../src/certs/ca.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { spkiDigest } from "../../src/partner/pin.ts";
import type { ClientCertificate } from "./smtp-dialogue.ts";

export const relayAddress = "127.0.0.2";
export const acmeAddress = "127.0.0.11";
export const globexAddress = "127.0.0.12";
export const strangerAddress = "127.0.0.66";

export interface RelayFolder {
  readonly path: string;
  readonly configFile: string;
  readonly certificates: Readonly<
    Record<"server" | "acme" | "globex" | "outsider" | "inside" | "inside2", ClientCertificate>
  >;
  /** Loads the configuration, and fails with all its problems. */
  load(): Promise<RelayConfig>;
  remove(): Promise<void>;
}

export interface RelayFolderOptions {
  /** Where mail goes inside; by default a port at which nobody listens. */
  readonly hop?: { readonly address: string; readonly port: number };
  /** More lines for relay.yaml, at its top level. */
  readonly more?: string;
  /** In place of the server entries of the internal route, YAML lines with `PIN` for the inside server's pin. */
  readonly servers?: string;
  /** Partner files in place of the usual ones; `PIN` is replaced by the partner's pin. */
  readonly partners?: Readonly<Record<string, string>>;
}

const usualPartner = (address: string, domain: string) => `hosts: [${address}]
pins: [{ spki: "PIN" }]
allow:
  from: ["@${domain}", "@*.${domain}"]
  to: [orders@corp.example, "@edi.corp.example"]
`;

export const usualPartners = {
  acme: usualPartner(acmeAddress, "acme.example"),
  globex: usualPartner(globexAddress, "globex.example"),
} as const;

export async function makeRelayFolder(options: RelayFolderOptions = {}): Promise<RelayFolder> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-test-"));
  const certs = join(path, "certs");
  await mkdir(join(path, "config", "partners"), { recursive: true });
  await mkdir(certs);
  const now = new Date();
  await initCa({ directory: certs, commonName: "test CA", keyType: "ec-p256", days: 120, now }); // so long that nothing is said of it
  const made = async (
    name: string,
    dnsName: string,
    usages: "server" | "client" | "both",
  ): Promise<ClientCertificate> => {
    const pair = await issue({
      directory: certs,
      commonName: dnsName,
      dnsNames: [dnsName],
      ipAddresses: [],
      usages,
      keyType: "ec-p256",
      days: 90,
      now,
    });
    const files = await writeKeyPair(join(certs, name), pair);
    return { cert: await readFile(files.certificateFile, "utf8"), key: await readFile(files.keyFile, "utf8") };
  };
  const certificates = {
    server: await made("server", "mx.corp.example", "both"),
    acme: await made("acme", "mx.acme.example", "client"),
    globex: await made("globex", "mx.globex.example", "client"),
    outsider: await made("outsider", "mx.outsider.example", "client"),
    inside: await made("inside", "mail1.corp.example", "server"),
    inside2: await made("inside2", "mail2.corp.example", "server"),
  };
  const pinOf = (certificate: ClientCertificate) => spkiDigest(new X509Certificate(certificate.cert));
  const hop = options.hop ?? { address: "127.0.0.21", port: 9 };
  const servers =
    options.servers ??
    `      - { address: ${hop.address}, port: ${hop.port}, name: mail1.corp.example, tls: { pin: "PIN" } }`;
  const configFile = join(path, "config", "relay.yaml");
  await writeFile(
    configFile,
    `hostname: mx.corp.example
listen:
  - { address: ${relayAddress}, port: 0 }
  - { address: ${relayAddress}, port: 0, implicit-tls: true }
tls: { certificate: ../certs/server.pem, key: ../certs/server.key }
spool: { driver: directory, path: ../spool }
routes:
  internal:
    domains: [corp.example, edi.corp.example]
    servers:
${servers.replaceAll("PIN", pinOf(certificates.inside))}
${options.more ?? ""}
`,
  );
  for (const [name, text] of Object.entries(options.partners ?? usualPartners)) {
    const certificate = name === "globex" ? certificates.globex : certificates.acme;
    await writeFile(join(path, "config", "partners", `${name}.yaml`), text.replaceAll("PIN", pinOf(certificate)));
  }
  return {
    path,
    configFile,
    certificates,
    async load() {
      const result = await loadConfig(configFile);
      if (result.kind === "invalid")
        throw new Error(result.problems.map(({ keyPath, message }) => `${keyPath}: ${message}`).join("\n"));
      return result.config;
    },
    remove: () => rm(path, { recursive: true, force: true }),
  };
}
