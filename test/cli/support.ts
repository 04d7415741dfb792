/** A relay's folders with a valid configuration, and commands whose output is caught. */
import type { Command } from "commander";
import { X509Certificate } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand, type ExitCode, type Output } from "../../src/cli/output.ts";
import { mintTestCa } from "../../src/certs/mint.ts";
import { partnerCommand } from "../../src/cli/partner.ts";
import { createLog } from "../../src/log/log.ts";
import type { Partner } from "../../src/partner/partner.ts";
import type { Digest } from "../../src/partner/pin.ts";
import { SightingsRecorder } from "../../src/sightings/recorder.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import { fixture, fixturePath, required, temporaryFolder } from "../certs/support.ts";

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

const quiet = createLog("test", { write: () => undefined });

/** Nobody sits there. */
const nobody: Terminal = {
  shows: false,
  ask: () => Promise.resolve(undefined),
  read: () => Promise.resolve(""),
};

export const partner = (args: readonly string[], at?: Date, terminal: Partial<Terminal> = {}): Promise<Ran> =>
  run((output, clock) => partnerCommand(output, clock, { ...nobody, ...terminal }), args, at);
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

/** Confirms by a fingerprint; no relay runs here. */
export function confirmWith({ config }: Bench, name: string, ...typed: string[]): Promise<Ran> {
  return partner(["confirm", name, ...typed, "--config", config]);
}

/** Everything below a folder: paths and contents, to see that nothing has changed. */
export async function snapshot(folder: string): Promise<ReadonlyMap<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const contents = files.toSorted().map(async (file) => [file, (await readFile(file)).toString("base64")] as const);
  return new Map(await Promise.all(contents));
}

/** The relay sees a certificate that nobody knows. */
export async function seeUnknown(
  { config }: Bench,
  certificate: X509Certificate,
  address: string,
  of: Partner | undefined,
): Promise<void> {
  const recorder = await SightingsRecorder.open(spoolOf(config), quiet, now);
  recorder.noteUnknown([certificate], of === undefined ? [] : [of], address, now);
  await recorder.close();
}

/** The relay lets a partner in by a pin. */
export async function seePin(
  { config }: Bench,
  partnerOf: Partner,
  digest: Digest,
  certificate: X509Certificate,
  address: string,
  at: Date,
): Promise<void> {
  const pin = required(partnerOf.pins.find((one) => one.kind !== "trustAnchor" && one.digest === digest));
  const recorder = await SightingsRecorder.open(spoolOf(config), quiet, at);
  recorder.noteIdentified({ partner: partnerOf, pin }, [certificate], address, at);
  await recorder.close();
}

function spoolOf(config: string): string {
  return join(config, "../../var/spool");
}
