/**
 * What `pinrelay explain` says is what a relay that runs on the same files says, to the octet. A table of situations, each
 * asked of the command and, over real sockets and real TLS, of a real receiver.
 */
import { X509Certificate } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { loadCa } from "../../src/certs/ca.ts";
import { createRevocationList, serialOf } from "../../src/certs/crl.ts";
import { explainCommand } from "../../src/cli/explain.ts";
import { createLog } from "../../src/log/log.ts";
import { replies, type ReplyName } from "../../src/mail/reply.ts";
import { spkiDigest } from "../../src/partner/pin.ts";
import { startReceiver, type Receiver } from "../../src/receiver/receiver.ts";
import { readPinSightings } from "../../src/sightings/reader.ts";
import { takeLock } from "../../src/spool/directory/lock.ts";
import { makeCertificate, withIssuers, type Made } from "../receiver/certificates.ts";
import { until } from "../receiver/support.ts";
import { makeRelayFolder, usualPartners, type RelayFolder } from "../tools/relay-folder.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";
import { run, type Ran } from "./support.ts";

const dayMs = 86_400_000;
const inDays = (days: number) => new Date(Date.now() + days * dayMs);
const day = (days: number) => inDays(days).toISOString().slice(0, 10);

interface Explained {
  readonly result: "accepted" | "refused";
  readonly partner: string | null;
  readonly identity?: { readonly text: string; readonly file?: string; readonly line?: number };
  readonly replies: ReadonlyArray<{
    readonly command: string | null;
    readonly reply: string;
    readonly name: ReplyName;
    readonly rule: { readonly text: string; readonly file?: string; readonly line?: number };
  }>;
}

interface Situation {
  readonly what: string;
  /** The last octet of the address. */
  readonly at: number;
  /** The name of a certificate; undefined: none is shown. */
  readonly shows?: string;
  readonly tls?: "none" | "X25519";
  readonly from?: string;
  readonly to?: readonly string[];
  readonly size?: number;
  readonly smtpUtf8?: boolean;
  /** The last reply. */
  readonly says: ReplyName;
}

const orders = "orders@corp.example";

