/**
 * What `pinrelay partner kit` writes is what a partner's mail server needs: Postfix, Exim, OpenSMTPD and sendmail, each
 * configured with exactly those files, hand their mail to the relay, get the probe answered, and keep their mail when the
 * relay's place is taken by somebody else.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serverKinds } from "../../src/cli/kit/servers.ts";
import { makeRelayFolder, relayAddress, type RelayFolder } from "../tools/relay-folder.ts";
import { runPinrelay, startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { startScriptedHop, usualReplies, type ScriptedHop, type ScriptedHopOptions } from "../tools/scripted-hop.ts";
import { createAuthority, selfSigned, type Certificate } from "./certificates.ts";
import { contentOf } from "./maildir.ts";
import { plain } from "./messages.ts";
import {
  postfixPaths,
  startEximPartner,
  startOpensmtpdPartner,
  startPostfixPartner,
  startSendmailPartner,
  type PartnerOptions,
  type PartnerServer,
} from "./partner-servers.ts";
import { startPostfix, type PostfixInstance } from "./postfix.ts";
import { freePort, run, temporaryDirectory, until } from "./processes.ts";
import { isMissing } from "./servers.ts";

const sender = "buyer@acme.example";
const recipient = "orders@corp.example";

interface Kind {
  readonly name: "postfix" | "exim" | "opensmtpd" | "sendmail";
  readonly start: (options: PartnerOptions) => Promise<PartnerServer>;
  readonly kitOptions?: (certificate: Certificate) => string[];
}

const kinds: readonly Kind[] = [
  { name: "postfix", start: startPostfixPartner, kitOptions: postfixPaths },
  { name: "exim", start: startEximPartner },
  { name: "opensmtpd", start: startOpensmtpdPartner },
  { name: "sendmail", start: startSendmailPartner },
];

describe.skipIf(isMissing("postfix", "openssl"))("the kit of a partner", () => {
  let directory: string;
  let acme: Certificate;
  let stranger: Certificate;
  let internal: PostfixInstance;
  let elsewhere: PostfixInstance;
  let inbox: PostfixInstance;
  let folder: RelayFolder;
  let relay: RelayProcess | undefined;
  let port: number;
  const cleanUps: Array<() => Promise<unknown>> = [];

  beforeAll(async () => {
    directory = await temporaryDirectory("kit");
    cleanUps.unshift(() => rm(directory, { recursive: true, force: true }));
    acme = await (await createAuthority(directory, "ACME CA")).issue("mx.acme.example");
    stranger = await selfSigned(directory, "mx.corp.example");
    const mail1 = await selfSigned(directory, "mail1.corp.example");
    internal = await startPostfix({
      role: "internal",
      hostname: "mail1.corp.example",
      address: "127.0.0.21",
      domains: ["corp.example"],
      tls: { level: "encrypt", certificate: mail1 },
    });
    cleanUps.unshift(() => internal.stop());
    // A host that is none of ours, and would like to see a certificate.
    elsewhere = await startPostfix({
      role: "partner-receiver",
      hostname: "mx.elsewhere.example",
      address: "127.0.0.31",
      domains: ["elsewhere.example"],
      tls: { level: "encrypt", certificate: mail1, clientCertificate: "ask" },
    });
    cleanUps.unshift(() => elsewhere.stop());
    // Where the partner's users have their mailboxes, and the answers to probes arrive.
    inbox = await startPostfix({
      role: "partner-receiver",
      hostname: "in.acme.example",
      address: "127.0.0.13",
      domains: ["acme.example"],
      tls: { level: "encrypt", certificate: acme },
      parameters: { smtpd_tls_ask_ccert: "no" },
    });
    cleanUps.unshift(() => inbox.stop());
    folder = await makeRelayFolder({
      servers: `      - { address: 127.0.0.21, port: ${internal.endpoint.port}, name: mail1.corp.example, tls: { pin: "${mail1.spkiPin}" } }`,
      partners: {
        acme: `hosts: [127.0.0.0/8]
pins: [{ spki: "${acme.spkiPin}", label: "2026" }]
allow: { from: ["@acme.example"], to: [${recipient}] }
deliver:
  domains: [acme.example]
  servers: [{ address: 127.0.0.13, port: ${inbox.endpoint.port}, name: in.acme.example, pin: "${acme.spkiPin}" }]
`,
      },
    });
    cleanUps.unshift(() => folder.remove());
    port = await freePort(relayAddress);
    const yaml = await readFile(folder.configFile, "utf8");
    const listen = `listen: [{ address: ${relayAddress}, port: ${port} }]\n`;
    await writeFile(folder.configFile, yaml.replace(/^listen:\n(?: .*\n)+/m, listen));
    await startRelay();
    cleanUps.unshift(() => stopRelay());
  }, 120_000);

  afterAll(async () => {
    for (const cleanUp of cleanUps) await cleanUp();
  });

  async function startRelay(): Promise<void> {
    relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
  }

  async function stopRelay(): Promise<void> {
    await relay?.stop();
    relay = undefined;
  }

  describe.each(kinds.filter(({ name }) => !isMissing(name)))("for $name", ({ name, start, kitOptions }) => {
    let partner: PartnerServer;

    beforeAll(async () => {
      const kit = join(directory, `kit-${name}`);
      const paths = kitOptions?.(acme) ?? [];
      const args = ["partner", "kit", "acme", "--for", name, "--out", kit, ...paths, "--config", folder.configFile];
      const made = await runPinrelay(...args);
      expect(made).toMatchObject({ status: 0 });
      partner = await start({ kit, certificate: acme, elsewhere: elsewhere.endpoint });
    }, 60_000);

    afterAll(() => partner?.stop());

    async function submit(id: string, to = recipient): Promise<string> {
      const message = plain({ from: sender, to, id: `${name}-${id}` });
      await partner.send(sender, to, message.content);
      return message.messageId;
    }

    async function arrives(messageId: string): Promise<void> {
      await until(
        `${messageId} inside`,
        retrying(async () => (await internal.mailbox(recipient)).find((content) => content.includes(messageId))),
        { deadlineMs: 60_000, report: () => partner.log() },
      );
    }

    /** Looks, and has the server try what waits every second: they take their time, each in its own way. */
    function retrying<Found>(look: () => Promise<Found | undefined>): () => Promise<Found | undefined> {
      let nextMs = performance.now() + 1000;
      return async () => {
        if (performance.now() > nextMs) {
          await partner.retry();
          nextMs = performance.now() + 1000;
        }
        return look();
      };
    }

    it("carries mail", async () => {
      await arrives(await submit("first"));
    });

    it("leaves other mail alone: no certificate is shown to another host", async () => {
      const to = `${name}@elsewhere.example`;
      const message = plain({ from: sender, to, id: `${name}-elsewhere` });
      await partner.send(sender, to, message.content);
      await elsewhere.waitForMessage(to, "Message-ID", message.messageId);
      const asked = elsewhere.requests.filter((request) => request["recipient"] === to);
      expect(asked.length).toBeGreaterThan(0);
      for (const request of asked) {
        expect(request["encryption_protocol"]).toBe("TLSv1.3");
        expect(request["ccert_fingerprint"]).toBe("");
      }
    });

    it("tells how to test without the mail server, by lines that work", async () => {
      const readme = await readFile(join(directory, `kit-${name}`, "README.txt"), "utf8");
      const line = (program: string): string => {
        const found = new RegExp(`^${program} .*$`, "m").exec(readme)?.[0] ?? `no line with ${program}`;
        const { certificateFile, keyFile } = serverKinds[name].defaults;
        return found.replace(certificateFile, acme.certificateFile).replace(keyFile, acme.keyFile);
      };
      const shown = (await run("sh", ["-c", line("openssl")])).stdout.toString();
      expect(shown).toContain("subject=CN = mx.corp.example");
      expect(shown).toContain("New, TLSv1.3");
      if (isMissing("swaks")) return;
      const sent = await run("sh", ["-c", line("swaks")]);
      expect(sent.stdout.toString()).toMatch(/250 2\.0\.0 Queued as/);
      await inbox.waitForMessages("postmaster@acme.example", 1);
    });

    it("has its probe answered over the partner's own route", async () => {
      const messageId = await submit("probe", "probe@mx.corp.example");
      const answer = await inbox.waitForMessage(sender, "In-Reply-To", messageId);
      const text = contentOf(answer).content.toString();
      expect(text).toContain("Auto-Submitted: auto-replied");
      expect(text).toMatch(/^ {2}TLS version: +TLSv1\.3\r$/m);
      expect(text).toMatch(/^ {2}HELO: +mx\.acme\.example\r$/m);
      expect(text).toMatch(/^ {2}Subject: +CN=mx\.acme\.example\r$/m);
      expect(text).toContain(acme.spkiPin);
      expect(text).toMatch(/^ {2}Pin: +of this key, "2026", active\r$/m);
    });

    it("keeps mail while another certificate is shown, and while no TLS is offered, and delivers it then", async () => {
      await stopRelay();
      const pair = async (certificate: Certificate) => ({
        cert: await readFile(certificate.certificateFile, "utf8"),
        key: await readFile(certificate.keyFile, "utf8"),
      });
      let messageId = "";
      try {
        await withImpostor(await pair(stranger), async (impostor) => {
          messageId = await submit("waits");
          await seen(impostor, "STARTTLS");
        });
        // Of the same CA, which is what a fingerprint is for.
        await withImpostor(folder.certificates.inside, (impostor) => seen(impostor, "STARTTLS"));
        const plaintext = usualReplies["EHLO"]?.replace("250-DSN\r\n250 STARTTLS", "250 DSN") ?? "";
        const script = (verb: string) =>
          verb === "EHLO" ? plaintext : verb === "STARTTLS" ? "502 5.5.1 no" : undefined;
        await withImpostor({ ...(await pair(stranger)), script }, (impostor) => seen(impostor, "EHLO"));
      } finally {
        await startRelay();
      }
      await arrives(messageId);
    }, 180_000);

    async function withImpostor(
      options: Pick<ScriptedHopOptions, "cert" | "key" | "script">,
      meet: (impostor: ScriptedHop) => Promise<void>,
    ): Promise<void> {
      const impostor = await startScriptedHop({ ...options, address: relayAddress, port });
      try {
        await meet(impostor);
        expect(impostor.said.filter(({ line }) => /^(?:MAIL|RCPT|DATA|CONTENT)/i.test(line))).toEqual([]);
        expect(impostor.contents).toEqual([]);
      } finally {
        await impostor.close();
      }
    }

    /** A connection has come so far, and has ended. */
    async function seen(impostor: ScriptedHop, verb: string): Promise<void> {
      await until(
        `${verb} from ${name}`,
        retrying(async () => {
          const isSaid = impostor.lines.some((line) => line.toUpperCase().startsWith(verb));
          return (isSaid && impostor.open() === 0) || undefined;
        }),
        { deadlineMs: 60_000, report: async () => `${JSON.stringify(impostor.said)}\n${await partner.log()}` },
      );
    }
  });
});
