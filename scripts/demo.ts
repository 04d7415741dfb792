/**
 * `npm run demo`: the main job, for real, on loopback and below `var/demo`: a test CA, two enrolled partners, the relay, an
 * internal mail server that writes Maildirs, and mail through it, accepted and refused, with the dialogues.
 *
 * Stays up afterwards; with `--once` it ends, with 0 only if every message did what it should.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { initCa, issue, writeKeyPair } from "../src/certs/ca.ts";
import { runCommand } from "../src/cli/output.ts";
import { partnerCommand } from "../src/cli/partner.ts";
import { writeNewPartner } from "../src/config/partner-file.ts";
import { spkiDigest, type Digest } from "../src/partner/pin.ts";
import { readState } from "../src/supervisor/state.ts";
import { SmtpDialogue, type ClientCertificate } from "../test/tools/smtp-dialogue.ts";
import { startMailboxServer } from "./demo/mailbox-server.ts";
import { scenarios, type Place, type Scenario } from "./demo/scenarios.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "var", "demo");
const relayAddress = "127.0.0.2";
const insideAddress = "127.0.0.21";

interface Credentials extends ClientCertificate {
  readonly pin: Digest;
}

interface Outcome {
  readonly scenario: Scenario;
  readonly reply: string;
  readonly asExpected: boolean;
}

const say = (text: string) => void process.stdout.write(`${text}\n`);

async function main(): Promise<void> {
  const once = process.argv.includes("--once");
  say(
    `Setting up ${relative(process.cwd(), folder) || "."}: a CA, certificates, two partners, an internal mail server`,
  );
  await rm(folder, { recursive: true, force: true });
  const certificates = await makeCertificates();
  const maildirs = join(folder, "maildirs");
  const inside = await startMailboxServer({
    address: insideAddress,
    port: 0,
    certificate: certificates.inside.cert,
    key: certificates.inside.key,
    maildirs,
  });
  const configFile = await writeConfiguration(certificates, inside.port);
  const relay = startRelay(configFile);
  let failed = true;
  try {
    const at = await untilListening(relay, join(folder, "spool"));
    say(
      `The relay listens at ${relayAddress} port ${at.port}; its log is ${relative(process.cwd(), join(folder, "relay.log"))}\n`,
    );
    const outcomes: Outcome[] = [];
    for (const scenario of scenarios) outcomes.push(await play(scenario, at, certificates, maildirs));
    failed = summary(outcomes);
    if (!once) await stayUp(at, configFile, maildirs);
  } finally {
    await stopRelay(relay);
    await inside.close();
  }
  process.exitCode = failed ? 1 : 0;
}

async function makeCertificates(): Promise<Record<"server" | "inside" | "acme" | "globex" | "outsider", Credentials>> {
  const directory = join(folder, "certs");
  const now = new Date();
  await initCa({ directory, commonName: "pinrelay demo CA", days: 365, now });
  const make = async (name: string, host: string): Promise<Credentials> => {
    const pair = await issue({
      directory,
      commonName: host,
      dnsNames: [host],
      ipAddresses: [],
      usages: "both",
      days: 365,
      now,
    });
    const { certificate } = await writeKeyPair(join(directory, name), pair);
    return { cert: pair.certificatePem, key: pair.keyPem, pin: spkiDigest(certificate) };
  };
  return {
    server: await make("server", "mx.corp.example"),
    inside: await make("inside", "mail1.corp.example"),
    acme: await make("acme", "mx.acme.example"),
    globex: await make("globex", "mx.globex.example"),
    outsider: await make("outsider", "mx.outsider.example"),
  };
}

async function writeConfiguration(
  certificates: Record<"inside" | "acme" | "globex", Credentials>,
  insidePort: number,
): Promise<string> {
  const config = join(folder, "config");
  await mkdir(join(config, "partners"), { recursive: true });
  const file = join(config, "relay.yaml");
  await writeFile(
    file,
    `hostname: mx.corp.example
listen:
  - { address: ${relayAddress}, port: 0 } # 0: the system chooses
tls: { certificate: ../certs/server.pem, key: ../certs/server.key }
spool: { driver: directory, path: ../spool }
audit: { path: ../audit }
routes:
  internal:
    domains: [corp.example]
    servers:
      - { address: ${insideAddress}, port: ${insidePort}, name: mail1.corp.example, tls: { pin: "${certificates.inside.pin}" } }
`,
  );
  const partners = join(config, "partners");
  await writeNewPartner(partners, {
    name: "acme",
    description: "ACME Supplies",
    hosts: ["127.0.0.11"],
    pins: [{ spki: certificates.acme.pin, label: "demo", state: "pending" }],
    from: ["@acme.example"],
    to: ["orders@corp.example", "invoices@corp.example"],
  });
  await writeNewPartner(partners, {
    name: "globex",
    description: "Globex Corporation",
    hosts: ["127.0.0.12"],
    pins: [{ spki: certificates.globex.pin, label: "demo", state: "pending" }],
    from: ["@globex.example"],
    to: ["@corp.example"],
  });
  await confirmPartner(file, "acme", certificates.acme.pin);
  await confirmPartner(file, "globex", certificates.globex.pin);
  return file;
}

/** A partner counts once its fingerprint has come over another channel; here it is at hand. */
async function confirmPartner(configFile: string, name: string, fingerprint: Digest): Promise<void> {
  const written: string[] = [];
  const write = (text: string): void => void written.push(text);
  const output = { out: write, err: write };
  const args = ["confirm", name, fingerprint, "--config", configFile];
  if ((await runCommand(partnerCommand(output), args, output)) !== 0) throw new Error(written.join(""));
}

