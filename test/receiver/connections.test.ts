/** Connections: who is turned away, how many there may be, that each is counted down once, and how they end. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseAddressRange } from "../../src/partner/address-range.ts";
import { acmeAddress, globexAddress, strangerAddress } from "../tools/relay-folder.ts";
import type { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { letter, until, useRelay, withLimits, withPartner, withRelayLimits, type Relay } from "./support.ts";

const startRelay = useRelay();

/** Opens a socket and says nothing. */
async function openSocket(to: { address: string; port: number }, from: string): Promise<Socket> {
  const socket = connect({ host: to.address, port: to.port, localAddress: from });
  onTestFinished(() => void socket.destroy());
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

const allGone = (relay: Relay) => until("all connections are counted down", () => relay.receiver.connections() === 0);

describe("the address of no partner", () => {
  it("gets 554 5.7.1 instead of the greeting, and then nothing but QUIT", async () => {
    const relay = await startRelay();
    const client = await relay.connect(strangerAddress);
    expect(await client.reply()).toMatch(/^554 5\.7\.1 No mail is accepted from your address \[\w+\]$/);
    for (const line of ["EHLO x", "STARTTLS", "MAIL FROM:<a@acme.example>"])
      expect(await client.say(line)).toMatch(/^503 5\.5\.1 No mail is accepted from your address, only QUIT$/);
    expect(await client.say("QUIT")).toMatch(/^221 2\.0\.0 /);
    expect(await client.closed()).toBe("");
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ event: "refused", reply: "addressUnknown", address: strangerAddress }),
    );
  });

  it("gets no handshake at all behind implicit TLS", async () => {
    const relay = await startRelay();
    await expect(relay.connectTls(strangerAddress, relay.certificates.acme)).rejects.toThrow(/TLS|ECONNRESET|socket/);
    await allGone(relay);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ event: "refused", reply: "addressUnknown", address: strangerAddress }),
    );
  });

  it("does not stay: neither if it says nothing, nor if it says a little now and then, nor if it talks on", async () => {
    const relay = await startRelay({ timeouts: { turnedAwayMs: 100 } });
    const silent = await relay.connect(strangerAddress);
    const slow = await relay.connect(strangerAddress);
    const octets = setInterval(() => slow.write("x"), 10);
    onTestFinished(() => clearInterval(octets));
    expect(await silent.closed()).toMatch(/^554 [^\n]*\n$/);
    expect(await slow.closed()).toMatch(/^554 [^\n]*\n$/);
    const talker = await relay.connect(strangerAddress);
    talker.write("NOOP\r\n".repeat(1000));
    expect((await talker.closed()).split("\n").length).toBeLessThan(10);
    await allGone(relay);
  });

  it("takes no place from partners, however many come", async () => {
    const relay = await startRelay({ change: withRelayLimits({ connectionsMax: 2 }) });
    const strangers = await Promise.all(
      Array.from({ length: 150 }, (_, index) => openSocket(relay.plain, `127.0.1.${index + 1}`)),
    );
    for (const socket of strangers) socket.resume();
    await until("some are dropped unheard", () => strangers.some(({ closed }) => closed));
    expect(relay.receiver.connections()).toBeLessThanOrEqual(100);
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    for (const socket of strangers) socket.destroy();
    await until("their places are free", () => relay.receiver.connections() === 1);
  });
});

