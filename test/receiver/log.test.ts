/** The log of a receiver with hostile clients: no line, no field and no secret is theirs to write. */
import { describe, expect, it } from "vitest";
import { spkiDigest } from "../../src/partner/pin.ts";
import { letter, useRelay, withPartner, type Relay } from "./support.ts";
import { makeCertificate, subjectOf } from "./certificates.ts";

const startRelay = useRelay();

/** Every field that we write at the top of a line. */
const ownFields = new Set(
  "level time process pid session address event reply code cause addressOf partner pin tls cipher client spki certificate id recipients sizeBytes sha256 policy rule observed declaredBytes of before error addresses err during since from reference notKept group".split(
    " ",
  ),
);

function expectSound(relay: Relay): void {
  const lines = relay.logText().split("\n");
  expect(lines.pop()).toBe("");
  for (const line of lines) {
    // eslint-disable-next-line no-control-regex -- it is about control characters
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/);
    const read = JSON.parse(line) as Record<string, unknown>;
    expect(Object.keys(read).filter((key) => !ownFields.has(key))).toEqual([]);
    expect(read["process"]).toBe("receiver");
  }
}

const forgery = '","level":"fatal","partner":"globex","x":"';

describe("a hostile client", () => {
  it("forges neither a line nor a field by what it calls itself", async () => {
    const relay = await startRelay();
    const names = [forgery, "\u001b[2J", "a\u0085b", "\u009b2J", "\u202eevil", "\u2028", "x".repeat(255)];
    for (const name of names) {
      const client = await relay.connect();
      await client.reply();
      await client.say("EHLO mx.acme.example");
      await client.say("STARTTLS");
      await client.secure(relay.certificates.acme);
      const reply = await client.say(`EHLO ${Buffer.from(name).toString("latin1")}`);
      if (reply.startsWith("250")) expect(await client.send(letter)).toMatch(/^250 /);
      client.close();
    }
    expectSound(relay);
    const told = relay.log().filter(({ event }) => event === "identified");
    expect(told.map(({ client }) => (client as { helo: string }).helo)).toContain(forgery);
    expect(new Set(told.map(({ partner }) => partner))).toEqual(new Set(["acme"]));
  });

  it("forges neither by addresses and parameters", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    const lines = [
      `MAIL FROM:<"${forgery.replaceAll('"', '\\"')}"@evil.example>`,
      `MAIL FROM:<a@acme.example> ${forgery}`,
      "MAIL FROM:<\x9b2J@acme.example> SMTPUTF8",
      "MAIL FROM:<\xc2\x9b2J@acme.example> SMTPUTF8",
      "MAIL FROM:<\xe2\x80\xaeevil@evil.example> SMTPUTF8",
      `MAIL FROM:<a@acme.example> ENVID=${"x".repeat(2000)}`,
    ];
    for (const line of lines) expect(await client.say(line)).toMatch(/^5/);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    for (const line of lines) expect(await client.say(line.replace("MAIL FROM", "RCPT TO"))).toMatch(/^5/);
    expectSound(relay);
    const longest = Math.max(
      ...relay
        .logText()
        .split("\n")
        .map((line) => line.length),
    );
    expect(longest).toBeLessThan(1200);
  });

  it("forges neither by the subject of its certificate, however long it is", async () => {
    const relay = await startRelay();
    const subjects = ["a\nb\r\nc", forgery, "\u001b[2J\u009b2J", "\u202e\u2028", "\u0000", "x".repeat(20_000)];
    for (const subject of subjects) {
      const made = await makeCertificate({ subject: subjectOf(subject, "and\nanother") });
      const client = await relay.connect();
      await client.begin(made);
      expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(
        /^454 4\.7\.0 Client certificate is not registered/,
      );
      expect(relay.log().at(-1)).toMatchObject({
        reply: "certificateUnknown",
        spki: spkiDigest(made.certificate),
        addressOf: ["acme"],
      });
      client.close();
    }
    expectSound(relay);
    const longest = Math.max(
      ...relay
        .logText()
        .split("\n")
        .map((line) => line.length),
    );
    expect(longest).toBeLessThan(4000);
  });

  it("writes a bounded number of lines in one session", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    client.write("MAIL FROM:<a@evil.example>\r\n".repeat(10_000));
    await client.closed();
    expect(relay.log().length).toBeLessThan(200);
  });
});

describe("a message", () => {
  it("is told by id, size and digest under the session's id, and nothing of its content is", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    const content = "Subject: SECRET-SUBJECT\r\nX-Secret: SECRET-FIELD\r\n\r\nSECRET-BODY\r\n";
    const reply = await client.send(content);
    const id = /Queued as (\w+)$/.exec(reply)?.[1];
    expect(await client.send(`${content}bare\nlf\r\n`)).toMatch(/^550 /);
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    await client.writeApart(content);
    client.close();
    await relay.receiver.stop();
    expectSound(relay);
    expect(relay.logText()).not.toContain("SECRET");
    const accepted = relay.log().find(({ event }) => event === "message accepted");
    const [spooled] = await relay.spooled();
    expect(accepted).toMatchObject({
      id,
      partner: "acme",
      session: spooled?.meta.session?.id,
      address: "127.0.0.11",
      sizeBytes: spooled?.meta.sizeBytes,
      sha256: spooled?.meta.sha256,
      recipients: 1,
    });
    expect(reply).not.toContain(String(accepted?.["session"]));
  });

  it("that is refused is told under the id that the reply shows", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    const reply = await client.send("Subject: x\n\r\n\r\nx\r\n");
    const session = /\[(\w+)\]$/.exec(reply)?.[1];
    expect(relay.log()).toContainEqual(
      expect.objectContaining({
        event: "message refused",
        reply: "malformedContent",
        code: 550,
        session,
        partner: "acme",
      }),
    );
  });
});

describe("keys", () => {
  it("of ours and of partners are never in the log, nor in a reply", async () => {
    const relay = await startRelay({ change: withPartner("acme", { mode: "observe" }) });
    const client = await relay.partner();
    await client.send(letter, "a@evil.example");
    const stranger = await relay.connect();
    await stranger.begin(relay.certificates.outsider);
    await stranger.say("MAIL FROM:<a@acme.example>");
    await relay.receiver.stop();
    expect(relay.logText()).not.toMatch(/PRIVATE KEY|BEGIN CERTIFICATE/);
    for (const { key } of Object.values(relay.certificates)) {
      const secret = key.split("\n")[1] ?? "nothing";
      expect(relay.logText()).not.toContain(secret);
    }
    expectSound(relay);
  });
});
