/** The commands: their order, their parameters, what is offered and what is not. */
import { describe, expect, it } from "vitest";
import { letter, useRelay, withRelayLimits } from "./support.ts";

const startRelay = useRelay();

const keywords = (reply: string) =>
  reply
    .split("\n")
    .slice(1)
    .map((line) => line.slice(4))
    .toSorted();

describe("EHLO", () => {
  it("offers exactly this before TLS", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    expect(await client.reply()).toBe("220 mx.corp.example ESMTP pinrelay");
    const reply = await client.say("EHLO mx.acme.example");
    expect(reply).toMatch(/^250-mx\.corp\.example\n/);
    expect(keywords(reply)).toEqual([
      "8BITMIME",
      "DSN",
      "ENHANCEDSTATUSCODES",
      "PIPELINING",
      "SIZE 26214400",
      "SMTPUTF8",
      "STARTTLS",
    ]);
  });

  it("offers exactly this inside TLS: no STARTTLS any more", async () => {
    const relay = await startRelay();
    const expected = ["8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SIZE 26214400", "SMTPUTF8"];
    const client = await relay.connect();
    await client.reply();
    await client.say("EHLO mx.acme.example");
    await client.say("STARTTLS");
    await client.secure(relay.certificates.acme);
    expect(keywords(await client.say("EHLO mx.acme.example"))).toEqual(expected);
    const implicit = await relay.connectTls();
    await implicit.reply();
    expect(keywords(await implicit.say("EHLO mx.acme.example"))).toEqual(expected);
  });

  it.each(["EHLO", "EHLO ", "EHLO a b", "HELO", `EHLO ${"a".repeat(400)}`])("is refused: %s", async (line) => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    expect(await client.say(line)).toMatch(/^501 /);
    expect(await client.say("MAIL FROM:<>")).toMatch(/^503 5\.5\.1 Send EHLO first/);
  });

  it("ends a transaction", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say("EHLO mx.acme.example")).toMatch(/^250-/);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 /);
  });
});

describe("commands out of order", () => {
  it("get 530 5.7.0 for MAIL before STARTTLS, and nothing else opens a transaction", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    await client.say("EHLO mx.acme.example");
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(
      /^530 5\.7\.0 Must issue a STARTTLS command first \[/,
    );
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 /);
    expect(await client.say("DATA")).toMatch(/^503 5\.5\.1 /);
  });

  it("get 503 5.5.1 before EHLO, whatever white space stands around them", async () => {
    const relay = await startRelay();
    const client = await relay.connectTls(undefined, relay.certificates.acme);
    await client.reply();
    for (const line of ["MAIL FROM:<a@acme.example>", "RCPT TO:<orders@corp.example>", "DATA", "DATA ", "DATA\t"])
      expect(await client.say(line)).toMatch(/^503 5\.5\.1 Send EHLO first/);
    for (const line of ["\tMAIL FROM:<a@acme.example>", " MAIL FROM:<a@acme.example>", "MAIL\tFROM:<a@acme.example>"])
      expect(await client.say(line)).toMatch(/^50[03] 5\.5\.[12] /);
  });

  it("get 503 5.5.1 inside TLS until EHLO is said again", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    await client.say("EHLO mx.acme.example");
    await client.say("STARTTLS");
    await client.secure(relay.certificates.acme);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^503 5\.5\.1 Send EHLO first/);
  });

  it("get 503 5.5.1: RCPT and DATA without MAIL, DATA without RCPT, a second MAIL", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 Send MAIL first/);
    expect(await client.say("DATA")).toMatch(/^503 5\.5\.1 /);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say("MAIL FROM:<b@acme.example>")).toMatch(/^503 5\.5\.1 A transaction is open already/);
    expect(await client.say("DATA")).toMatch(/^503 5\.5\.1 No valid recipients/);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^250 /);
    expect(await client.say("DATA now")).toMatch(/^501 5\.5\.4 /);
    expect(await client.say("RSET")).toMatch(/^250 /);
    expect(await client.say("DATA")).toMatch(/^503 5\.5\.1 /);
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 /);
    expect((await relay.spooled()).map(({ meta }) => meta.envelope.reversePath)).toMatchObject([
      { mailbox: { address: "a@acme.example" } },
    ]);
  });
});