describe("the limits of connections", () => {
  it("overall: one too many gets 421 4.7.0, and a place that is left is free again", async () => {
    const relay = await startRelay({ change: withRelayLimits({ connectionsMax: 2 }) });
    const one = await relay.partner();
    const two = await relay.connect(globexAddress);
    expect(await two.reply()).toMatch(/^220 /);
    const three = await relay.connect(globexAddress);
    expect(await three.reply()).toMatch(/^421 4\.7\.0 Too many connections, try again later \[/);
    expect(await three.closed()).toBe("");
    expect(await one.send(letter)).toMatch(/^250 /);
    two.close();
    await until("the place is free", () => relay.receiver.connections() === 1);
    const four = await relay.connect(globexAddress);
    expect(await four.reply()).toMatch(/^220 /);
  });

  it("by address: one too many gets 421 4.7.0, and other addresses do not feel it", async () => {
    const relay = await startRelay({ change: withRelayLimits({ connectionsPerAddressMax: 1 }) });
    await relay.partner();
    const two = await relay.connect();
    expect(await two.reply()).toMatch(/^421 4\.7\.0 /);
    const globex = await relay.connect(globexAddress);
    expect(await globex.reply()).toMatch(/^220 /);
  });

  it("count those who are turned away for it as nobody's, so that a flood from one partner leaves room for others", async () => {
    const relay = await startRelay({ change: withRelayLimits({ connectionsMax: 5, connectionsPerAddressMax: 2 }) });
    const flood = await Promise.all(Array.from({ length: 50 }, () => openSocket(relay.plain, acmeAddress)));
    await until("all have been seen", () => relay.log().length >= 48);
    const globex = await relay.partner(relay.certificates.globex, globexAddress);
    expect(await globex.send(letter, "a@globex.example")).toMatch(/^250 /);
    for (const socket of flood) socket.destroy();
  });

  it("hold behind implicit TLS from before the handshake on", async () => {
    const relay = await startRelay({ change: withRelayLimits({ connectionsPerAddressMax: 2 }) });
    await Promise.all([openSocket(relay.implicitTls, acmeAddress), openSocket(relay.implicitTls, acmeAddress)]);
    await until("both are counted", () => relay.receiver.connections() === 2);
    await expect(relay.connectTls(acmeAddress, relay.certificates.acme)).rejects.toThrow();
    expect(await (await relay.connect()).reply()).toMatch(/^421 4\.7\.0 /);
  });

  it("of a partner are given back however its connections end", async () => {
    const relay = await startRelay({ change: withLimits({ connectionsMax: 1 }) });
    const endings: Array<(client: SmtpDialogue) => unknown> = [
      (client) => client.say("QUIT"),
      (client) => client.close(),
      (client) => client.socket.end(),
      (client) => client.write("NOOP\n"),
      async (client) => {
        await client.say("RCPT TO:<orders@corp.example>");
        await client.say("DATA");
        client.close();
      },
    ];
    for (const end of endings) {
      const client = await relay.partner();
      expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
      await end(client);
      await allGone(relay);
    }
  });
});

describe("a connection that is gone before its session begins", () => {
  it.each([
    ["plain", false],
    ["implicit TLS", true],
  ] as const)("is counted down, and ends nothing else: %s", async (_name, implicitTls) => {
    const relay = await startRelay();
    const onAccept = (message: unknown) => {
      // What the system would tell of a peer that has sent RST, before anything of ours listens to the socket.
      const { socket } = message as { socket: Socket }; // what node documents for this channel
      if (socket.localPort === relay.plain.port || socket.localPort === relay.implicitTls.port)
        socket.destroy(new Error("read ECONNRESET"));
    };
    subscribe("net.server.socket", onAccept);
    onTestFinished(() => void unsubscribe("net.server.socket", onAccept));
    for (let round = 0; round < 5; round += 1) {
      const socket = await openSocket(implicitTls ? relay.implicitTls : relay.plain, acmeAddress);
      socket.resume();
      if (!socket.closed) await once(socket, "close");
    }
    unsubscribe("net.server.socket", onAccept);
    await allGone(relay);
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
  });
});

describe("a session", () => {
  it("that is idle for too long gets 421 4.4.2", async () => {
    const relay = await startRelay({ timeouts: { idleMs: 100 } });
    const client = await relay.connect();
    await client.reply();
    expect(await client.reply()).toMatch(/^421 4\.4\.2 Timeout, nothing came for too long \[/);
    await client.closed();
    await allGone(relay);
  });

  it("gets 421 4.4.2 when its time is over, though it never was idle", async () => {
    const relay = await startRelay({ timeouts: { sessionMs: 200 } });
    const client = await relay.connect();
    await client.reply();
    const octets = setInterval(() => client.write("x"), 10);
    onTestFinished(() => clearInterval(octets));
    expect(await client.reply()).toMatch(/^421 4\.4\.2 /);
    await client.closed();
  });

  it("whose time is over may end the message that is coming in", async () => {
    const relay = await startRelay({ timeouts: { sessionMs: 200 } });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    await new Promise((resolve) => setTimeout(resolve, 400));
    client.write(`${letter}.\r\nMAIL FROM:<a@acme.example>\r\n`);
    expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
    expect(await client.reply()).toMatch(/^421 4\.4\.2 /);
    expect(await client.closed()).toBe("");
  });

  it("whose message takes too long gets 421 4.4.2, and leaves nothing in the spool", async () => {
    const relay = await startRelay({ timeouts: { messageMs: 100 }, change: withLimits({ messageBytesMax: 1000 }) });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    const octets = setInterval(() => client.write("x"), 10);
    onTestFinished(() => clearInterval(octets));
    expect(await client.reply()).toMatch(/^421 4\.4\.2 /);
    await client.closed();
    clearInterval(octets);
    await allGone(relay);
    expect(await relay.files()).toEqual([]);
    expect(relay.log()).toContainEqual(expect.objectContaining({ event: "message abandoned" }));
  });

  it("with too many commands and no message gets 421 4.7.0, and one with messages does not", async () => {
    const relay = await startRelay();
    const busy = await relay.partner();
    for (let round = 0; round < 40; round += 1) expect(await busy.send(letter)).toMatch(/^250 2\.0\.0 /);
    const idle = await relay.partner();
    idle.write("NOOP\r\n".repeat(100_000));
    let replies = 0;
    while ((await idle.reply()).startsWith("250")) replies += 1;
    expect(replies).toBeLessThan(100);
    await idle.closed();
    expect(await busy.send(letter)).toMatch(/^250 /);
  });
});

describe("stop", () => {
  const phases: Array<[name: string, reach: (relay: Relay) => Promise<SmtpDialogue | Socket>]> = [
    ["before the greeting is read", (relay) => relay.connect()],
    ["turned away", (relay) => relay.connect(strangerAddress)],
    [
      "idle in the clear",
      async (relay) => {
        const client = await relay.connect();
        await client.reply();
        await client.say("EHLO x");
        return client;
      },
    ],
    ["idle inside TLS", (relay) => relay.partner()],
    [
      "in a transaction",
      async (relay) => {
        const client = await relay.partner();
        await client.say("MAIL FROM:<a@acme.example>");
        return client;
      },
    ],
    [
      "in the middle of a command line",
      async (relay) => {
        const client = await relay.partner();
        await client.writeApart("MAIL FR");
        return client;
      },
    ],
  ];
  it.each(phases)("says 421 4.3.2 to a client that is %s, and resolves", async (_name, reach) => {
    const relay = await startRelay();
    const client = (await reach(relay)) as SmtpDialogue; // these all are
    await relay.receiver.stop();
    const last = (await client.closed()).trimEnd().split("\n").at(-1);
    expect(last).toMatch(/^421 4\.3\.2 Service is shutting down, try again later \[/);
    await allGone(relay);
  });

  it("closes at once what is in the middle of a handshake, on both listeners", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.reply();
    await client.say("STARTTLS");
    await client.writeApart("\x16\x03\x01\x02\x00\x01");
    const implicit = await openSocket(relay.implicitTls, acmeAddress);
    implicit.write("\x16\x03\x01\x02\x00\x01");
    implicit.resume();
    await until("both are counted", () => relay.receiver.connections() === 2);
    await relay.receiver.stop();
    expect(await client.closed()).toBe("");
    if (!implicit.closed) await once(implicit, "close");
    await allGone(relay);
  });

  it("lets a message that is coming in end, and then says 421 4.3.2", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    await client.writeApart(letter);
    const stopped = relay.receiver.stop();
    await expect(relay.connect()).rejects.toThrow(/ECONNREFUSED/);
    client.write(".\r\nMAIL FROM:<a@acme.example>\r\n");
    expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
    expect(await client.reply()).toMatch(/^421 4\.3\.2 /);
    await stopped;
    expect(await relay.spooled()).toHaveLength(1);
  });

  it("gives up a message that does not end in time", async () => {
    const relay = await startRelay({ timeouts: { drainMs: 100 } });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    await client.writeApart(letter);
    await relay.receiver.stop();
    expect(await client.reply()).toMatch(/^421 4\./);
    expect(await relay.files()).toEqual([]);
  });

  it.each([
    ["plain", false],
    ["implicit TLS", true],
  ] as const)("reaches a connection that comes in at the same moment: %s", async (_name, implicitTls) => {
    const relay = await startRelay();
    const to = implicitTls ? relay.implicitTls : relay.plain;
    let stopped: Promise<void> | undefined;
    const onAccept = (message: unknown) => {
      const { socket } = message as { socket: Socket }; // what node documents for this channel
      // In the turn in which it is accepted, and before its session begins.
      if (socket.localPort === to.port) process.nextTick(() => (stopped ??= relay.receiver.stop()));
    };
    subscribe("net.server.socket", onAccept);
    onTestFinished(() => void unsubscribe("net.server.socket", onAccept));
    const socket = await openSocket(to, acmeAddress);
    let received = "";
    socket.on("data", (octets: Buffer) => (received += octets.toString()));
    if (!socket.closed) await once(socket, "close");
    await stopped;
    expect(received).toMatch(implicitTls ? /^$/ : /421 4\.3\.2 /);
    await allGone(relay);
  });

  it("may be asked for twice: the second time waits for the first, and hurries nothing", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    const stopped = [relay.receiver.stop(), relay.receiver.stop()];
    await new Promise((resolve) => setImmediate(resolve));
    client.write(`${letter}.\r\n`);
    expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
    await Promise.all(stopped);
    await relay.receiver.stop();
  });
});

describe("a client that never reads", () => {
  it("is not answered into memory without a limit, and can be told nothing more when it is to go", async () => {
    const any = parseAddressRange("any");
    if (any.kind === "fault") throw new Error(any.fault);
    const relay = await startRelay({ change: withPartner("acme", { hosts: [any] }), timeouts: { idleMs: 500 } });
    const client = await relay.connect();
    client.socket.pause();
    client.write("EHLO x\r\n".repeat(100_000));
    await relay.receiver.stop();
    await allGone(relay);
  });
});
