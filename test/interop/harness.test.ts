/**
 * The harness by itself, without the relay: a partner's Postfix hands every shape of message straight to the internal
 * Postfix. What passes here and fails with the relay in between is the relay's doing.
 */

import { spawn } from "node:child_process";
import { access, rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createAuthority, type Authority, type Certificate } from "./certificates.ts";
import { contentOf, fieldsNamed } from "./maildir.ts";
import {
  firstDifference,
  plain,
  shapes,
  signatureHolds,
  smimeSigned,
  utf8Header,
  type MessageOptions,
} from "./messages.ts";
import { sClient } from "./openssl.ts";
import { startPostfix, type PostfixInstance } from "./postfix.ts";
import type { PostfixOptions } from "./postfix-layout.ts";
import { groupIsAlive, temporaryDirectory, until } from "./processes.ts";
import { isMissing } from "./servers.ts";
import { swaks } from "./swaks.ts";

const partnerAddress = "127.0.0.11";
const internalAddress = "127.0.0.21";
const sender = "buyer@acme.example";

function messageOptions(id: string, to = "orders@corp.example"): MessageOptions {
  return { from: sender, to, id };
}

describe.skipIf(isMissing("postfix", "openssl"))("Postfix to Postfix over TLS", () => {
  let directory: string;
  let authority: Authority;
  let partnerCertificate: Certificate;
  let internalCertificate: Certificate;
  let internal: PostfixInstance;
  let partner: PostfixInstance;
  const cleanUps: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    directory = await temporaryDirectory("certificates");
    cleanUps.unshift(async () => rm(directory, { recursive: true, force: true }));
    authority = await createAuthority(directory, "Test CA");
    partnerCertificate = await authority.issue("mx.acme.example", { altNames: ["mx.acme.example", sender] });
    internalCertificate = await authority.issue("mail1.corp.example");
    internal = await startPostfix({
      role: "internal",
      hostname: "mail1.corp.example",
      address: internalAddress,
      domains: ["corp.example"],
      tls: { level: "encrypt", certificate: internalCertificate, clientCertificate: "ask" },
      refused: { "nobody@corp.example": "550 5.1.1 No such user" },
    });
    cleanUps.unshift(async () => internal.stop());
    partner = await startPostfix({
      role: "partner-sender",
      hostname: "mx.acme.example",
      address: partnerAddress,
      domains: ["acme.example"],
      relay: {
        ...internal.endpoint,
        tls: {
          level: "fingerprint",
          matches: [internalCertificate.keyFingerprint],
          certificate: partnerCertificate,
        },
      },
    });
    cleanUps.unshift(async () => partner.stop());
  });

  afterAll(async () => {
    for (const cleanUp of cleanUps) await cleanUp();
  });

  it.each(shapes)("delivers octet for octet: %s", async (shape, build) => {
    const message = await build(messageOptions(`shape-${shape.replaceAll(/\W+/g, "-")}`), partnerCertificate);

    await partner.submit({ from: sender, to: "orders@corp.example", message: message.content });

    const stored = await internal.waitForMessage("orders@corp.example", "Message-ID", message.messageId);
    const { added, content } = contentOf(stored, 2);
    expect(firstDifference(content, message.content)).toBeUndefined();
    const names = added.map((field) => field.name).join(" ");
    expect(names).toBe("Return-Path X-Original-To Delivered-To Received Received");
  });

  it("delivers a signed message whose signature holds, and would notice a changed octet", async () => {
    const message = await smimeSigned(messageOptions("signed"), partnerCertificate);
    await partner.submit({ from: sender, to: "orders@corp.example", message: message.content });

    const stored = await internal.waitForMessage("orders@corp.example", "Message-ID", message.messageId);

    const { content } = contentOf(stored);
    expect(await signatureHolds(content, authority.certificateFile)).toBe(true);
    const changed = Buffer.from(content.toString("latin1").replace("pay 100", "pay 900"), "latin1");
    expect(await signatureHolds(changed, authority.certificateFile)).toBe(false);
  });

  it("delivers internationalised addresses and header fields with SMTPUTF8", async () => {
    const recipient = "büro@corp.example";
    const message = utf8Header(messageOptions("smtputf8", recipient));

    await partner.submit({ from: "käufer@acme.example", to: recipient, message: message.content });

    const stored = await internal.waitForMessage(recipient, "Message-ID", message.messageId);
    const { added, content } = contentOf(stored);
    expect(firstDifference(content, message.content)).toBeUndefined();
    expect(added).toContainEqual({ name: "Return-Path", value: "<käufer@acme.example>" });
    expect(added[3]?.value).toContain("with UTF8SMTPS");
  });

  it("shows the internal server the partner's address and certificate", async () => {
    const message = plain(messageOptions("identity", "identity@corp.example"));
    await partner.submit({ from: sender, to: "identity@corp.example", message: message.content });
    await internal.waitForMessages("identity@corp.example", 1);

    const asked = internal.requests.filter((request) => request["recipient"] === "identity@corp.example");

    expect(asked[0]).toMatchObject({
      protocol_state: "RCPT",
      client_address: partnerAddress,
      ccert_fingerprint: partnerCertificate.fingerprint,
      ccert_pubkey_fingerprint: partnerCertificate.keyFingerprint,
      encryption_protocol: "TLSv1.3",
    });
  });

  it("returns a refused recipient to the sender, and delivers to the others", async () => {
    const message = plain(messageOptions("refused", "nobody@corp.example"));

    await partner.submit({
      from: "bounces@acme.example",
      to: ["nobody@corp.example", "somebody@corp.example"],
      message: message.content,
      dsn: { envid: "envelope+2B1", ret: "HDRS" },
    });

    await internal.waitForMessage("somebody@corp.example", "Message-ID", message.messageId);
    const [report = Buffer.alloc(0)] = await partner.waitForMessages("bounces@acme.example", 1);
    const { added, header, body } = contentOf(report);
    expect(added[0]).toEqual({ name: "Return-Path", value: "<>" });
    expect(fieldsNamed(header, "Content-Type")[0]).toContain("report-type=delivery-status");
    const text = body?.toString();
    expect(text).toContain("Original-Envelope-Id: envelope+1");
    expect(text).toContain("Final-Recipient: rfc822; nobody@corp.example");
    expect(text).toContain("Status: 5.1.1");
    expect(text).not.toContain("somebody");
    await partner.waitForEmptyQueue();
  });

  it("reports success to a sender who asked for it", async () => {
    const message = plain(messageOptions("success"));

    await partner.submit({
      from: "reports@acme.example",
      to: "orders@corp.example",
      message: message.content,
      dsn: { notify: ["SUCCESS"] },
    });

    // The internal server announces DSN, so the request is handed on, and it is the one to report; it has no way to
    // acme.example, so its report waits in its queue.
    await internal.waitForMessage("orders@corp.example", "Message-ID", message.messageId);
    const reports = await until("a report in the internal queue", async () => {
      const queue = await internal.queue();
      return queue.find((entry) => entry.recipients.some(({ address }) => address === "reports@acme.example"));
    });
    expect(reports.sender).toBe("MAILER-DAEMON");
  });

  it("keeps what is refused for now, and delivers it once it is not", async () => {
    internal.refuse("later@corp.example", "450 4.2.1 Mailbox busy");
    const message = plain(messageOptions("later", "later@corp.example"));

    const queueId = await partner.submit({ from: sender, to: "later@corp.example", message: message.content });

    await partner.waitForLog(new RegExp(`${queueId}: .*dsn=4\\.2\\.1, status=deferred`));
    const [entry] = await partner.queue();
    expect(entry).toMatchObject({ queue_id: queueId, sender, recipients: [{ address: "later@corp.example" }] });
    internal.refuse("later@corp.example", undefined);
    await partner.flush();
    await internal.waitForMessage("later@corp.example", "Message-ID", message.messageId);
    await partner.waitForEmptyQueue();
  });

  it("keeps mail from a server whose key is not the pinned one", async () => {
    await using careful = await startPostfix({
      role: "partner-sender",
      hostname: "mx.careful.example",
      address: "127.0.0.12",
      relay: { ...internal.endpoint, tls: { level: "fingerprint", matches: [partnerCertificate.keyFingerprint] } },
    });
    const message = plain(messageOptions("careful", "careful@corp.example"));

    const queueId = await careful.submit({ from: sender, to: "careful@corp.example", message: message.content });

    await careful.waitForLog(new RegExp(`${queueId}: .*status=deferred \\(Server certificate not verified\\)`));
    expect(await internal.mailbox("careful@corp.example")).toEqual([]);
  });

  it("carries the roles of a real exchange: a receiver that asks for certificates, implicit TLS, fewer keywords", async () => {
    await using receiver = await startPostfix({
      role: "partner-receiver",
      hostname: "mx.acme.example",
      address: "127.0.0.13",
      domains: ["acme.example"],
      tls: {
        level: "encrypt",
        certificate: partnerCertificate,
        trustAnchorFile: authority.certificateFile,
        implicit: true,
      },
      discardEhloKeywords: ["chunking", "pipelining"],
    });
    await using outbound = await startPostfix({
      role: "internal",
      hostname: "mail2.corp.example",
      address: "127.0.0.22",
      domains: ["corp.example"],
      tls: { level: "none" },
      relay: {
        ...receiver.endpoint,
        implicitTls: true,
        tls: {
          level: "secure",
          trustAnchorFile: authority.certificateFile,
          names: ["mx.acme.example"],
          certificate: internalCertificate,
        },
      },
    });
    const message = plain({ from: "sales@corp.example", to: sender, id: "outbound" });

    await outbound.submit({ from: "sales@corp.example", to: sender, message: message.content });

    await receiver.waitForMessage(sender, "Message-ID", message.messageId);
    await receiver.waitForLog(/Trusted TLS connection established from .*127\.0\.0\.22/);
    await outbound.waitForLog(/Verified TLS connection established to 127\.0\.0\.13/);
    const [request] = receiver.requests;
    expect(request).toMatchObject({ ccert_fingerprint: internalCertificate.fingerprint });
    const { replies } = await sClient({
      server: receiver.endpoint,
      localAddress: "127.0.0.22",
      tls: "implicit",
      script: ["EHLO mail2.corp.example", "QUIT"],
    });
    expect(replies.map((reply) => reply.code)).toEqual([220, 250, 221]);
    const keywords = replies[1]?.lines.map((line) => line.slice(4));
    expect(keywords).toContain("8BITMIME");
    expect(keywords).not.toContain("CHUNKING");
    expect(keywords).not.toContain("PIPELINING");
  });

  describe.skipIf(isMissing("swaks"))("with swaks as the client", () => {
    it("delivers over STARTTLS with a client certificate", async () => {
      const { code, replies } = await swaks({
        server: internal.endpoint,
        localAddress: partnerAddress,
        tls: "starttls",
        certificate: partnerCertificate,
        from: sender,
        to: ["swaks@corp.example", "nobody@corp.example"],
        data: "Subject: by swaks\n\nHello.\n",
      });

      expect(replies.map((reply) => reply.code)).toEqual([220, 250, 220, 250, 250, 250, 550, 354, 250, 221]);
      expect(code).toBe(0);
      await internal.waitForMessage("swaks@corp.example", "Subject", "by swaks");
      expect(internal.requests.at(-1)).toMatchObject({ ccert_fingerprint: partnerCertificate.fingerprint });
    });

    it("reads the refusal of mail in the clear", async () => {
      const { code, replies } = await swaks({
        server: internal.endpoint,
        localAddress: partnerAddress,
        tls: "none",
        from: sender,
        to: "swaks@corp.example",
      });

      expect(replies[2]).toEqual({ code: 530, lines: ["530 5.7.0 Must issue a STARTTLS command first"] });
      expect(code).not.toBe(0);
    });
  });

  describe("with openssl s_client as the client", () => {
    it("passes a dialogue through octet for octet, lines that begin with R and Q too", async () => {
      const { code, replies, handshake } = await sClient({
        server: internal.endpoint,
        localAddress: partnerAddress,
        tls: "starttls",
        certificate: partnerCertificate,
        args: ["-tls1_2"],
        script: [
          "EHLO mx.acme.example",
          `MAIL FROM:<${sender}>`,
          "RCPT TO:<openssl@corp.example>",
          "DATA",
          Buffer.from("Subject: by openssl\r\n\r\nRaw\r\nQuoted\r\n..\r\n.\r\n"),
          "QUIT",
        ],
      });

      expect(replies.map((reply) => reply.code)).toEqual([250, 250, 250, 354, 250, 221]);
      expect(code).toBe(0);
      expect(handshake).toContain("Protocol version: TLSv1.2");
      const stored = await internal.waitForMessage("openssl@corp.example", "Subject", "by openssl");
      expect(contentOf(stored).body?.toString()).toBe("Raw\r\nQuoted\r\n.\r\n");
    });

    it("reports a handshake that comes to nothing", async () => {
      const { code, replies, handshake } = await sClient({
        server: internal.endpoint,
        localAddress: partnerAddress,
        tls: "starttls",
        args: ["-verify_return_error", "-CAfile", partnerCertificate.certificateFile],
        script: ["EHLO mx.acme.example"],
      });

      expect(replies).toEqual([]);
      expect(code).not.toBe(0);
      expect(handshake).toContain("verify error");
    });
  });

  describe("an instance", () => {
    const idle: PostfixOptions = {
      role: "internal",
      hostname: "idle.corp.example",
      address: "127.0.0.23",
      domains: ["idle.example"],
      tls: { level: "none" },
    };

    it("leaves neither processes nor files behind when stopped", async () => {
      const instance = await startPostfix(idle);
      await instance.submit({ from: "", to: "x@idle.example", message: plain(messageOptions("idle")).content });
      await instance.waitForMessages("x@idle.example", 1);
      expect(await groupIsAlive(instance.masterPid)).toBe(true);

      await instance.stop();

      expect(await groupIsAlive(instance.masterPid)).toBe(false);
      await expect(access(instance.directory)).rejects.toThrow("ENOENT");
    });

    it("goes with the test process that started it, even if that is killed", async () => {
      const script = `
        import { startPostfix } from ${JSON.stringify(import.meta.resolve("./postfix.ts"))};
        const { masterPid, directory } = await startPostfix(${JSON.stringify(idle)});
        process.stdout.write(masterPid + " " + directory + "\\n", () => process.kill(process.pid, "SIGKILL"));
      `;
      const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let printed = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (printed += text));
      await new Promise((resolve) => child.once("close", resolve));
      const [masterPid = "", orphaned = ""] = printed.trim().split(" ");

      expect(child.signalCode).toBe("SIGKILL");
      await until("the end of the orphan", async () => ((await groupIsAlive(Number(masterPid))) ? undefined : true));
      await until("the removal of its directory", async () =>
        access(orphaned).then(
          () => undefined,
          () => true,
        ),
      );
    });

    it("says why it does not start", async () => {
      const wrong = startPostfix({ ...idle, parameters: { inet_interfaces: "127.0.0.77" } });

      await expect(wrong).rejects.toThrow("no local interface found for 127.0.0.77");
    });
  });
});