describe("what the library could do and a partner has no use for", () => {
  const commands = [
    "AUTH PLAIN AGEAYg==",
    "AUTH LOGIN",
    "VRFY orders",
    "EXPN orders",
    "HELP",
    "WIZ x",
    "SHELL ls",
    "KILL 1",
    "XCLIENT ADDR=127.0.0.12",
    "XFORWARD ADDR=127.0.0.12",
    "LHLO mx.acme.example",
    "BDAT 3 LAST",
    "TURN",
    "ETRN corp.example",
    "BURL x",
  ];
  it("is refused before TLS and inside it", async () => {
    const relay = await startRelay({ change: withRelayLimits({ badCommandsMax: 100 }) });
    const plain = await relay.connect();
    await plain.reply();
    const inside = await relay.partner();
    for (const command of commands) {
      for (const client of [plain, inside]) {
        expect(await client.say(command)).toMatch(/^50[02] 5\.5\.[12] /);
        await client.say("EHLO mx.acme.example");
      }
    }
    expect(await inside.send(letter)).toMatch(/^250 /);
    expect((await relay.spooled())[0]?.meta.session?.address).toBe("127.0.0.11");
  });

  it.each(["DATA_OK", "RCPT_TO_OK", "__proto__", "constructor", "onClose", "upgrade", "MAIL_FROM_OK x"])(
    "is answered with 5.5.x whatever it is called: %s",
    async (command) => {
      const relay = await startRelay();
      const client = await relay.connect();
      await client.reply();
      expect(await client.say(command)).toMatch(/^500 5\.5\.[12] /);
    },
  );

  it("ends the session of a browser at its first line", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    client.write("POST / HTTP/1.1\r\nHost: mx.corp.example\r\n\r\nEHLO x\r\n");
    expect(await client.reply()).toMatch(/^421 4\./);
    expect(await client.closed()).toBe("");
  });
});

describe("parameters of MAIL", () => {
  it.each([
    ["unknown", "FOO=BAR", /^555 5\.5\.4 /],
    ["unknown without a value", "FOO", /^555 5\.5\.4 /],
    ["AUTH, which is not offered", "AUTH=<>", /^555 5\.5\.4 /],
    ["REQUIRETLS, which is not offered", "REQUIRETLS", /^555 5\.5\.4 /],
    ["of RCPT", "NOTIFY=NEVER", /^555 5\.5\.4 /],
    ["repeated", "SIZE=1 SIZE=2", /^501 5\.5\.4 Parameter given twice/],
    ["repeated in another case", "BODY=7BIT body=8BITMIME", /^501 5\.5\.4 Parameter given twice/],
    ["SIZE without a value", "SIZE", /^501 5\.5\.4 Bad parameter syntax/],
    ["SIZE with an empty value", "SIZE=", /^501 5\.5\.4 /],
    ["SIZE that is negative", "SIZE=-1", /^501 5\.5\.4 /],
    ["SIZE in hexadecimal", "SIZE=0x10", /^501 5\.5\.4 /],
    ["SIZE of too many digits", `SIZE=${"9".repeat(21)}`, /^501 5\.5\.4 /],
    ["BODY=BINARYMIME, which is not offered", "BODY=BINARYMIME", /^501 5\.5\.4 /],
    ["SMTPUTF8 with a value", "SMTPUTF8=yes", /^501 5\.5\.4 /],
    ["RET of neither kind", "RET=ALL", /^501 5\.5\.4 /],
    ["ENVID with a hidden line end", "ENVID=a+0D+0Ab", /^501 5\.5\.4 /],
    ["ENVID that is too long", `ENVID=${"a".repeat(101)}`, /^501 5\.5\.4 /],
    ["SIZE above the limit", "SIZE=99999999999", /^552 5\.3\.4 /],
  ])("are refused: %s", async (_name, parameters, reply) => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say(`MAIL FROM:<a@acme.example> ${parameters}`)).toMatch(reply);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 /);
  });

  it("do not leak from a MAIL that was refused into the next", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    const parameters = "BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=first";
    expect(await client.say(`MAIL FROM:<a@evil.example> ${parameters}`)).toMatch(/^550 /);
    expect(await client.say(`MAIL FROM:<a@acme.example> ${parameters} FOO=1`)).toMatch(/^555 /);
    expect(await client.say(`MAIL FROM:<a@acme.example> ${parameters} SIZE=99999999999`)).toMatch(/^552 /);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say("RCPT TO:<o\xc3\xb6@edi.corp.example>")).toMatch(/^553 5\.6\.7 /);
    expect(await client.say("RSET")).toMatch(/^250 /);
    expect(await client.say(`MAIL FROM:<a@acme.example> ${parameters}`)).toMatch(/^250 /);
    expect(await client.say("RSET")).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.envelope).toEqual({
      reversePath: expect.objectContaining({ kind: "mailbox" }) as unknown,
      recipients: [{ path: expect.objectContaining({ kind: "mailbox" }) as unknown }],
      body: "7bit",
      smtpUtf8: false,
    });
  });

  it("and of RCPT are kept for the next hop as they were written", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example> SIZE=100 BODY=8bitmime RET=HDRS ENVID=QQ+2B314159");
    await client.say("RCPT TO:<orders@corp.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Orders+2Bx@corp.example");
    await client.say("RCPT TO:<x@edi.corp.example> NOTIFY=never");
    await client.say("DATA");
    await client.say(`${letter}.`);
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.envelope).toMatchObject({
      body: "8bitmime",
      returnContent: "headers",
      envelopeId: "QQ+2B314159",
      recipients: [
        { notify: ["success", "failure"], originalRecipient: "rfc822;Orders+2Bx@corp.example" },
        { notify: "never" },
      ],
    });
  });
});

