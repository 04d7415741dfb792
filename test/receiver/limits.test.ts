/** Each limit: its reply, its cause in the log, that it is the configured one, and that it touches nobody else. */
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { SpoolFault, type DropBox } from "../../src/spool/spool.ts";
import { acmeAddress, globexAddress, strangerAddress } from "../tools/relay-folder.ts";
import type { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { letter, until, useRelay, withLimits, withRelayLimits, type Relay, type RelayOptions } from "./support.ts";

const startRelay = useRelay();

/** A clock that stands still. */
function stopped(): () => Date {
  const now = new Date();
  return () => now;
}

/** With other limits of the relay. */
const limited = (limits: Partial<RelayConfig["limits"]>, more: RelayOptions = {}) =>
  startRelay({ change: withRelayLimits(limits), ...more });

const withTimeouts = (timeouts: Partial<RelayConfig["limits"]["timeouts"]>) => (config: RelayConfig) =>
  withRelayLimits({ timeouts: { ...config.limits.timeouts, ...timeouts } })(config);

function expectCause(relay: Relay, of: string, event = "refused"): void {
  expect(relay.log()).toContainEqual(expect.objectContaining({ event, of }));
}

const globexOf = (relay: Relay) => relay.partner(relay.certificates.globex, globexAddress);

/** Another partner is served as if nothing had happened. */
async function expectOthersServed(relay: Relay): Promise<void> {
  const globex = await globexOf(relay);
  expect(await globex.send(letter, "a@globex.example")).toMatch(/^250 2\.0\.0 /);
}

async function atData(client: SmtpDialogue): Promise<SmtpDialogue> {
  expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
  expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^250 /);
  expect(await client.say("DATA")).toMatch(/^354 /);
  return client;
}

/** One octet now and then, for as long as the test takes. */
function trickle(client: SmtpDialogue): void {
  const octets = setInterval(() => client.write("x"), 10);
  onTestFinished(() => clearInterval(octets));
}

describe("commands of a session", () => {
  it.each([
    ["as configured", { commandsMax: 5 }, 5],
    ["by default", {}, 100],
  ] as const)("without a message: after the last one 421 4.7.0, %s", async (_name, limits, commandsMax) => {
    const relay = await limited(limits);
    const client = await relay.connect();
    await client.reply();
    for (let sent = 0; sent < commandsMax; sent += 1) expect(await client.say("NOOP")).toMatch(/^250 /);
    expect(await client.say("NOOP")).toMatch(/^421 4\.7\.0 Too many commands without a message, try again later \[/);
    expect(await client.closed()).toBe("");
    expectCause(relay, "commands");
    await expectOthersServed(relay);
  });

  it.each([
    ["as configured", { badCommandsMax: 3 }, 3],
    ["by default", {}, 10],
  ] as const)("that are bad: after the last one 421 4.7.0, %s", async (_name, limits, badCommandsMax) => {
    const relay = await limited(limits);
    const client = await relay.partner();
    const bad = ["WIZ", "VRFY a", "MAIL FROM:a", "DATA x", "EHLO", "NO\x01OP", "MAIL FROM:<a@acme.example> X=1"];
    for (let sent = 0; sent < badCommandsMax; sent += 1)
      expect(await client.say(bad[sent % bad.length] ?? "WIZ")).toMatch(/^5(?:0[0-2]|55) /);
    expect(await client.say("NOOP")).toMatch(/^250 /);
    expect(await client.say("WIZ")).toMatch(/^421 4\.7\.0 Too many bad commands/);
    expect(await client.closed()).toBe("");
    expectCause(relay, "bad-commands");
    await expectOthersServed(relay);
  });

  it("that are bad are counted over messages, those in a wrong order and a message's recipients are not", async () => {
    const relay = await limited({ badCommandsMax: 1 });
    const client = await relay.partner();
    expect(await client.say("WIZ")).toMatch(/^500 /);
    expect(await client.say("DATA")).toMatch(/^503 /);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    for (let sent = 0; sent < 20; sent += 1) expect(await client.say("RCPT TO:<a..b@c>")).toMatch(/^501 5\.1\.3 /);
    expect(await client.say("RSET")).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.say("WIZ")).toMatch(/^421 4\.7\.0 /);
  });

  it.each([
    ["as configured", { commandLineBytesMax: 1048 }, 1048],
    ["by default", {}, 4096],
  ] as const)("that are too long get 421 4.5.2, %s", async (_name, limits, lineBytesMax) => {
    const relay = await limited(limits);
    const client = await relay.connect();
    await client.reply();
    expect(await client.say(`NOOP ${"x".repeat(lineBytesMax - 7)}`)).toMatch(/^250 /);
    expect(await client.say(`NOOP ${"x".repeat(lineBytesMax - 6)}`)).toMatch(/^421 4\.5\.2 Command line is too long/);
    await client.closed();
    expectCause(relay, "command-line");
  });

  it("that name refused recipients without end get 421 4.7.0", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    client.write("RCPT TO:<nobody@corp.example>\r\n".repeat(1002));
    let reply = await client.reply();
    while (reply.startsWith("550")) reply = await client.reply();
    expect(reply).toMatch(/^421 4\.7\.0 Too many refused recipients without a message/);
    expectCause(relay, "refused-recipients");
  });
});

