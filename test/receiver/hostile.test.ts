/** Floods, tricks with time and size, and clients that break off: what one client does costs the others little. */
import { describe, expect, it } from "vitest";
import { globexAddress } from "../tools/relay-folder.ts";
import type { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { collectGarbage, letter, until, useRelay, withLimits, withRelayLimits, type Relay } from "./support.ts";

const startRelay = useRelay();

async function atData(relay: Relay, client?: SmtpDialogue): Promise<SmtpDialogue> {
  const dialogue = client ?? (await relay.partner());
  expect(await dialogue.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
  expect(await dialogue.say("RCPT TO:<orders@corp.example>")).toMatch(/^250 /);
  expect(await dialogue.say("DATA")).toMatch(/^354 /);
  return dialogue;
}

/** What is held, in octets. */
function held(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const mebibyte = 1024 * 1024;

describe("the processor's time", () => {
  it("that a flood of dots, of empty lines or of stray CRs takes is at most three times that of ordinary text", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 20 * mebibyte }) });
    const cost = async (unit: string): Promise<number> => {
      const client = await atData(relay);
      const octets = Buffer.from(`Subject: x\r\n\r\n${unit.repeat(Math.ceil((8 * mebibyte) / unit.length))}\r\n.\r\n`);
      const before = process.cpuUsage();
      client.write(octets);
      await client.reply();
      const { user, system } = process.cpuUsage(before);
      client.close();
      return user + system;
    };
    const text = `${"x".repeat(70)}\r\n`;
    await cost(text);
    const ordinary = Math.min(await cost(text), await cost(text), await cost(text));
    for (const unit of ["..\r\n", "\r\n", "\n", ".\r", "\r\n.\r", "\0"])
      expect(Math.min(await cost(unit), await cost(unit)) / ordinary).toBeLessThan(3);
  });

  it("that a parameter takes does not double with each of its characters", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    const before = performance.now();
    for (const value of [`utf-8;${"\\x{41}".repeat(80)}=`, `rfc822;${"+41".repeat(160)}=`, "a".repeat(3000)])
      expect(await client.say(`RCPT TO:<orders@corp.example> ORCPT=${value}`)).toMatch(/^501 5\.5\.4 /);
    expect(await client.say(`RCPT TO:<orders@corp.example> ORCPT=utf-8;${"\\x{41}".repeat(80)}`)).toMatch(/^250 /);
    expect(performance.now() - before).toBeLessThan(2000);
  });

  it.each([
    ["fields", "a:\r\n".repeat(9990)],
    ["Received fields", "Received:\r\n".repeat(9990)],
    ["forged results", "Authentication-Results:x\r\n".repeat(9990)],
    ["an unclosed comment", `Received:${"(".repeat(250_000)}\r\n`],
    ["unclosed quotes", `Authentication-Results:${'"'.repeat(250_000)}\r\n`],
    ["white space", `Received:${" ".repeat(250_000)}\r\n`],
  ])("that the largest header takes is short, if it is full of %s", async (_name, header) => {
    const relay = await startRelay();
    const client = await atData(relay);
    client.write(header);
    const before = performance.now();
    client.write("\r\n.\r\n");
    expect(await client.reply()).toMatch(/^(?:250|55[24]) /);
    expect(performance.now() - before).toBeLessThan(1000);
  });

  it("is shared: others are answered while one sends a flood that is only dropped", async () => {
    const relay = await startRelay({ change: withLimits({ messageBytesMax: 1000 }) });
    const flood = await Promise.all(Array.from({ length: 5 }, () => atData(relay)));
    const octets = Buffer.from(`${"x".repeat(998)}\r\n`.repeat(10_000));
    for (const client of flood) client.write(octets);
    const globex = await relay.partner(relay.certificates.globex, globexAddress);
    for (let round = 0; round < 10; round += 1) {
      const before = performance.now();
      expect(await globex.send(letter, "a@globex.example")).toMatch(/^250 /);
      expect(performance.now() - before).toBeLessThan(2000);
    }
    for (const client of flood) {
      client.write(".\r\n");
      expect(await client.reply()).toMatch(/^552 /);
    }
  });
});

describe("memory", () => {
  it("is not taken by single octets more than by many", async () => {
    const relay = await startRelay();
    const client = await atData(relay);
    await client.writeApart("Subject: x\r\n\r\n");
    const before = held();
    for (let sent = 0; sent < 5000; sent += 1) await client.writeApart("x");
    expect(held() - before).toBeLessThan(mebibyte);
    client.write("\r\n.\r\n");
    expect(await client.reply()).toMatch(/^250 /);
    expect((await relay.spooled())[0]?.content.endsWith(`\r\n\r\n${"x".repeat(5000)}\r\n`)).toBe(true);
  });

  it("is given back by clients that break off in the middle of messages, and so are their places and files", async () => {
    const relay = await startRelay({ change: withRelayLimits({ handshakesPerMinute: 1000 }) });
    const round = async (): Promise<number> => {
      for (let index = 0; index < 100; index += 1) {
        const client = await atData(relay);
        await client.writeApart(`Subject: x\r\n\r\n${"y".repeat(index % 4 === 0 ? 100_000 : 100)}`);
        client.close();
      }
      await until(
        "all is forgotten",
        async () => relay.receiver.connections() === 0 && (await relay.files()).length === 0,
      );
      return held();
    };
    await round();
    const before = await round();
    expect((await round()) - before).toBeLessThan(4 * mebibyte);
  });

  it("does not fill with replies that nobody reads", async () => {
    const relay = await startRelay();
    const clients: SmtpDialogue[] = [];
    for (let index = 0; index < 5; index += 1) {
      const client = await relay.partner();
      expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
      client.socket.pause();
      clients.push(client);
    }
    const before = held();
    for (const client of clients) client.write("RCPT TO:<orders@corp.example>\r\n".repeat(1000));
    await relay.partner();
    expect(held() - before).toBeLessThan(4 * mebibyte);
  });
});

describe("a client that sends all it has and closes its side", () => {
  it("leaves a whole message or none, and no connection", async () => {
    const relay = await startRelay();
    for (let round = 0; round < 20; round += 1) {
      const client = await relay.partner();
      client.socket.end(
        `MAIL FROM:<a@acme.example>\r\nRCPT TO:<orders@corp.example>\r\nDATA\r\n${letter}${round % 2 === 0 ? ".\r\n" : ""}QUIT\r\n`,
      );
      await client.closed();
    }
    await until("all connections are counted down", () => relay.receiver.connections() === 0);
    for (const { content } of await relay.spooled()) expect(content.endsWith(letter)).toBe(true);
    expect((await relay.spooled()).length).toBeLessThanOrEqual(10);
  });
});