/** In the folder where every partner lists its own addresses. */
const situations: readonly Situation[] = [
  { what: "an address of no partner", at: 66, shows: "acme", says: "addressUnknown" },
  { what: "an address of no partner, without TLS", at: 66, tls: "none", says: "addressUnknown" },
  { what: "a partner without TLS", at: 11, tls: "none", says: "tlsRequired" },
  { what: "a partner without a certificate", at: 11, says: "certificateMissing" },
  { what: "a partner with an unknown certificate", at: 11, shows: "outsider", says: "certificateUnknown" },
  { what: "the certificate of another partner", at: 11, shows: "globex", says: "addressNotOfPartner" },
  { what: "a mail that is allowed", at: 11, shows: "acme", says: "startData" },
  { what: "a mail to several", at: 11, shows: "acme", to: [orders, "a@edi.corp.example"], says: "startData" },
  { what: "the null sender", at: 11, shows: "acme", from: "", says: "startData" },
  { what: "the postmaster", at: 11, shows: "acme", to: ["postmaster"], says: "startData" },
  { what: "the postmaster of our domain", at: 11, shows: "acme", to: ["PostMaster@corp.example"], says: "startData" },
  { what: "the probe", at: 11, shows: "acme", to: ["probe@mx.corp.example"], says: "startData" },
  { what: "a sender of a subdomain", at: 11, shows: "acme", from: "a@eu.acme.example", says: "startData" },
  { what: "a sender not allowed", at: 11, shows: "acme", from: "a@globex.example", says: "senderNotAllowed" },
  { what: "no address", at: 11, shows: "acme", from: "a b@acme.example", says: "senderSyntax" },
  {
    what: "a sender that needs SMTPUTF8",
    at: 11,
    shows: "acme",
    from: "ü@acme.example",
    says: "internationalizedSender",
  },
  { what: "a sender with SMTPUTF8", at: 11, shows: "acme", from: "ü@acme.example", smtpUtf8: true, says: "startData" },
  { what: "a recipient not allowed", at: 11, shows: "acme", to: ["ceo@corp.example"], says: "recipientNotAllowed" },
  { what: "a foreign domain", at: 11, shows: "acme", to: ["a@elsewhere.example"], says: "relayingDenied" },
  { what: "a recipient that routes on", at: 11, shows: "acme", to: ["a%b@corp.example"], says: "relayingDenied" },
  { what: "an address literal", at: 11, shows: "acme", to: ["a@[192.0.2.1]"], says: "relayingDenied" },
  { what: "an empty recipient", at: 11, shows: "acme", to: [""], says: "recipientSyntax" },
  {
    what: "a recipient that needs SMTPUTF8",
    at: 11,
    shows: "acme",
    to: ["ü@corp.example"],
    says: "internationalizedRecipient",
  },
  { what: "some recipients not allowed", at: 11, shows: "acme", to: ["ceo@corp.example", orders], says: "startData" },
  { what: "a size within the limit", at: 12, shows: "globex", from: "a@globex.example", size: 1024, says: "startData" },
  {
    what: "a size above the partner's limit",
    at: 12,
    shows: "globex",
    from: "a@globex.example",
    size: 1025,
    says: "tooLargeDeclared",
  },
  { what: "a size above the relay's limit", at: 11, shows: "acme", size: 30_000_000, says: "tooLargeDeclared" },
  {
    what: "more recipients than allowed",
    at: 12,
    shows: "globex",
    from: "a@globex.example",
    to: [orders, "a@edi.corp.example", "b@edi.corp.example"],
    says: "startData",
  },
  { what: "a pending pin", at: 13, shows: "pending", says: "certificatePending" },
  { what: "a revoked pin", at: 14, shows: "revoked", says: "certificateRevoked" },
  { what: "a pin that has retired", at: 15, shows: "old", says: "certificateRetired" },
  { what: "the pin that replaced it", at: 15, shows: "next", says: "startData" },
  { what: "an expired certificate", at: 16, shows: "expired", says: "certificateExpired" },
  { what: "a certificate of the future", at: 16, shows: "future", says: "certificateNotYetValid" },
  { what: "a pin before its time", at: 17, shows: "early", says: "certificateNotYetValid" },
  { what: "a certificate for servers only", at: 18, shows: "inside", says: "certificateUsage" },
  { what: "a key exchange that is too weak", at: 19, shows: "strict", tls: "X25519", says: "keyExchangeTooWeak" },
  { what: "a key exchange that is strong enough", at: 19, shows: "strict", says: "startData" },
  { what: "a certificate of a CA that is trusted", at: 20, shows: "intermediate", says: "startData" },
  { what: "a certificate that its CA has revoked", at: 21, shows: "acme", says: "certificateRevoked" },
  { what: "a revocation list that is out of date", at: 22, shows: "globex", says: "revocationUnknown" },
  { what: "a sender not allowed, observed", at: 23, shows: "observed", from: "a@globex.example", says: "startData" },
  { what: "a recipient not allowed, observed", at: 23, shows: "observed", to: ["ceo@corp.example"], says: "startData" },
  {
    what: "a foreign domain, observed",
    at: 23,
    shows: "observed",
    to: ["a@elsewhere.example"],
    says: "relayingDenied",
  },
];

/** In the folder where a partner lists any address. */
const anywhere: readonly Situation[] = [
  { what: "a stranger without a certificate", at: 66, says: "certificateMissingAnywhere" },
  { what: "a stranger with an unknown certificate", at: 66, shows: "outsider", says: "certificateUnknownAnywhere" },
  { what: "a stranger with a partner's certificate", at: 66, shows: "acme", says: "addressNotOfPartner" },
  { what: "the partner, from anywhere", at: 66, shows: "globex", from: "a@globex.example", says: "startData" },
];

type Certificates = Readonly<Record<string, ClientCertificate>>;

interface Bench {
  readonly folder: RelayFolder;
  readonly receiver: Receiver;
  readonly certificates: Certificates;
}

const clock = { now: new Date() };

async function start(folder: RelayFolder, certificates: Certificates): Promise<Bench> {
  for (const [name, { cert }] of Object.entries(certificates)) await writeFile(join(folder.path, `${name}.pem`), cert);
  const receiver = await startReceiver(await folder.load(), createLog("receiver", { write: () => undefined }), {
    now: () => clock.now,
  });
  return { folder, receiver, certificates };
}

const partnerAt = (octet: number, pins: string, more = "") => `hosts: [127.0.0.${octet}]
pins:
${pins}
allow: { from: ["@acme.example"], to: [${orders}] }
${more}
`;

const spki = (made: Made, more = "") => `  - { spki: "${spkiDigest(made.certificate)}"${more} }`;