describe("transactions of a connection", () => {
  it("that are too many get 421 4.7.0, and a new connection may go on", async () => {
    const relay = await limited({ transactionsMax: 2 });
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.say("MAIL FROM:<a@evil.example>")).toMatch(/^550 /); // none was begun
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say("RSET")).toMatch(/^250 /);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(
      /^421 4\.7\.0 Too many transactions on one connection: start a new connection \[/,
    );
    expect(await client.closed()).toBe("");
    expectCause(relay, "transactions");
    expect(await (await relay.partner()).send(letter)).toMatch(/^250 /);
  });
});

describe("the header of a message", () => {
  it.each([
    [
      "larger than configured",
      { headerBytesMax: 2000 },
      `X: ${"x".repeat(900)}\r\n`.repeat(3),
      "552 5.3.4",
      "header-size",
    ],
    ["in more lines than configured", { headerLinesMax: 10 }, "X: x\r\n".repeat(11), "552 5.3.4", "header-lines"],
    ["with more hops than configured", { hopsMax: 2 }, "Received: x\r\n".repeat(3), "554 5.4.6", "hops"],
    ["larger than by default", {}, `X: ${"x".repeat(900)}\r\n`.repeat(300), "552 5.3.4", "header-size"],
    ["in more lines than by default", {}, "X: x\r\n".repeat(10_001), "552 5.3.4", "header-lines"],
    ["with more hops than by default", {}, "Received: x\r\n".repeat(51), "554 5.4.6", "hops"],
  ])("%s is refused at the end of data, and the session goes on", async (_name, limits, header, reply, of) => {
    const relay = await limited(limits);
    const client = await atData(await relay.partner());
    client.write(`${header}${letter}.\r\n`);
    expect((await client.reply()).slice(0, 9)).toBe(reply);
    expectCause(relay, of, "message refused");
    expect(await client.send(letter)).toMatch(/^250 /);
  });

  it("within the limits passes", async () => {
    const relay = await limited({ headerBytesMax: 2000, headerLinesMax: 10, hopsMax: 2 });
    const client = await relay.partner();
    expect(await client.send(`Received: x\r\nReceived: y\r\n${letter}`)).toMatch(/^250 /);
  });
});

describe("connections", () => {
  it("that are turned away are told so up to the limit, and others are cut off unheard", async () => {
    const relay = await limited({ turnedAwayMax: 1 });
    const one = await relay.connect(strangerAddress);
    expect(await one.reply()).toMatch(/^554 5\.7\.1 /);
    const two = await relay.connect(strangerAddress);
    expect(await two.closed()).toBe("");
    expectCause(relay, "turned-away");
    await expectOthersServed(relay);
  });

  it.each([
    ["overall", withRelayLimits({ connectionsMax: 1 }), /^421 4\.7\.0 Too many connections, try/, "connections"],
    [
      "by address",
      withRelayLimits({ connectionsPerAddressMax: 1 }),
      /^421 4\.7\.0 Too many connections from your address/,
      "connections-per-address",
    ],
  ] as const)("that are too many, %s, are told which limit it is", async (_name, change, reply, of) => {
    const relay = await startRelay({ change });
    await relay.partner();
    expect(await (await relay.connect()).reply()).toMatch(reply);
    expectCause(relay, of);
  });

  it("of a partner that are too many are told so at MAIL", async () => {
    const relay = await startRelay({ change: withLimits({ connectionsMax: 1 }) });
    expect(await (await relay.partner()).say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await (await relay.partner()).say("MAIL FROM:<a@acme.example>")).toMatch(
      /^451 4\.7\.1 Too many connections of yours/,
    );
    expectCause(relay, "partner-connections");
    await expectOthersServed(relay);
  });
});