describe("parameters of RCPT", () => {
  it("take an original recipient in UTF-8 as Postfix writes it, octets in hexadecimal", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example> SMTPUTF8");
    expect(await client.say("RCPT TO:<orders@corp.example> ORCPT=rfc822;b+C3+BCro@corp.example")).toMatch(/^250 /);
  });

  it.each([
    ["unknown", "FOO=BAR", /^555 5\.5\.4 /],
    ["of MAIL", "SIZE=1", /^555 5\.5\.4 /],
    ["repeated", "NOTIFY=NEVER NOTIFY=NEVER", /^501 5\.5\.4 Parameter given twice/],
    ["NOTIFY of two minds", "NOTIFY=NEVER,SUCCESS", /^501 5\.5\.4 /],
    ["NOTIFY of nothing", "NOTIFY=", /^501 5\.5\.4 /],
    ["NOTIFY with something unknown", "NOTIFY=SUCCESS,MAYBE", /^501 5\.5\.4 /],
    ["ORCPT without a type", "ORCPT=orders@corp.example", /^501 5\.5\.4 /],
    ["ORCPT with a hidden line end", "ORCPT=rfc822;a+0D+0Ab", /^501 5\.5\.4 /],
    ["ORCPT with a hidden line end in the form of RFC 6533", "ORCPT=utf-8;a\\x{0D}\\x{0A}b", /^501 5\.5\.4 /],
    ["ORCPT with a C1 control character", "ORCPT=utf-8;a\xc2\x85b", /^501 5\.5\.4 /],
    ["ORCPT with a space that is not ASCII", "ORCPT=utf-8;a\xc2\xa0b", /^501 5\.5\.4 /],
    ["ORCPT that is too long", `ORCPT=rfc822;${"a".repeat(500)}`, /^501 5\.5\.4 /],
  ])("are refused: %s", async (_name, parameters, reply) => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    expect(await client.say(`RCPT TO:<orders@corp.example> ${parameters}`)).toMatch(reply);
    expect(await client.say("DATA")).toMatch(/^503 /);
  });
});

describe("lines", () => {
  it("are taken in any letters, with white space at their end", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("mail from:<a@acme.example>  ")).toMatch(/^250 /);
    expect(await client.say("Rcpt To:<orders@corp.example>\t")).toMatch(/^250 /);
    expect(await client.say("data ")).toMatch(/^354 /);
    expect(await client.say(`${letter}.`)).toMatch(/^250 /);
    expect(await client.say("noop anything")).toMatch(/^250 /);
    expect(await client.say("quit")).toMatch(/^221 2\.0\.0 /);
    expect(await client.closed()).toBe("");
  });

  it("may come octet by octet", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    for (const octet of "MAIL FROM:<a@acme.example>\r\nRCPT TO:<orders@corp.example>\r\n")
      await client.writeApart(octet);
    expect(await client.reply()).toMatch(/^250 2\.1\.0 /);
    expect(await client.reply()).toMatch(/^250 2\.1\.5 /);
  });

  it.each([
    ["a bare LF", "NOOP\nMAIL FROM:<a@acme.example>\r\n"],
    ["a bare LF at its end", "NOOP\n"],
    ["LF and NUL", "NOOP\0\n"],
  ])("end at CRLF alone: %s ends the session, and nothing behind it is executed", async (_name, octets) => {
    const relay = await startRelay();
    const client = await relay.partner();
    client.write(octets);
    expect(await client.reply()).toMatch(/^421 4\.5\.2 /);
    expect(await client.closed()).toBe("");
  });

  it.each([
    ["a bare CR", "NOOP\rMAIL FROM:<a@acme.example>"],
    ["NUL", "NOOP\0"],
    ["an escape", "NOOP \x1b[2J"],
  ])("with control characters are refused whole: %s", async (_name, line) => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say(line)).toMatch(/^500 5\.5\.2 /);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 /);
  });

  it("that are too long end the session, with or without an end", async () => {
    const relay = await startRelay();
    for (const octets of [`NOOP ${"x".repeat(16_384)}`, `NOOP ${"x".repeat(16_384)}\r\nNOOP\r\n`]) {
      const client = await relay.partner();
      client.write(octets);
      expect(await client.reply()).toMatch(/^421 4\.5\.2 /);
      expect(await client.closed()).toBe("");
    }
  });

  it("of which only the first half came are never executed", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    client.socket.end("RCPT TO:<ceo@corp.example>");
    await client.closed();
    expect(relay.log().filter(({ reply }) => reply === "recipientNotAllowed")).toEqual([]);
  });
});