/** All partners of the first table, the receiver on their files, and a rollover that is over. */
async function startFirst(): Promise<Bench> {
  const ca = await makeCertificate({ ca: true });
  const intermediate = await makeCertificate({ issuer: ca, ca: true, dnsNames: [] });
  const made = {
    pending: await makeCertificate(),
    revoked: await makeCertificate(),
    old: await makeCertificate({ from: inDays(-60) }),
    next: await makeCertificate({ from: inDays(-60) }),
    expired: await makeCertificate({ from: inDays(-60), to: inDays(-1) }),
    future: await makeCertificate({ from: inDays(1), to: inDays(9) }),
    early: await makeCertificate(),
    strict: await makeCertificate(),
    observed: await makeCertificate(),
  };
  const leaf = withIssuers(await makeCertificate({ issuer: intermediate }), intermediate);
  const anchored = (name: string, list: string) =>
    `  - { trust-anchor: ../../certs/ca.pem, name: ${name}, revocation-list: ../../certs/${list} }`;
  const folder = await makeRelayFolder({
    partners: {
      acme: usualPartners.acme,
      globex: `${usualPartners.globex}limits: { message-size: 1KiB, recipients: 2 }\n`,
      pending: partnerAt(13, spki(made.pending, ", state: pending")),
      revoked: partnerAt(14, spki(made.revoked, ", state: revoked")),
      rolled: partnerAt(15, `${spki(made.old)}\n${spki(made.next, ", state: next")}`),
      dated: partnerAt(16, `${spki(made.expired)}\n${spki(made.future)}`),
      early: partnerAt(17, spki(made.early, `, not-before: ${day(2)}`)),
      server: partnerAt(18, `  - { trust-anchor: ../../certs/ca.pem, name: mail1.corp.example }`),
      strict: partnerAt(19, spki(made.strict), "key-exchange: post-quantum"),
      anchored: partnerAt(20, "  - { trust-anchor: ../../certs/other-ca.pem, name: mx.acme.example }"),
      listed: partnerAt(21, anchored("mx.acme.example", "revoked.crl")),
      stale: partnerAt(22, anchored("mx.globex.example", "stale.crl")),
      observed: partnerAt(23, spki(made.observed), "mode: observe"),
    },
  });
  const certs = join(folder.path, "certs");
  await writeFile(join(certs, "other-ca.pem"), ca.cert);
  const authority = await loadCa(certs, new Date());
  const list = (revoked: readonly X509Certificate[], nextUpdate: Date) =>
    createRevocationList(authority, {
      revoked: revoked.map((one) => ({ serial: serialOf(one), at: new Date(), reason: "unspecified" as const })),
      number: 1n,
      now: inDays(-5),
      nextUpdate,
    });
  const acme = new X509Certificate(folder.certificates.acme.cert);
  await writeFile(join(certs, "revoked.crl"), list([acme], inDays(5)));
  await writeFile(join(certs, "stale.crl"), list([], inDays(-1)));

  clock.now = inDays(-30);
  const bench = await start(folder, { ...folder.certificates, ...made, intermediate: leaf });
  await mailOf(bench, { what: "the first use of the next pin", at: 15, shows: "next", says: "startData" });
  const { spool } = await folder.load();
  await until("the first use is on disk", async () => (await readPinSightings(spool.path)).length > 0);
  clock.now = new Date();
  return bench;
}

async function startSecond(): Promise<Bench> {
  const folder = await makeRelayFolder({
    partners: { acme: usualPartners.acme, globex: usualPartners.globex.replace("127.0.0.12", "any") },
  });
  clock.now = new Date();
  return start(folder, folder.certificates);
}

/** The commands of a mail, without those that would follow a refusal. */
function commandsOf({ from = "a@acme.example", to = [orders], size, smtpUtf8 }: Situation) {
  const mail = `MAIL FROM:<${from}>${size === undefined ? "" : ` SIZE=${size}`}${smtpUtf8 === true ? " SMTPUTF8" : ""}`;
  return { mail, recipients: to.map((path) => `RCPT TO:<${path}>`) };
}