describe("TLS handshakes of an address", () => {
  it("that are too many: STARTTLS gets 454 4.7.0 before it begins, and is possible again later", async () => {
    const at = { now: new Date() };
    const relay = await limited({ handshakesPerMinute: 2 }, { now: () => at.now });
    await relay.partner();
    await relay.partner();
    const three = await relay.connect();
    await three.reply();
    await three.say("EHLO x");
    expect(await three.say("STARTTLS")).toMatch(/^454 4\.7\.0 TLS not available now: too many handshakes/);
    expect(await three.say("NOOP")).toMatch(/^250 /); // in the clear still
    expectCause(relay, "handshakes-per-minute");
    await expectOthersServed(relay);
    at.now = new Date(at.now.getTime() + 31_000);
    expect(await three.say("STARTTLS")).toMatch(/^220 /);
    await three.secure(relay.certificates.acme);
    await three.say("EHLO x");
    expect(await three.send(letter)).toMatch(/^250 /);
  });

  it("that are too many behind implicit TLS find the connection closed, and both listeners count together", async () => {
    const relay = await limited({ handshakesPerMinute: 2 });
    await relay.connectTls(acmeAddress, relay.certificates.acme);
    await relay.partner();
    await expect(relay.connectTls(acmeAddress, relay.certificates.acme)).rejects.toThrow();
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ event: "refused", of: "handshakes-per-minute", before: "handshake" }),
    );
    await until("its place is free", () => relay.receiver.connections() === 2);
    await relay.connectTls(globexAddress, relay.certificates.globex);
  });

  it("are 600 in a minute by default", async () => {
    const relay = await startRelay({ now: stopped() });
    const asked = async () => {
      const client = await relay.connect();
      await client.reply();
      const reply = await client.say("STARTTLS");
      client.close();
      return reply.slice(0, 3);
    };
    for (let count = 0; count < 600; count += 1) expect(await asked()).toBe("220");
    expect(await asked()).toBe("454");
  });
});

