/** STARTTLS: what was said before it counts no more, and what came with it is never executed (NO STARTTLS, 2021). */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { describe, expect, it } from "vitest";
import { acmeAddress } from "../tools/relay-folder.ts";
import { letter, until, useRelay, type Relay } from "./support.ts";

const startRelay = useRelay();

async function atStarttls(relay: Relay) {
  const client = await relay.connect();
  await client.reply();
  await client.say("EHLO mx.acme.example");
  return client;
}

/** Closes with RST; a TLS socket cannot, and is torn away instead. */
function reset(socket: Socket): void {
  if (socket instanceof TLSSocket) socket.destroy();
  else socket.resetAndDestroy();
}

describe("STARTTLS", () => {
  it("takes no parameter, and the session goes on in the clear", async () => {
    const relay = await startRelay();
    const client = await atStarttls(relay);
    expect(await client.say("STARTTLS now")).toMatch(/^501 5\.5\.4 /);
    expect(await client.say("NOOP")).toMatch(/^250 /);
    expect(await client.say("STARTTLS ")).toMatch(/^220 /);
    await client.secure(relay.certificates.acme);
    expect(await client.say("EHLO mx.acme.example")).toMatch(/^250-/);
  });

  it("is refused inside TLS, in a transaction too, which stays", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("STARTTLS")).toMatch(/^503 5\.5\.1 /);
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    expect(await client.say("STARTTLS")).toMatch(/^503 5\.5\.1 /);
    expect(await client.say("DATA")).toMatch(/^354 /);
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
    const implicit = await relay.connectTls(acmeAddress, relay.certificates.acme);
    await implicit.reply();
    await implicit.say("EHLO mx.acme.example");
    expect(await implicit.say("STARTTLS")).toMatch(/^503 5\.5\.1 /);
  });

  it("makes the relay forget the EHLO that was said in the clear", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    await client.say("EHLO forged.example");
    await client.say("STARTTLS");
    await client.secure(relay.certificates.acme);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^503 /);
    await client.say("HELO mx.acme.example");
    expect(await client.send(letter)).toMatch(/^250 /);
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.session?.helo).toBe("mx.acme.example");
    expect(spooled?.content).not.toContain("forged");
    expect(spooled?.content).toContain("with SMTP id");
  });

  it("may follow EHLO in one packet", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    client.write("EHLO mx.acme.example\r\nSTARTTLS\r\n");
    expect(await client.reply()).toMatch(/^250-/);
    expect(await client.reply()).toMatch(/^220 /);
    await client.secure(relay.certificates.acme);
    await client.say("EHLO mx.acme.example");
    expect(await client.send(letter)).toMatch(/^250 /);
  });
});

describe("plaintext behind STARTTLS", () => {
  const injections: Array<[name: string, octets: string]> = [
    ["a command", "EHLO injected.example\r\n"],
    ["a whole transaction", "EHLO injected.example\r\nMAIL FROM:<a@acme.example>\r\nRCPT TO:<orders@corp.example>\r\n"],
    ["half a line, which the first line inside TLS would complete", "MAIL FROM:<a@acme.example> "],
    ["two hundred commands, more than one turn's", "NOOP\r\n".repeat(200)],
  ];

  it.each(injections)("in the same packet is never executed: %s", async (_name, octets) => {
    const relay = await startRelay();
    const client = await atStarttls(relay);
    client.write(`STARTTLS\r\n${octets}`);
    expect(await client.reply()).toMatch(/^220 /);
    await client.secure(relay.certificates.acme);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 Send EHLO first/);
    expect(await client.say("EHLO mx.acme.example")).toMatch(/^250-/);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 Send MAIL first/);
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.session?.helo).toBe("mx.acme.example");
  });

  it.each(injections)("in a later packet ends the connection: %s", async (_name, octets) => {
    const relay = await startRelay();
    const client = await atStarttls(relay);
    client.write("STARTTLS\r\n");
    expect(await client.reply()).toMatch(/^220 /);
    client.write(octets);
    expect(await client.closed()).not.toMatch(/250/);
    await until("the connection is counted down", () => relay.receiver.connections() === 0);
  });
});

describe("a handshake that fails", () => {
  it.each([
    ["garbage", "\x16\x03\x01\xff\xff" + "garbage".repeat(100)],
    ["an SSL 2 hello", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + "x".repeat(40)],
    ["nothing but an end", ""],
    ["half a ClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
  ])("ends one connection and nothing else: %s", async (_name, octets) => {
    const relay = await startRelay();
    for (let round = 0; round < 5; round += 1) {
      const inClear = await atStarttls(relay);
      await inClear.say("STARTTLS");
      inClear.socket.end(Buffer.from(octets, "latin1"));
      await inClear.closed();
      const { address: host, port } = relay.implicitTls;
      const implicit = connect({ host, port, localAddress: acmeAddress });
      implicit.on("error", () => undefined);
      await once(implicit, "connect");
      implicit.end(Buffer.from(octets, "latin1"));
      implicit.resume();
      await once(implicit, "close");
    }
    await until("all connections are counted down", () => relay.receiver.connections() === 0);
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
  });

  it("by an abrupt reset, at every phase, ends one connection and nothing else", async () => {
    const relay = await startRelay();
    for (let round = 0; round < 20; round += 1) {
      const clients = [await relay.connect(), await atStarttls(relay), await atStarttls(relay)];
      await clients[1]?.say("STARTTLS");
      clients[2]?.write("STARTTLS\r\n\x16\x03\x01");
      clients.push(await relay.partner());
      for (const { socket } of clients) reset(socket);
    }
    await until("all connections are counted down", () => relay.receiver.connections() === 0);
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
  });

  it("because it takes too long is given up, on both listeners", async () => {
    const relay = await startRelay({ timeouts: { handshakeMs: 50 } });
    const inClear = await atStarttls(relay);
    await inClear.say("STARTTLS");
    inClear.write("\x16\x03\x01\x02\x00\x01");
    expect(await inClear.closed()).toBe("");
    const { address: host, port } = relay.implicitTls;
    const implicit = connect({ host, port, localAddress: acmeAddress });
    implicit.on("error", () => undefined);
    implicit.write("\x16\x03\x01\x02\x00\x01");
    implicit.resume();
    await once(implicit, "close");
    await until("all connections are counted down", () => relay.receiver.connections() === 0);
    expect(relay.log().filter(({ error }) => /handshake/i.test(String(error)))).toHaveLength(2);
  });

  it("because one octet comes at a time is given up as if none had come", async () => {
    const relay = await startRelay({ timeouts: { handshakeMs: 100 } });
    const { address: host, port } = relay.implicitTls;
    const implicit = connect({ host, port, localAddress: acmeAddress });
    implicit.on("error", () => undefined);
    implicit.resume();
    const octets = setInterval(() => implicit.write("\x16"), 10);
    await once(implicit, "close");
    clearInterval(octets);
    await until("the connection is counted down", () => relay.receiver.connections() === 0);
  });
});