/** What the receiver says: the greeting that turns away, or MAIL, RCPT and DATA. */
async function mailOf({ receiver, certificates }: Bench, situation: Situation): Promise<string[]> {
  const [listener] = receiver.addresses;
  if (listener === undefined) throw new Error("it listens nowhere");
  const client = await SmtpDialogue.open(listener, `127.0.0.${situation.at}`);
  try {
    const greeting = await client.reply();
    if (!greeting.startsWith("220")) return [greeting];
    await client.say("EHLO mx.acme.example");
    if (situation.tls !== "none") {
      await client.say("STARTTLS");
      const certificate = situation.shows === undefined ? undefined : certificates[situation.shows];
      await client.secure(certificate, situation.tls === "X25519" ? { ecdhCurve: "X25519" } : undefined);
      await client.say("EHLO mx.acme.example");
    }
    const { mail, recipients } = commandsOf(situation);
    const said = [await say(client, mail)];
    if (!said[0]?.startsWith("250")) return said;
    for (const recipient of recipients) said.push(await say(client, recipient));
    if (said.slice(1).some((reply) => reply.startsWith("250"))) said.push(await say(client, "DATA"));
    return said;
  } finally {
    client.close();
  }
}

function say(client: SmtpDialogue, command: string): Promise<string> {
  client.write(Buffer.from(`${command}\r\n`));
  return client.reply();
}

function explain({ folder }: Pick<Bench, "folder">, ...args: readonly string[]): Promise<Ran> {
  return run(explainCommand, [...args, "--config", folder.configFile], clock.now);
}

function argumentsOf({ folder }: Bench, situation: Situation): string[] {
  const { at, shows, tls, from = "a@acme.example", to = [orders], size, smtpUtf8 } = situation;
  const certificate = shows === undefined ? ["--no-cert"] : ["--cert", join(folder.path, `${shows}.pem`)];
  return [
    "--ip",
    `127.0.0.${at}`,
    ...(tls === "none" ? ["--no-tls"] : certificate),
    ...(tls === "X25519" ? ["--group", tls] : []),
    "--from",
    from,
    ...to.flatMap((path) => ["--to", path]),
    ...(size === undefined ? [] : ["--size", String(size)]),
    ...(smtpUtf8 === true ? ["--smtputf8"] : []),
  ];
}

function parsed({ out }: Ran): Explained {
  return JSON.parse(out) as Explained; // the command's own output
}

const withoutSession = (reply: string) => reply.replace(/\[\w+\]$/, "[session]");

describe.each([
  ["with partners at their own addresses", startFirst, situations],
  ["with a partner at any address", startSecond, anywhere],
] as const)("explain, %s, says what the relay says to", (_name, startBench, table) => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await startBench();
  });
  afterAll(async () => {
    await bench.receiver.stop();
    await bench.folder.remove();
  });

  it.each(table.map((situation) => [situation.what, situation] as const))("%s", async (_what, situation) => {
    const { mail, recipients } = commandsOf(situation);
    const said = (await mailOf(bench, situation)).map(withoutSession);
    const ran = await explain(bench, ...argumentsOf(bench, situation), "--json");
    const { result, replies: explained } = parsed(ran);
    expect(explained.map(({ reply }) => reply)).toEqual(said);
    expect(explained.map(({ command }) => command)).toEqual(
      explained[0]?.command === null ? [null] : [mail, ...recipients, "DATA"].slice(0, said.length),
    );
    expect(explained.at(-1)?.name).toBe(situation.says);
    const isAccepted = explained.every(({ name }) => replies[name].code < 400);
    expect({ result, exitCode: ran.exitCode }).toEqual(
      isAccepted ? { result: "accepted", exitCode: 0 } : { result: "refused", exitCode: 1 },
    );
  });
});