describe("a client that takes its time", () => {
  it("and sends nothing is told so when it is idle for longer than configured", async () => {
    const relay = await startRelay({ change: withTimeouts({ idleMs: 100 }) });
    const client = await relay.connect();
    await client.reply();
    expect(await client.reply()).toMatch(/^421 4\.4\.2 Timeout, nothing came for too long/);
    await client.closed();
    expectCause(relay, "timeouts.idle");
  });

  it("and sends one octet of a command now and then is held to the session's time", async () => {
    const relay = await startRelay({ change: withTimeouts({ sessionMs: 200 }) });
    const client = await relay.partner();
    trickle(client);
    expect(await client.reply()).toMatch(/^421 4\.4\.2 Timeout, the session took too long: start a new connection/);
    await client.closed();
    expectCause(relay, "timeouts.session");
    await until("nothing is held", () => relay.receiver.connections() === 0);
  });

  it("and sends one octet of a message now and then is held to the message's time, and holds nothing then", async () => {
    const change = (config: RelayConfig) =>
      withTimeouts({ messageMs: 100 })(withLimits({ messageBytesMax: 1000 })(config));
    const relay = await startRelay({ change });
    const client = await atData(await relay.partner());
    trickle(client);
    expect(await client.reply()).toMatch(/^421 4\.4\.2 Timeout, the message took too long/);
    await client.closed();
    expectCause(relay, "timeouts.message");
    await until("nothing is held", () => relay.receiver.connections() === 0);
    expect(await relay.files()).toEqual([]);
  });

  it.each([
    ["STARTTLS", false],
    ["implicit TLS", true],
  ] as const)("in its handshake is held to the handshake's time, whatever it sends: %s", async (_name, implicit) => {
    const relay = await startRelay({ change: withTimeouts({ handshakeMs: 100 }) });
    const to = implicit ? relay.implicitTls : relay.plain;
    const socket = connect({ host: to.address, port: to.port, localAddress: acmeAddress });
    onTestFinished(() => void socket.destroy());
    socket.on("error", () => undefined);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.resume();
    await once(socket, "connect");
    if (!implicit) {
      socket.write("EHLO x\r\nSTARTTLS\r\n");
      await until("it has its answer", () => socket.bytesRead > 0);
    }
    const hello = Buffer.from("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "latin1");
    await until("STARTTLS is taken", () => implicit || socket.bytesRead > 150);
    let sent = 0;
    const octets = setInterval(() => socket.write(hello.subarray(sent, (sent += 1))), 10);
    onTestFinished(() => clearInterval(octets));
    await closed;
    expectCause(relay, "timeouts.handshake", "connection failed");
    await until("nothing is held", () => relay.receiver.connections() === 0);
  });
});

describe("a reload", () => {
  it("changes the limits of new sessions", async () => {
    const relay = await startRelay();
    const before = await relay.connect();
    await before.reply();
    const change = (config: RelayConfig) =>
      withTimeouts({ idleMs: 100 })(withRelayLimits({ commandLineBytesMax: 2000 })(config));
    await relay.receiver.reload({ ...change(relay.config), listen: relay.config.listen });
    const after = await relay.connect();
    await after.reply();
    expect(await after.reply()).toMatch(/^421 4\.4\.2 /);
    expect(await before.say(`NOOP ${"x".repeat(3000)}`)).toMatch(/^250 /);
    const long = await relay.connect();
    await long.reply();
    expect(await long.say(`NOOP ${"x".repeat(3000)}`)).toMatch(/^421 4\.5\.2 /);
  });

  it("gives a partner no fresh rate", async () => {
    const relay = await startRelay({ change: withLimits({ messagesPerDay: 1 }), now: stopped() });
    expect(await (await relay.partner()).send(letter)).toMatch(/^250 /);
    await relay.receiver.reload(withLimits({ messagesPerDay: 2 })(relay.config));
    expect(await (await relay.partner()).say("MAIL FROM:<a@acme.example>")).toMatch(/^451 4\.7\.1 /);
  });
});

const minuteMs = 60_000;
const dayMs = 86_400_000;
/** In octets, as they count. */
const letterBytes = Buffer.byteLength(letter);

describe("what a partner sends", () => {
  it.each<[string, Partial<Partner["limits"]>, RegExp, string, number]>([
    [
      "messages in a minute",
      { messagesPerMinute: 2 },
      /^451 4\.7\.1 Too many messages, try/,
      "messages-per-minute",
      minuteMs,
    ],
    ["messages in a day", { messagesPerDay: 2 }, /^451 4\.7\.1 Too many messages in a day/, "messages-per-day", dayMs],
    [
      "octets in a minute",
      { bytesPerMinute: 2 * letterBytes },
      /^451 4\.7\.1 Too many bytes in a minute/,
      "bytes-per-minute",
      minuteMs,
    ],
    [
      "octets in a day",
      { bytesPerDay: 2 * letterBytes },
      /^451 4\.7\.1 Too many bytes in a day/,
      "bytes-per-day",
      dayMs,
    ],
    [
      "recipients in a minute",
      { recipientsPerMinute: 2 },
      /^451 4\.7\.1 Too many recipients in a minute/,
      "recipients-per-minute",
      minuteMs,
    ],
    [
      "recipients in a day",
      { recipientsPerDay: 2 },
      /^451 4\.7\.1 Too many recipients in a day/,
      "recipients-per-day",
      dayMs,
    ],
  ])("is limited by %s, on all connections together, until it refills, and others go on", async (...row) => {
    const [, limits, reply, of, periodMs] = row;
    const at = { now: new Date() };
    const relay = await startRelay({ now: () => at.now, change: withLimits(limits) });
    const [one, two] = [await relay.partner(), await relay.partner()];
    expect(await one.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await two.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await one.send(letter)).toMatch(reply);
    expectCause(relay, of);
    await expectOthersServed(relay);
    await one.say("RSET");
    at.now = new Date(at.now.getTime() + periodMs / 2 - 1000);
    expect(await one.send(letter)).toMatch(reply);
    await one.say("RSET");
    at.now = new Date(at.now.getTime() + periodMs);
    expect(await one.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await relay.spooled()).toHaveLength(4);
  });

  it("is refused at MAIL if its declared size has no room in the rate, and at the end of data if it declares none", async () => {
    const limits = { bytesPerMinute: 10_000 };
    const relay = await startRelay({ change: withLimits(limits), now: stopped() });
    const client = await relay.partner();
    expect(await client.send(`${letter}${"x".repeat(70)}\r\n`)).toMatch(/^250 /);
    expect(await client.say("MAIL FROM:<a@acme.example> SIZE=9990")).toMatch(/^451 4\.7\.1 Too many bytes in a minute/);
    const large = `${letter}${`${"x".repeat(70)}\r\n`.repeat(138)}`;
    expect(await client.send(large)).toMatch(/^451 4\.7\.1 Too many bytes in a minute/);
    expectCause(relay, "bytes-per-minute", "message refused");
    expect(await client.send(letter, "a@acme.example", ["orders@corp.example"], " SIZE=100")).toMatch(/^250 /);
    await until("the refused one is gone", async () => (await relay.files()).length <= 2);
    expect(await relay.spooled()).toHaveLength(2);
  });

  it("may be one message that is larger than a minute's worth, and then waits for it", async () => {
    const at = { now: new Date() };
    const relay = await startRelay({ change: withLimits({ bytesPerMinute: letterBytes / 4 }), now: () => at.now });
    const client = await relay.partner();
    const parameters = ` SIZE=${letterBytes}`;
    const send = () => client.send(letter, "a@acme.example", ["orders@corp.example"], parameters);
    expect(await send()).toMatch(/^250 /);
    at.now = new Date(at.now.getTime() + 3 * minuteMs);
    expect(await send()).toMatch(/^451 /);
    at.now = new Date(at.now.getTime() + minuteMs);
    expect(await send()).toMatch(/^250 /);
  });

  it("is not counted by its size if the spool does not take it", async () => {
    const dropBox: DropBox = {
      receive: () => ({
        id: "0mwu62vcbeujfwm1ta",
        write: () => undefined,
        commit: () => Promise.reject(new SpoolFault("io", "the disk is gone")),
        discard: () => Promise.resolve(),
      }),
      close: () => Promise.resolve(),
    };
    const relay = await startRelay({ change: withLimits({ bytesPerDay: letterBytes }), now: stopped(), dropBox });
    const client = await relay.partner();
    for (let time = 0; time < 3; time += 1) expect(await client.send(letter)).toMatch(/^451 4\.3\.0 /);
  });

  it("is not counted by its size if it is refused for another reason", async () => {
    const relay = await startRelay({
      change: (config) => withLimits({ bytesPerDay: letterBytes })(withRelayLimits({ hopsMax: 1 })(config)),
      now: stopped(),
    });
    const client = await relay.partner();
    expect(await client.send(`Received: x\r\nReceived: y\r\n${letter}`)).toMatch(/^554 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^451 /);
  });

  it("to recipients that are refused or named twice is not counted, and others of the message are served", async () => {
    const relay = await startRelay({ change: withLimits({ recipientsPerDay: 2 }), now: stopped() });
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say("RCPT TO:<nobody@corp.example>")).toMatch(/^550 /);
    for (const name of ["a", "a", "b"]) expect(await client.say(`RCPT TO:<${name}@edi.corp.example>`)).toMatch(/^250 /);
    expect(await client.say("RCPT TO:<c@edi.corp.example>")).toMatch(/^451 4\.7\.1 /);
    await client.say("DATA");
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
    expect((await relay.spooled())[0]?.meta.envelope.recipients).toHaveLength(2);
  });

  it("has no limit but that of a minute by default", async () => {
    const relay = await startRelay();
    const [acme] = relay.config.partners;
    expect(acme?.limits).toMatchObject({ messagesPerMinute: 600, recipientsMax: 100, connectionsMax: 10 });
    const { messagesPerDay, bytesPerMinute, bytesPerDay, recipientsPerMinute, recipientsPerDay } = acme?.limits ?? {};
    expect([messagesPerDay, bytesPerMinute, bytesPerDay, recipientsPerMinute, recipientsPerDay]).toEqual(
      Array.from({ length: 5 }, () => undefined),
    );
  });
});

