/** A relay's folders with a valid configuration, and commands whose output is caught. */
import type { Command } from "commander";
import { X509Certificate } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand, type ExitCode, type Output } from "../../src/cli/output.ts";
import { mintTestCa } from "../../src/certs/mint.ts";
import { partnerCommand } from "../../src/cli/partner.ts";
import { fixture, fixturePath, temporaryFolder } from "../certs/support.ts";

export const now = new Date("2027-01-01T12:00:00Z"); // the fixtures are valid from November 2026 on

export interface Ran {
  readonly exitCode: ExitCode;
  readonly out: string;
  readonly err: string;
}

/** Runs a command as the command line would. */
export async function run(
  make: (output: Output, clock: () => Date) => Command,
  args: readonly string[],
  at: Date = now,
): Promise<Ran> {
  const out: string[] = [];
  const err: string[] = [];
  const output: Output = { out: (text) => void out.push(text), err: (text) => void err.push(text) };
  const exitCode = await runCommand(
    make(output, () => at),
    args,
    output,
  );
  return { exitCode, out: out.join(""), err: err.join("") };
}

export interface Bench {
  readonly config: string;
  readonly certs: string;
  readonly partners: string;
}

const relayYaml = `hostname: mx.corp.example
listen: [{ address: 127.0.0.1, port: 0 }]
tls: { certificate: ../certs/server.pem, key: ../certs/server.key }
routes:
  internal:
    domains: [corp.example, corp.test]
    servers: [{ address: 127.0.0.1, port: 2526, tls: { mode: none } }]
`;

/** relay.yaml and an empty folder of partners; no certificates yet. */
export async function bareBench(yaml: string = relayYaml): Promise<Bench> {
  const folder = await temporaryFolder();
  const config = join(folder, "config", "relay.yaml");
  const partners = join(folder, "config", "partners");
  await mkdir(partners, { recursive: true });
  await writeFile(config, yaml);
  return { config, certs: join(folder, "certs"), partners };
}

/** The same with a CA and the relay's certificate: it could start. */
export async function bench(yaml: string = relayYaml): Promise<Bench> {
  const bare = await bareBench(yaml);
  await mintTestCa({ directory: bare.certs, hostname: "mx.corp.example", now });
  return bare;
}

export const partner = (args: readonly string[], at?: Date): Promise<Ran> => run(partnerCommand, args, at);
export const rules = [
  "--host",
  "203.0.113.0/28",
  "2001:db8:1::/64",
  "--from",
  "@acme.example",
  "--to",
  "orders@corp.example",
];
export const selfSigned = new X509Certificate(fixture("self-signed.pem"));

export function enrolCert({ config }: Bench, name: string, ...more: string[]): Promise<Ran> {
  return partner(["enrol", name, "--cert", fixturePath("self-signed.pem"), ...rules, "--config", config, ...more]);
}

export function enrolCsr({ config }: Bench, name: string, csr: string, ...more: string[]): Promise<Ran> {
  return partner(["enrol", name, "--csr", fixturePath(csr), ...rules, "--config", config, ...more]);
}