function startRelay(configFile: string): ChildProcess {
  const relay = spawn(process.execPath, [join(root, "scripts", "pinrelay.mjs"), "start", "--config", configFile], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  relay.stdout?.pipe(createWriteStream(join(folder, "relay.log")));
  return relay;
}

async function untilListening(relay: ChildProcess, spool: string): Promise<Place> {
  const deadline = Date.now() + 60_000;
  while (relay.exitCode === null && Date.now() < deadline) {
    const state = await readState(spool).catch(() => undefined); // being written
    const listening = state?.compartments.find(({ name, ready }) => name === "receiver" && ready)?.listening[0];
    const port = listening === undefined ? undefined : /:(\d+)$/.exec(listening)?.[1];
    if (port !== undefined) return { address: relayAddress, port: Number(port) };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("the relay did not start: its log tells why");
}

async function play(
  scenario: Scenario,
  at: Place,
  certificates: Record<"acme" | "globex" | "outsider", Credentials>,
  maildirs: string,
): Promise<Outcome> {
  say(`── ${scenario.title} ${"─".repeat(Math.max(0, 76 - scenario.title.length))}`);
  const client = await SmtpDialogue.open(at, scenario.from);
  client.trace((direction, line) => {
    // The list of extensions is told once, in the first dialogue.
    const again = scenario !== scenarios[0] && line.startsWith("250-") && !line.startsWith("250-mx.");
    if (!again) say(`  ${direction === "sent" ? "C:" : "S:"} ${line}`);
    if (direction === "received" && line.startsWith("220 2.0.0"))
      say(`  ~~ TLS, ${certificateText(scenario.certificate)} ~~`);
  });
  const certificate = scenario.certificate === undefined ? undefined : certificates[scenario.certificate];
  const reply = await scenario.talk(client, certificate);
  client.close();
  const delivered =
    scenario.delivered === undefined
      ? true
      : await arrives(maildirs, scenario.delivered.to, scenario.delivered.content);
  const asExpected = reply.startsWith(scenario.expected) && delivered;
  if (scenario.delivered !== undefined) {
    say(
      `  ${delivered ? "✓" : "✗"} in the Maildir of ${scenario.delivered.to}, ${delivered ? "every byte of it" : "it did NOT arrive as sent"}`,
    );
  }
  say("");
  return { scenario, reply, asExpected };
}

function certificateText(owner: Scenario["certificate"]): string {
  return owner === undefined ? "without a client certificate" : `with the certificate of ${owner}`;
}

/** Is there, soon, a message in the Maildir that ends with exactly these octets? Ours stand above them. */
async function arrives(maildirs: string, recipient: string, content: string): Promise<boolean> {
  const folderNew = join(maildirs, recipient, "new");
  const wanted = Buffer.from(content, "latin1");
  for (let attempt = 0; attempt < 200; attempt++) {
    for (const name of await readdir(folderNew).catch(() => [])) {
      const stored = await readFile(join(folderNew, name));
      if (stored.subarray(-wanted.length).equals(wanted) && stored.subarray(0, 9).equals(Buffer.from("Received:")))
        return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** Prints the table; true if something was not as it should be. */
function summary(outcomes: readonly Outcome[]): boolean {
  const titleColumns = Math.max(...outcomes.map(({ scenario }) => scenario.title.length));
  say("Summary");
  for (const { scenario, reply, asExpected } of outcomes) {
    say(
      `  ${asExpected ? "✓" : "✗"} ${scenario.title.padEnd(titleColumns)}  ${reply.split("\n")[0]?.slice(0, 11) ?? ""}`,
    );
  }
  const wrong = outcomes.filter(({ asExpected }) => !asExpected);
  say(
    wrong.length === 0
      ? `\nAll ${outcomes.length} did what they should.`
      : `\n${wrong.length} did NOT do what they should.`,
  );
  return wrong.length > 0;
}

async function stayUp(at: Place, configFile: string, maildirs: string): Promise<void> {
  const shown = (path: string) => relative(process.cwd(), path);
  say(`
The relay stays up; Ctrl-C ends it. In another terminal:

  npx pinrelay status --config ${shown(configFile)}
  npx pinrelay partner show acme --config ${shown(configFile)}
  openssl s_client -quiet -crlf -starttls smtp -bind 127.0.0.11 -connect ${at.address}:${at.port} \\
    -cert ${shown(join(folder, "certs/acme.pem"))} -key ${shown(join(folder, "certs/acme.key"))}

Mail arrives below ${shown(maildirs)}.`);
  await new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve).once("SIGHUP", resolve));
}

async function stopRelay(relay: ChildProcess): Promise<void> {
  if (relay.exitCode !== null) return;
  const ended = new Promise((resolve) => relay.once("exit", resolve));
  relay.kill("SIGTERM");
  await ended;
}

await main();
