/**
 * The main job with real mail servers: a partner's Postfix hands mail to the relay over STARTTLS with its pinned
 * certificate, and the internal Postfix has it, every byte.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  acmeAddress,
  makeRelayFolder,
  relayAddress,
  strangerAddress,
  type RelayFolder,
} from "../tools/relay-folder.ts";
import { startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { createAuthority, describeCertificate, type Authority, type Certificate } from "./certificates.ts";
import { contentOf, fieldsNamed, type HeaderField } from "./maildir.ts";
import {
  firstDifference,
  plain,
  shapes,
  signatureHolds,
  smimeSigned,
  utf8Header,
  withAttachments,
} from "./messages.ts";
import { sClient } from "./openssl.ts";
import { startPostfix, type PostfixInstance } from "./postfix.ts";
import { temporaryDirectory } from "./processes.ts";
import { isMissing } from "./servers.ts";
import { swaks } from "./swaks.ts";

const internalAddress = "127.0.0.21";
const sender = "buyer@acme.example";
const recipient = "orders@corp.example";

describe.skipIf(isMissing("postfix", "openssl"))("a partner's Postfix, the relay, and the internal Postfix", () => {
  let directory: string;
  let authority: Authority;
  let acme: Certificate;
  let outsider: Certificate;
  let internal: PostfixInstance;
  let partner: PostfixInstance;
  let folder: RelayFolder;
  let relay: RelayProcess;
  const cleanUps: Array<() => Promise<unknown>> = [];

  beforeAll(async () => {
    directory = await temporaryDirectory("certificates");
    cleanUps.unshift(() => rm(directory, { recursive: true, force: true }));
    authority = await createAuthority(directory, "Test CA");
    acme = await authority.issue("mx.acme.example", { altNames: ["mx.acme.example", sender] });
    outsider = await authority.issue("mx.outsider.example");
    const mail1 = await authority.issue("mail1.corp.example");
    internal = await startPostfix({
      role: "internal",
      hostname: "mail1.corp.example",
      address: internalAddress,
      domains: ["corp.example"],
      tls: { level: "encrypt", certificate: mail1, clientCertificate: "ask" },
      refused: { "nobody@corp.example": "550 5.1.1 No such user" },
    });
    cleanUps.unshift(() => internal.stop());
    // acme also receives: reports about its mail go to its own server, over TLS to its pinned key.
    const acmeMail = await startPostfix({
      role: "partner-receiver",
      hostname: "in.acme.example",
      address: "127.0.0.13",
      domains: ["acme.example"],
      tls: { level: "encrypt", certificate: acme, trustAnchorFile: authority.certificateFile },
      parameters: { smtpd_tls_ask_ccert: "no", smtpd_tls_req_ccert: "no" },
    });
    cleanUps.unshift(() => acmeMail.stop());
    folder = await makeRelayFolder({
      servers: `      - { address: ${internalAddress}, port: ${internal.endpoint.port}, name: mail1.corp.example, tls: { pin: "${mail1.spkiPin}" } }`,
      more: "limits: { message-size: 50MiB }",
      partners: {
        acme: `hosts: [${acmeAddress}]
pins: [{ spki: "${acme.spkiPin}" }]
allow:
  from: ["@acme.example"]
  to: ["@corp.example"]
limits: { message-size: 50MiB }
deliver:
  domains: [acme.example]
  servers: [{ address: ${acmeMail.endpoint.address}, port: ${acmeMail.endpoint.port}, name: mx.acme.example, pin: "${acme.spkiPin}" }]
`,
      },
    });
    cleanUps.unshift(() => folder.remove());
    relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
    cleanUps.unshift(() => relay.stop());
    partner = await startPostfix({
      role: "partner-sender",
      hostname: "mx.acme.example",
      address: acmeAddress,
      relay: {
        address: relayAddress,
        port: port(0),
        tls: { level: "fingerprint", matches: [await serverFingerprint(folder)], certificate: acme },
      },
      parameters: { message_size_limit: "60000000" },
    });
    cleanUps.unshift(() => partner.stop());
    acmeInbox = acmeMail;
  }, 120_000);

  let acmeInbox: PostfixInstance;
  const port = (index: number): number => relay.ports[index] ?? 0;
  const message = (id: string, to = recipient) => ({ from: sender, to, id });

  afterAll(async () => {
    for (const cleanUp of cleanUps) await cleanUp();
  });

  it.each(shapes)(
    "carries octet for octet: %s",
    async (shape, build) => {
      const sent = await build(message(`shape-${shape.replaceAll(/\W+/g, "-")}`), acme);
      await partner.submit({ from: sender, to: recipient, message: sent.content });
      const stored = await internal.waitForMessage(recipient, "Message-ID", sent.messageId, 60_000);
      const { added, content } = belowTheTrace(stored);
      expect(firstDifference(content, sent.content)).toBeUndefined();
      // From the top: what the internal server adds, the relay's two, the partner's own.
      expect(added.map(({ name }) => name)).toEqual([
        "Return-Path",
        "X-Original-To",
        "Delivered-To",
        "Received",
        "Received",
        "Authentication-Results",
        "Received",
      ]);
    },
    90_000,
  );

  it("carries a multi-part message with attachments", async () => {
    const sent = withAttachments(message("attachments"));
    await partner.submit({ from: sender, to: recipient, message: sent.content });
    const stored = await internal.waitForMessage(recipient, "Message-ID", sent.messageId);
    expect(firstDifference(belowTheTrace(stored).content, sent.content)).toBeUndefined();
  });

  it("carries a signed message whose signature still holds", async () => {
    const sent = await smimeSigned(message("signed"), acme);
    await partner.submit({ from: sender, to: recipient, message: sent.content });
    const stored = await internal.waitForMessage(recipient, "Message-ID", sent.messageId);
    expect(await signatureHolds(belowTheTrace(stored).content, authority.certificateFile)).toBe(true);
  });

  it("carries internationalized addresses", async () => {
    const to = "büro@corp.example";
    const sent = utf8Header(message("smtputf8", to));
    await partner.submit({ from: "käufer@acme.example", to, message: sent.content });
    const stored = await internal.waitForMessage(to, "Message-ID", sent.messageId);
    expect(firstDifference(belowTheTrace(stored).content, sent.content)).toBeUndefined();
  });

  it("says in its trace fields who was authenticated, and how", async () => {
    const sent = plain(message("trace"));
    await partner.submit({ from: sender, to: recipient, message: sent.content });
    const stored = await internal.waitForMessage(recipient, "Message-ID", sent.messageId);
    const { added } = belowTheTrace(stored);
    const ours = added[4]?.value.replaceAll(/\s+/g, " ") ?? "";
    expect(ours).toContain(`from mx.acme.example ([${acmeAddress}])`);
    expect(ours).toContain("using TLSv1.3");
    expect(ours).toContain(`client certificate of partner acme pinned by spki ${acme.spkiPin}`);
    expect(ours).toMatch(/by mx\.corp\.example with ESMTPS id [0-9a-z]{18} for <orders@corp\.example>;/);
    expect(added[5]?.value.replaceAll(/\s+/g, " ")).toMatch(/^mx\.corp\.example; x-client-cert=pass \(partner acme\)/);
  });

  it("returns a recipient that the internal server refuses to the partner's own server, and delivers to the others", async () => {
    const sent = plain(message("bounce", "nobody@corp.example"));
    await partner.submit({
      from: "returns@acme.example",
      to: ["nobody@corp.example", "somebody@corp.example"],
      message: sent.content,
      dsn: { envid: "order+2B1", ret: "HDRS" },
    });
    await internal.waitForMessage("somebody@corp.example", "Message-ID", sent.messageId);
    const [report = Buffer.alloc(0)] = await acmeInbox.waitForMessages("returns@acme.example", 1);
    const { header, body } = contentOf(report);
    expect(fieldsNamed(header, "Content-Type")[0]).toContain("report-type=delivery-status");
    const text = body?.toString() ?? "";
    expect(text).toContain("Reporting-MTA: dns; mx.corp.example");
    expect(text).toContain("Original-Envelope-Id: order+1");
    expect(text).toMatch(/Final-Recipient: rfc822; ?nobody@corp\.example/);
    expect(text).toContain("Status: 5.1.1");
    expect(text).not.toContain("somebody");
  });

  it("keeps what the internal server refuses for now, and says so in the queue", async () => {
    internal.refuse("later@corp.example", "450 4.2.1 Mailbox busy");
    const sent = plain(message("later", "later@corp.example"));
    await partner.submit({ from: sender, to: "later@corp.example", message: sent.content });
    await partner.waitForEmptyQueue();
    await eventually(() =>
      relay.log().some(({ event, remote }) => event === "deferred" && JSON.stringify(remote).includes("Mailbox busy")),
    );
  });

  it("refuses a recipient that the partner may not write to, and the partner's Postfix bounces it", async () => {
    const sent = plain(message("forbidden", "someone@elsewhere.example"));
    const id = await partner.submit({ from: sender, to: "someone@elsewhere.example", message: sent.content });
    await partner.waitForLog(new RegExp(`${id}: .*dsn=5\\.7\\.1, status=bounced .*Relaying denied`));
  });

  it("makes mail wait at a partner that shows an unknown certificate", async () => {
    await using early = await startPostfix({
      role: "partner-sender",
      hostname: "mx2.acme.example",
      address: acmeAddress,
      relay: { address: relayAddress, port: port(0), tls: { level: "encrypt", certificate: outsider } },
    });
    const sent = plain(message("early"));
    const id = await early.submit({ from: sender, to: recipient, message: sent.content });
    await early.waitForLog(new RegExp(`${id}: .*dsn=4\\.7\\.0, status=deferred .*not registered here`));
  });

  it("carries mail over implicit TLS", async () => {
    await using sslPartner = await startPostfix({
      role: "partner-sender",
      hostname: "mx3.acme.example",
      address: acmeAddress,
      relay: {
        address: relayAddress,
        port: port(1),
        implicitTls: true,
        tls: { level: "encrypt", certificate: acme },
      },
    });
    const sent = plain(message("implicit"));
    await sslPartner.submit({ from: sender, to: recipient, message: sent.content });
    await internal.waitForMessage(recipient, "Message-ID", sent.messageId);
  });

  describe.skipIf(isMissing("swaks"))("with swaks", () => {
    it("accepts a message and refuses a forbidden sender", async () => {
      const options = {
        server: { address: relayAddress, port: port(0) },
        localAddress: acmeAddress,
        tls: "starttls",
        certificate: acme,
        to: [recipient],
        data: "Subject: by swaks\n\nHello.\n",
      } as const;
      const accepted = await swaks({ ...options, to: recipient, from: sender });
      expect(accepted.replies.at(-2)?.lines[0]).toMatch(/^250 2\.0\.0 Queued as [0-9a-z]{18}$/);
      await internal.waitForMessage(recipient, "Subject", "by swaks");
      const refused = await swaks({ ...options, to: recipient, from: "boss@corp.example" });
      expect(refused.code).not.toBe(0);
      expect(refused.replies.some(({ lines }) => lines[0]?.startsWith("550 5.7.1") === true)).toBe(true);
    });
  });

  it("turns away a host of no partner before TLS", async () => {
    const { replies } = await sClient({
      server: { address: relayAddress, port: port(0) },
      localAddress: strangerAddress,
      tls: "starttls",
      script: ["EHLO x"],
    });
    expect(replies).toEqual([]);
  });

  it("has come this far without a restart of any compartment", async () => {
    expect((await relay.state())?.compartments.map(({ ready, restarts }) => [ready, restarts])).toEqual([
      [true, 0],
      [true, 0],
    ]);
  });

  /** What was sent, as it stands below everything that the three servers put on top of it. */
  function belowTheTrace(stored: Buffer): { added: HeaderField[]; content: Buffer } {
    const { added, content } = contentOf(stored, 2);
    const fields = [...added];
    let rest = content;
    for (const name of ["Authentication-Results", "Received"]) {
      const field = new RegExp(`^${name}: ((?:[^\\r]|\\r\\n[ \\t])*)\\r\\n`).exec(rest.toString("latin1", 0, 4096));
      if (field === null) throw new Error(`no ${name} on top of ${rest.toString("latin1", 0, 200)}`);
      fields.push({ name, value: field[1] ?? "" });
      rest = rest.subarray(field[0].length);
    }
    return { added: fields, content: rest };
  }
});

async function serverFingerprint(folder: RelayFolder): Promise<string> {
  const files = {
    certificateFile: join(folder.path, "certs", "server.pem"),
    keyFile: join(folder.path, "certs", "server.key"),
  };
  return (await describeCertificate(files)).keyFingerprint;
}

async function eventually(holds: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 300 && !holds(); attempt++) await new Promise((resolve) => setTimeout(resolve, 50));
  expect(holds()).toBe(true);
}