describe("a restart", () => {
  async function lives() {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-rates-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const at = { now: new Date() };
    const change = (config: RelayConfig) => ({
      ...withLimits({ messagesPerDay: 2, recipientsPerDay: 5, bytesPerDay: 100_000 })(config),
      spool: { ...config.spool, path },
    });
    const start = (more: RelayOptions = {}) => startRelay({ change, now: () => at.now, ...more });
    return { at, start, file: join(path, "rates.json") };
  }
  const isAllowed = async (relay: Relay) => {
    const reply = await (await relay.partner()).say("MAIL FROM:<a@acme.example>");
    return reply.startsWith("250") ? "yes" : reply.startsWith("451 4.7.1") ? "no" : reply;
  };

  it("keeps the day's quota of a partner, and what has refilled meanwhile; another's is its own", async () => {
    const { at, start, file } = await lives();
    const first = await start();
    const client = await first.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    await first.receiver.stop();
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const second = await start();
    expect(await isAllowed(second)).toBe("no");
    await expectOthersServed(second);
    await second.receiver.stop();
    at.now = new Date(at.now.getTime() + dayMs / 2 + 1000);
    const third = await start();
    expect(await isAllowed(third)).toBe("yes");
    expect(await isAllowed(third)).toBe("no");
  });

  it("after a crash knows what was written down before, which is done soon after it was counted", async () => {
    const { start, file } = await lives();
    const first = await start({ rates: { intervalMs: 10 } });
    const client = await first.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    await until("it is written", async () =>
      (await readFile(file, "utf8").catch(() => "")).includes('"messages-per-day":{"tokens":0,'),
    );
    const text = await readFile(file, "utf8");
    await first.receiver.stop();
    await writeFile(file, text); // as it was when the receiver died
    expect(await isAllowed(await start())).toBe("no");
  });

  it.each<[string, (text: string, now: Date) => string]>([
    ["is cut off", (text) => text.slice(0, -20)],
    ["is empty", () => ""],
    ["is of another version", (text) => text.replace('"version":1', '"version":2')],
    ["has no numbers", (text) => text.replaceAll(/"tokens":-?[\d.]+/g, '"tokens":"x"')],
    [
      "comes from the future",
      (_text, now) => JSON.stringify({ version: 1, writtenAtMs: now.getTime() + 120_000, partners: {} }),
    ],
  ])("forgets what stands in a file that %s, says so, and goes on", async (_name, spoil) => {
    const { at, start, file } = await lives();
    const first = await start();
    const client = await first.partner();
    expect(await client.send(letter)).toMatch(/^250 /);
    expect(await client.send(letter)).toMatch(/^250 /);
    await first.receiver.stop();
    await writeFile(file, spoil(await readFile(file, "utf8"), at.now));
    const second = await start();
    expect(second.log()).toContainEqual(expect.objectContaining({ level: "warn", event: "rates forgotten", file }));
    expect(await isAllowed(second)).toBe("yes");
  });

  it("remembers nothing of partners that are none any more", async () => {
    const { start, file } = await lives();
    const first = await start();
    expect(await (await first.partner()).send(letter)).toMatch(/^250 /);
    await first.receiver.stop();
    await writeFile(file, (await readFile(file, "utf8")).replace('"acme":', '"former":'));
    const second = await start();
    await expectOthersServed(second);
    await second.receiver.stop();
    const text = await readFile(file, "utf8");
    expect(text).toContain('"globex"');
    expect(text).not.toContain("former");
  });

  it("is not needed where the disk refuses the file: mail goes on, and the log tells of it", async () => {
    const { start } = await lives();
    const relay = await start({ rates: { intervalMs: 5, write: () => Promise.reject(new Error("no room")) } });
    expect(await (await relay.partner()).send(letter)).toMatch(/^250 /);
    await until("it is told", () =>
      relay.log().some(({ event, during }) => event === "fault" && during === "writing down what partners have sent"),
    );
    expect(await (await relay.partner()).send(letter)).toMatch(/^250 /);
  });
});
