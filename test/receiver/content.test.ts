/** The content of messages: where it ends, what is refused in it, and that all the rest arrives as it was sent. */
import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { collectGarbage, letter, until, useRelay, withLimits, type Relay } from "./support.ts";

const startRelay = useRelay();

/** As far as 354. */
async function atData(relay: Relay): Promise<SmtpDialogue> {
  const client = await relay.partner();
  await client.say("MAIL FROM:<a@acme.example>");
  await client.say("RCPT TO:<orders@corp.example>");
  expect(await client.say("DATA")).toBe("354 End data with <CR><LF>.<CR><LF>");
  return client;
}

const header = "Subject: x\r\n\r\n";

describe("content with a bare CR, a bare LF or NUL", () => {
  const smuggled = "MAIL FROM:<a@acme.example>\r\nRCPT TO:<orders@corp.example>\r\nDATA\r\n";
  const rows: Array<[name: string, octets: string]> = [
    ["LF . LF", `a\n.\n${smuggled}`],
    ["LF . CRLF", `a\n.\r\n${smuggled}`],
    ["CRLF . LF", `a\r\n.\n${smuggled}`],
    ["CR . CR", `a\r.\r${smuggled}`],
    ["CR . CRLF", `a\r.\r\n${smuggled}`],
    ["CRLF . CR", `a\r\n.\r${smuggled}`],
    ["CRLF . CR CR LF", `a\r\n.\r\r\n${smuggled}`],
    ["CR LF NUL . CRLF", `a\r\n\0.\r\n${smuggled}`],
    ["NUL", "a\0b"],
    ["a bare LF in the header", "b"],
    ["a bare CR at the very end", "a\r"],
  ];
  it.each(rows)("gets 550 5.6.0 after the true end of data, and smuggles nothing: %s", async (name, octets) => {
    const relay = await startRelay();
    const wire = name.endsWith("the header") ? "Subject: x\nX: y\r\n\r\nb\r\n.\r\n" : `${header}${octets}\r\n.\r\n`;
    // Whole, in two pieces at every place near the trick, and octet by octet.
    const near = wire.indexOf("\n", header.length - 2);
    const cuts = [0, ...Array.from({ length: 12 }, (_, index) => near - 4 + index)].filter((cut) => cut >= 0);
    const client = await relay.partner();
    for (const cut of cuts) {
      expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
      expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^250 /);
      expect(await client.say("DATA")).toMatch(/^354 /);
      if (cut > 0) await client.writeApart(wire.slice(0, cut));
      client.write(wire.slice(cut));
      expect(await client.reply()).toMatch(/^550 5\.6\.0 Bare CR, bare LF or NUL in the message \[/);
    }
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    for (const octet of wire) await client.writeApart(octet);
    expect(await client.reply()).toMatch(/^550 5\.6\.0 /);
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await relay.spooled()).toHaveLength(1);
  });

  it("is told to be malformed even if it is too large as well", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 1000 }) });
    const client = await atData(relay);
    client.write(`${header}${"x".repeat(2000)}\n.\r\n\r\n.\r\n`);
    expect(await client.reply()).toMatch(/^550 5\.6\.0 /);
  });
});