describe("explain", () => {
  let bench: Pick<Bench, "folder">;
  const partnerFile = (name: string) => join(bench.folder.path, "config", "partners", `${name}.yaml`);
  const acme = () => ["--cert", join(bench.folder.path, "certs", "acme.pem"), "--ip", "127.0.0.11"];
  const mail = ["--from", "a@acme.example", "--to", orders];
  beforeAll(async () => {
    bench = { folder: await makeRelayFolder() };
    clock.now = new Date();
  });
  afterAll(() => bench.folder.remove());

  it("names the rule of sender and recipient, and the pin, with file and line", async () => {
    const told = parsed(await explain(bench, ...acme(), ...mail, "--json"));
    const file = partnerFile("acme");
    expect(told.replies.slice(0, 2).map(({ rule }) => rule)).toEqual([
      { text: "allow.from @acme.example", file, line: 4 },
      { text: `allow.to ${orders}`, file, line: 5 },
    ]);
    expect(told.identity).toEqual({ text: expect.stringMatching(/^pin spki sha256\//) as string, file, line: 2 });
    expect(told.partner).toBe("acme");
  });

  it("names the list that lacks an entry, the hosts that lack an address, and the routes that lack a domain", async () => {
    const rules = async (...args: string[]) => parsed(await explain(bench, ...args, "--json")).replies.at(-1)?.rule;
    const file = partnerFile("acme");
    expect(await rules(...acme(), "--from", "x@evil.example", "--to", orders)).toMatchObject({ file, line: 4 });
    expect(await rules(...acme(), "--from", "a@acme.example", "--to", "ceo@corp.example")).toMatchObject({
      file,
      line: 5,
    });
    const away = acme().with(3, "127.0.0.12");
    expect(await rules(...away, ...mail)).toEqual({ text: "127.0.0.12 is not among the hosts of acme", file, line: 1 });
    const foreign = await rules(...acme(), "--from", "a@acme.example", "--to", "a@elsewhere.example");
    expect(foreign).toMatchObject({ file: bench.folder.configFile });
    expect(foreign?.line).toBeGreaterThan(5);
  });

  it("tells a person everything in lines that show no control character", async () => {
    const ran = await explain(bench, ...acme(), "--from", "a@acme.example", "--to", "\u001b[2J@corp.example");
    expect(ran.exitCode).toBe(1);
    expect(ran.out).not.toContain("\u001b");
    expect(ran.out).toContain("Limits and quotas are not part of this");
    expect(ran.out).toMatch(/^Identified as acme: pin spki .*acme\.yaml:2\)$/m);
    expect(ran.out).toContain("  250 2.1.0 Sender OK\n");
  });

  it("takes a partner in place of certificate and address", async () => {
    const accepted = await explain(bench, "--partner", "acme", "--from", "<>", "--to", "<postmaster>");
    expect(accepted.exitCode).toBe(0);
    expect(accepted.out).toContain("MAIL FROM:<>\n  250 2.1.0 Sender OK\n");
    expect(accepted.out).toContain("RCPT TO:<postmaster>\n");
    expect(accepted.out).toContain("Identified as acme: taken as given");
    const refused = await explain(bench, "--partner", "acme", "--from", "a@globex.example", "--to", orders);
    expect(refused.exitCode).toBe(1);
    expect(refused.out).toContain("550 5.7.1 Sender address is not one that you may use here [session]");
  });

  it.each([
    ["a partner that does not exist", ["--partner", "nobody"], 1, "there is no partner nobody"],
    ["a partner and a certificate", ["--partner", "acme", "--cert", "x.pem"], 2, "--partner stands in place of"],
    ["a certificate without an address", ["--cert", "x.pem"], 2, "who sends?"],
    ["an address without a certificate", ["--ip", "127.0.0.11"], 2, "what does it show?"],
    ["a certificate without TLS", ["--cert", "x.pem", "--ip", "127.0.0.11", "--no-tls"], 2, "without TLS"],
    ["no address at all", ["--ip", "mx.acme.example", "--no-cert"], 2, "It is an IP address"],
    ["no size", ["--partner", "acme", "--size", "10MiB"], 2, "It is a number of octets"],
    ["a file that is not there", ["--cert", "x.pem", "--ip", "127.0.0.11"], 1, "x.pem: no such file"],
  ])("refuses %s", async (_what, args, exitCode, message) => {
    const ran = await explain(bench, ...args, ...mail);
    expect({ exitCode: ran.exitCode, out: ran.out }).toEqual({ exitCode, out: "" });
    expect(ran.err).toContain(message);
  });

  it("says when the running relay works by other files", async () => {
    const { spool, version } = await bench.folder.load();
    await mkdir(spool.path, { recursive: true });
    const told = async (policy: string) => {
      const state = { pid: process.pid, policy, compartments: [] };
      await writeFile(join(spool.path, "relay.json"), JSON.stringify(state));
      return (await explain(bench, "--partner", "acme", ...mail)).err;
    };
    expect(await told("another")).toBe(""); // it has ended
    const lock = takeLock(join(spool.path, "relay.lock"), "the relay is running");
    onTestFinished(() => lock.release());
    expect(await told("another")).toContain("pinrelay reload brings them into force");
    expect(await told(version)).toBe("");
  });

  it("refuses an address that would be two command lines", async () => {
    const ran = await explain(bench, "--partner", "acme", "--from", "a@acme.example>\r\nRSET", "--to", orders);
    expect(ran.exitCode).toBe(2);
  });
});
