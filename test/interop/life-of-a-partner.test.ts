/**
 * The life of one partner, with a real Postfix as its mail server: enrolled by a request that our CA signs, confirmed,
 * renewed too early, confirmed again, its old certificate retired, and in the end revoked. No message is lost on the way.
 */
import { copyFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { acmeAddress, makeRelayFolder, relayAddress, type RelayFolder } from "../tools/relay-folder.ts";
import { runPinrelay, startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { describeCertificate, selfSigned } from "./certificates.ts";
import { plain } from "./messages.ts";
import { startPostfix, type PostfixInstance } from "./postfix.ts";
import { output, temporaryDirectory } from "./processes.ts";
import { isMissing } from "./servers.ts";

const sender = "buyer@acme.example";
const recipient = "orders@corp.example";
const retireAfterMs = 3000;

describe.skipIf(isMissing("postfix", "openssl"))("the life of a partner", () => {
  let directory: string;
  let folder: RelayFolder;
  let relay: RelayProcess;
  let internal: PostfixInstance;
  let partner: PostfixInstance;
  /** What the partner's Postfix shows: the files that its administrator replaces. */
  let shown: { certificateFile: string; keyFile: string };
  /** The certificate that our CA signed, kept for a host that was forgotten. */
  let old: { cert: string; key: string };
  let quarantineId: string;
  let sent = 0;
  const cleanUps: Array<() => Promise<unknown>> = [];

  beforeAll(async () => {
    directory = await temporaryDirectory("partner");
    cleanUps.unshift(() => rm(directory, { recursive: true, force: true }));
    shown = { certificateFile: join(directory, "client.pem"), keyFile: join(directory, "client.key") };
    const mail1 = await selfSigned(directory, "mail1.corp.example");
    internal = await startPostfix({
      role: "internal",
      hostname: "mail1.corp.example",
      address: "127.0.0.21",
      domains: ["corp.example"],
      tls: { level: "encrypt", certificate: mail1 },
    });
    cleanUps.unshift(() => internal.stop());
    folder = await makeRelayFolder({
      servers: `      - { address: 127.0.0.21, port: ${internal.endpoint.port}, name: mail1.corp.example, tls: { pin: "${mail1.spkiPin}" } }`,
      partners: {},
    });
    cleanUps.unshift(() => folder.remove());
    relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
    cleanUps.unshift(() => relay.stop());
  }, 120_000);

  afterAll(async () => {
    for (const cleanUp of cleanUps) await cleanUp();
  });

  const pinrelay = (...args: string[]) => runPinrelay(...args, "--config", folder.configFile);

  /** Runs a command that must succeed; what it wrote. */
  async function must(...args: string[]): Promise<string> {
    const { status, text } = await pinrelay(...args);
    expect({ args, status, text }).toMatchObject({ status: 0 });
    return text;
  }

  /** The partner's server hands a message over, or keeps it: returns how to recognise it. */
  async function submit(): Promise<string> {
    sent += 1;
    const message = plain({ from: sender, to: recipient, id: `life-${sent}` });
    await partner.submit({ from: sender, to: recipient, message: message.content });
    return message.messageId;
  }

  /** The SHA-256 of a certificate's key, in hexadecimal, as the partner's postmaster reads it from openssl. */
  async function fingerprintAtThePartner(certificateFile: string): Promise<string> {
    return (await describeCertificate({ certificateFile, keyFile: shown.keyFile })).keyFingerprint;
  }

  it("begins with a request: it is signed, and the partner's file waits for its confirmation", async () => {
    const request = join(directory, "acme.csr");
    const subject = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mx.acme.example".split(" ");
    await output("openssl", [...subject, "-keyout", shown.keyFile, "-out", request]);
    const rules = ["--host", acmeAddress, "--from", "@acme.example", "--to", "@corp.example"];
    await must("partner", "enrol", "acme", "--csr", request, ...rules);
    const file = join(folder.path, "config", "partners", "acme.yaml");
    const text = await readFile(file, "utf8");
    expect(text).toContain("state: ");
    // As an operator who is in a hurry.
    await writeFile(file, `${text}\n# soon, for once\nrollover: { retire-after: ${retireAfterMs / 1000}s }\n`);
    await must("reload");
    await copyFile(join(folder.path, "certs", "partners", "acme.pem"), shown.certificateFile);
    old = { cert: await readFile(shown.certificateFile, "utf8"), key: await readFile(shown.keyFile, "utf8") };
    const { cert } = folder.certificates.server;
    const relayCertificate = join(directory, "relay.pem");
    await writeFile(relayCertificate, cert);
    const { fingerprint } = await describeCertificate({ certificateFile: relayCertificate, keyFile: shown.keyFile });
    partner = await startPostfix({
      role: "partner-sender",
      hostname: "mx.acme.example",
      address: acmeAddress,
      relay: {
        address: relayAddress,
        port: relay.ports[0] ?? 0,
        tls: { level: "fingerprint", matches: [fingerprint], certificate: shown },
      },
    });
    cleanUps.unshift(() => partner.stop());
  }, 60_000);

  it("keeps mail waiting at the partner until the fingerprint is confirmed, and then takes it", async () => {
    const messageId = await submit();
    await partner.waitForLog(/454 4\.7\.0 Client certificate is not confirmed yet/);
    expect((await pinrelay("partner", "confirm", "acme", "00".repeat(32))).status).toBe(1);
    await must("partner", "confirm", "acme", await fingerprintAtThePartner(shown.certificateFile));
    await partner.flush();
    await internal.waitForMessage(recipient, "Message-ID", messageId);
  }, 60_000);

  it("holds mail under a certificate that is renewed too early, and shows it to the operator", async () => {
    const early = await selfSigned(directory, "early.acme.example");
    await copyFile(early.certificateFile, shown.certificateFile);
    await copyFile(early.keyFile, shown.keyFile);
    partner.reload();
    await submit();
    const [, reference] = await partner.waitForLog(/454 4\.7\.0 [^\n]*reference ([0-9a-f]{12})/);
    quarantineId = reference ?? "";
    const listed = await must("partner", "list", "--quarantine");
    expect(listed).toContain(quarantineId);
    expect(listed).toContain(acmeAddress);
  }, 60_000);

  it("lets it in when the operator has confirmed it: nothing is lost, and both certificates pass", async () => {
    await must("partner", "rollover", "acme", "--from-quarantine", quarantineId);
    await must("partner", "confirm", "acme", await fingerprintAtThePartner(shown.certificateFile));
    const oldSession = await SmtpDialogue.open({ address: relayAddress, port: relay.ports[0] ?? 0 }, acmeAddress);
    await oldSession.begin(old);
    expect(await oldSession.say("MAIL FROM:<buyer@acme.example>")).toMatch(/^250 /);
    oldSession.close();
    await partner.flush();
    await partner.waitForEmptyQueue();
    await internal.waitForMessages(recipient, sent);
    expect(await must("partner", "show", "acme")).toMatch(/retire/i);
  }, 60_000);

  it("retires the old certificate some time after the next one is in use, without anybody doing anything", async () => {
    const client = await SmtpDialogue.open({ address: relayAddress, port: relay.ports[0] ?? 0 }, acmeAddress);
    await client.begin(old);
    let reply = "250";
    while (reply.startsWith("250")) {
      reply = await client.say("MAIL FROM:<buyer@acme.example>");
      await client.say("RSET");
      await new Promise((next) => setTimeout(next, 200)); // the time that is waited for is the relay's own
    }
    client.close();
    expect(reply).toMatch(/^454 4\.7\.0 Client certificate was replaced/);
    await must("partner", "rollover", "acme", "--finish");
    const text = await readFile(join(folder.path, "config", "partners", "acme.yaml"), "utf8");
    expect(text).toContain("# soon, for once");
    expect(text).not.toContain("state:");
    await submit();
    await internal.waitForMessages(recipient, sent);
  }, 60_000);

  it("ends with a revocation that stops a live connection", async () => {
    const client = await SmtpDialogue.open({ address: relayAddress, port: relay.ports[0] ?? 0 }, acmeAddress);
    await client.begin({
      cert: await readFile(shown.certificateFile, "utf8"),
      key: await readFile(shown.keyFile, "utf8"),
    });
    expect(await client.send("Subject: last\r\n\r\nlast\r\n", sender, [recipient])).toMatch(/^250 /);
    await must("partner", "revoke", "acme", "--all", "--reason", "end of contract", "--yes");
    expect(await client.say("MAIL FROM:<buyer@acme.example>")).toMatch(/^454 4\.7\.0 Client certificate was revoked/);
    client.close();
    await internal.waitForMessages(recipient, sent + 1);
    expect((await internal.mailbox(recipient)).length).toBe(sent + 1);
  }, 60_000);

  it("has left a record of each step", async () => {
    const text = await readFile(join(folder.path, "var", "audit", "operator.jsonl"), "utf8");
    const records = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(records.filter(({ partner: name }) => name === "acme").map(({ action }) => action)).toEqual([
      "enrol",
      "confirm",
      "rollover",
      "confirm",
      "finish",
      "revoke",
    ]);
    for (const record of records) expect(record).toMatchObject({ who: expect.stringMatching(/./) as string });
  });
});