describe("SIZE", () => {
  it("declared too large gets 552 5.3.4 at MAIL, and the session goes on", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 1000 }) });
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@acme.example> SIZE=1001")).toMatch(/^552 5\.3\.4 .* \[\w+\]$/);
    expect(await client.say("MAIL FROM:<a@acme.example> SIZE=1000")).toMatch(/^250 /);
  });

  it("actual above the partner's limit gets 552 5.3.4 after the end of data, and the session goes on", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 100_000 }) });
    const client = await atData(relay);
    client.write(`${header}${`${"x".repeat(998)}\r\n`.repeat(100)}.\r\n`);
    expect(await client.reply()).toMatch(/^552 5\.3\.4 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await relay.spooled()).toHaveLength(1);
    await until("nothing else is in the spool", async () => (await relay.files()).length === 1);
  });

  it("counts neither the doubled dots nor the end nor our own fields", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: header.length + 3 * 50 }) });
    const client = await atData(relay);
    client.write(`${header}${"..\r\n".repeat(50)}.\r\n`);
    expect(await client.reply()).toMatch(/^250 /);
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    client.write(`${header}${"..\r\n".repeat(49)}....\r\n.\r\n`);
    expect(await client.reply()).toMatch(/^552 5\.3\.4 /);
  });

  it("stays on disk no longer than until it is known to be too much", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 200_000 }) });
    const client = await atData(relay);
    const line = `${"x".repeat(998)}\r\n`;
    client.write(header + line.repeat(150));
    await until("it is being streamed", async () => (await relay.files()).length === 1);
    client.write(line.repeat(100));
    await until("it is given up", async () => (await relay.files()).length === 0);
    client.write(`${line.repeat(10)}.\r\n`);
    expect(await client.reply()).toMatch(/^552 5\.3\.4 /);
  });
});

describe("a header", () => {
  it("with too many Received fields gets 554 5.4.6", async () => {
    const relay = await startRelay();
    const received = "Received: from a.example by b.example; Tue, 24 Nov 2026 03:00:00 +0000\r\n";
    const client = await atData(relay);
    client.write(`${received.repeat(51)}${letter}.\r\n`);
    expect(await client.reply()).toMatch(/^554 5\.4\.6 Too many hops \[/);
    expect(await client.send(received.repeat(50) + letter)).toMatch(/^250 /);
  });

  it.each([
    "Received: from x by mx.corp.example; Tue, 24 Nov 2026 03:00:00 +0000\r\n",
    "received:\r\n\tfrom x\r\n\tBY MX.Corp.Example. with ESMTPS id 1; x\r\n",
    ".Received: from x by mx.corp.example; x\r\n",
  ])("with a Received field of our own gets 554 5.4.6: %j", async (field) => {
    const relay = await startRelay();
    const client = await atData(relay);
    client.write(`${field}${letter}.\r\n`);
    const reply = await client.reply();
    expect(reply).toMatch(/^554 5\.4\.6 Mail loop/);
  });

  it("that is too large gets 552 5.3.4, in many fields, in one without end, or in too many lines", async () => {
    const relay = await startRelay();
    const padding = `X-Padding: ${"x".repeat(900)}\r\n`;
    for (const [octets, what] of [
      [padding.repeat(400), "is too large"],
      [`X: ${"x".repeat(400_000)}\r\n`, "is too large"],
      ["a:\r\n".repeat(10_001), "has too many lines"],
    ] as const) {
      const client = await atData(relay);
      client.write(`${octets}${letter}.\r\n`);
      expect(await client.reply()).toMatch(new RegExp(`^552 5\\.3\\.4 Message header ${what} \\[`));
      expect(await client.say("NOOP")).toMatch(/^250 /);
    }
    expect(await relay.files()).toEqual([]);
  });

  it("may be missing, be all there is, or be empty", async () => {
    const relay = await startRelay();
    for (const content of ["", "\r\n", "\r\nbody\r\n", "Subject: only\r\n", "no field at all\r\n"]) {
      const client = await atData(relay);
      client.write(`${content}.\r\n`);
      expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
      const spooled = (await relay.spooled()).at(-1);
      expect(spooled?.content.endsWith(content)).toBe(true);
      expect(spooled?.content).toMatch(/^Received: /);
    }
  });
});

describe("content that is allowed", () => {
  const bodies: Array<[name: string, body: string]> = [
    [
      "8-bit octets",
      Array.from({ length: 255 }, (_, octet) =>
        octet === 9 || octet === 12 ? "" : String.fromCharCode(octet + 1),
      ).join("") + "\r\n",
    ],
    ["doubled dots and dots alone", "..\r\n...\r\n..x\r\nx.\r\n"],
    ["commands", "QUIT\r\nRSET\r\nEHLO x\r\nDATA\r\n"],
    ["a line of a million octets", `${"x".repeat(1_000_000)}\r\n`],
    ["white space at line ends", "a \t \r\n \r\n\t\r\n"],
    ["what looks like a batch file", "PINRELAY1-END 00000001 00000000\r\n"],
  ];
  it.each(bodies)("arrives octet for octet below our fields: %s", async (_name, body) => {
    const sent = `${letter}${body.replaceAll(/\r(?!\n)|(?<!\r)\n/g, "")}`;
    const relay = await startRelay();
    for (const pieces of [1, 7]) {
      const client = await atData(relay);
      const step = Math.ceil(sent.length / pieces);
      for (let at = 0; at < sent.length; at += step) await client.writeApart(sent.slice(at, at + step));
      client.write(".\r\n");
      expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
      expect(belowOurs((await relay.spooled()).at(-1)?.content ?? "")).toBe(sent);
    }
  });

  it("of 20 MiB is streamed: the memory in use stays far below its size", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 22 * 1024 * 1024 }) });
    const client = await atData(relay);
    const hash = createHash("sha256");
    const write = async (octets: Buffer) => {
      hash.update(octets);
      await client.writeApart(octets);
    };
    await write(Buffer.from(header));
    const used = () => process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed;
    collectGarbage();
    const before = used();
    let peak = 0;
    for (let mebibyte = 0; mebibyte < 20; mebibyte += 1) {
      const block = Buffer.from(randomBytes(766_000).toString("base64").replaceAll(/.{76}/g, "$&\r\n") + "\r\n");
      await write(block);
      collectGarbage();
      peak = Math.max(peak, used() - before);
    }
    client.write(".\r\n");
    expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
    const [spooled] = await relay.spooled();
    expect(
      createHash("sha256")
        .update(belowOurs(spooled?.content ?? ""), "latin1")
        .digest("hex"),
    ).toBe(hash.digest("hex"));
    expect(spooled?.meta.wireBytes).toBe(spooled?.content.length);
    expect(peak).toBeLessThan(6 * 1024 * 1024);
  });

  it("arrives twice when two messages are written in one go, with every command between them", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    const transaction = (to: string, text: string) =>
      `MAIL FROM:<a@acme.example>\r\nRCPT TO:<${to}>\r\nDATA\r\n${letter}${text}\r\n.\r\n`;
    client.write(
      `${transaction("orders@corp.example", "first")}${transaction("x@edi.corp.example", "second")}QUIT\r\n`,
    );
    const expected = [
      "250 2.1.0",
      "250 2.1.5",
      "354",
      "250 2.0.0",
      "250 2.1.0",
      "250 2.1.5",
      "354",
      "250 2.0.0",
      "221",
    ];
    for (const start of expected) expect((await client.reply()).startsWith(start)).toBe(true);
    expect(await client.closed()).toBe("");
    const spooled = await relay.spooled();
    expect(spooled.map(({ content }) => belowOurs(content))).toEqual([`${letter}first\r\n`, `${letter}second\r\n`]);
    expect(spooled.map(({ meta }) => meta.envelope.recipients.length)).toEqual([1, 1]);
  });
});

describe("a client that goes away in the middle of a message", () => {
  it.each(["end", "destroy"] as const)("leaves nothing in the spool: %s", async (how) => {
    const relay = await startRelay();
    for (const bytes of [0, 10, 300_000]) {
      const client = await atData(relay);
      await client.writeApart(`${header}${"x".repeat(bytes)}\r\n`);
      if (bytes > 100_000) await until("it is being streamed", async () => (await relay.files()).length === 1);
      if (how === "end") client.socket.end();
      else client.socket.destroy();
      await until(
        "nothing is left",
        async () => (await relay.files()).length === 0 && relay.receiver.connections() === 0,
      );
    }
    expect(relay.log().filter(({ event }) => event === "message abandoned")).toHaveLength(3);
  });
});

/** What stands below the two fields that we put on top. */
function belowOurs(content: string): string {
  return content.replace(/^Received: [^]*?\r\n(?!\t)Authentication-Results: [^]*?\r\n(?!\t)/, "");
}
