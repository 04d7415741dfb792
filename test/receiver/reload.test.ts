import { X509Certificate } from "node:crypto";
import { copyFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { describe, expect, it, onTestFinished } from "vitest";
import type { ListenAddress, RelayConfig } from "../../src/config/relay-config.ts";
import { spkiDigest } from "../../src/partner/pin.ts";
import { acmeAddress, globexAddress, relayAddress } from "../tools/relay-folder.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";
import { useRelay, withLimits, withPartner, type Relay } from "./support.ts";

const relayWith = useRelay();

const renamed = (version: string, config: RelayConfig): RelayConfig => ({ ...config, version });

/** The configuration without acme's pin. */
const withoutPin = (config: RelayConfig): RelayConfig => renamed("without", withPartner("acme", { pins: [] })(config));

async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10)); // files are looked at by the clock
  }
  throw new Error(`${holds.toString()} did not come true`);
}

async function freePort(address: string = relayAddress): Promise<number> {
  const server = createServer().listen(0, address);
  await new Promise((resolve) => server.once("listening", resolve));
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof bound === "object" && bound !== null ? bound.port : 0;
}

async function answers(address: string, port: number): Promise<boolean> {
  try {
    const client = await SmtpDialogue.open({ address, port }, acmeAddress);
    const greeting = await client.reply();
    client.close();
    return greeting.startsWith("220");
  } catch {
    return false;
  }
}

describe("a session that lives through a reload", () => {
  it("is refused at its next MAIL if its pin has gone, and another partner's goes on", async () => {
    const relay = await relayWith();
    const acme = await relay.partner();
    const globex = await relay.partner(relay.certificates.globex, globexAddress);
    expect(await acme.send("x\r\n")).toMatch(/^250 2\.0\.0/);
    await globex.say("MAIL FROM:<g@globex.example>");
    await relay.receiver.reload(withoutPin(relay.config));
    expect(await acme.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0/);
    expect(await globex.say("RCPT TO:<orders@corp.example>")).toMatch(/^250/);
    expect(await globex.say("DATA")).toMatch(/^354/);
    globex.write("x\r\n");
    expect(await globex.say(".")).toMatch(/^250 2\.0\.0/);
  });

  it("is refused at its next MAIL if its partner has gone", async () => {
    const relay = await relayWith();
    const acme = await relay.partner();
    const partners = relay.config.partners.filter(({ name }) => name !== "acme");
    await relay.receiver.reload({ ...relay.config, version: "gone", partners });
    expect(await acme.say("MAIL FROM:<a@acme.example>")).toMatch(/^[45]5\d /);
  });

  it("ends a message under the policy that its MAIL was accepted under, and its record says so", async () => {
    const relay = await relayWith();
    const acme = await relay.partner();
    await acme.say("MAIL FROM:<a@acme.example>");
    await relay.receiver.reload(
      renamed("new", withPartner("acme", { allow: { from: [], to: [] } })({ ...relay.config, routes: [] })),
    );
    expect(await acme.say("RCPT TO:<orders@corp.example>")).toMatch(/^250/);
    expect(await acme.say("DATA")).toMatch(/^354/);
    acme.write("x\r\n");
    expect(await acme.say(".")).toMatch(/^250 2\.0\.0/);
    const received = relay.log().find(({ event, policy }) => event !== "reloaded" && typeof policy === "string");
    expect(received).toMatchObject({ policy: relay.config.version.slice(0, 12) });
    expect(await acme.say("MAIL FROM:<a@acme.example>")).toMatch(/^550 5\.7\.1/);
  });

  it("gains no fresh rate", async () => {
    const relay = await relayWith({ change: withLimits({ messagesPerMinute: 2 }) });
    const acme = await relay.partner();
    expect(await acme.send("x\r\n")).toMatch(/^250/);
    expect(await acme.send("x\r\n")).toMatch(/^250/);
    expect(await acme.send("x\r\n")).toMatch(/^451 4\.7\.1/);
    await relay.receiver.reload(renamed("same", relay.config));
    expect(await acme.send("x\r\n")).toMatch(/^451 4\.7\.1/);
    await relay.receiver.reload(renamed("more", withLimits({ messagesPerMinute: 5 })(relay.config)));
    expect(await acme.send("x\r\n")).toMatch(/^451 4\.7\.1/);
  });
});

describe("listeners", () => {
  async function relayOn(...listen: readonly ListenAddress[]): Promise<Relay> {
    const other = { address: relayAddress, port: 0, implicitTls: true };
    return relayWith({ change: (config) => ({ ...config, listen: [...listen, other] }) });
  }
  const at = (port: number, address: string = relayAddress): ListenAddress => ({ address, port, implicitTls: false });
  const listening = (config: RelayConfig, ...listen: readonly ListenAddress[]): RelayConfig => ({
    ...config,
    version: "listen",
    listen: [...listen, ...config.listen.slice(-1)],
  });

  it("that are new are there after the reload, those that stay are not touched, those that are gone do not answer", async () => {
    const [one, two] = [await freePort(), await freePort()];
    const relay = await relayOn(at(one));
    const implicit = relay.implicitTls.port;
    const live = await relay.connectTls(acmeAddress, relay.certificates.acme);
    await live.reply();
    await relay.receiver.reload(listening(relay.config, at(two)));
    expect(relay.receiver.addresses.map(({ port }) => port)).toEqual([two, implicit]);
    expect([await answers(relayAddress, one), await answers(relayAddress, two)]).toEqual([false, true]);
    expect(await live.say("EHLO mx.acme.example")).toMatch(/^250/);
  });

  it("that are gone let a message that is coming in end, and then say 421", async () => {
    const [one, two] = [await freePort(), await freePort()];
    const relay = await relayOn(at(one));
    const sending = await relay.partner();
    await sending.say("MAIL FROM:<a@acme.example>");
    await sending.say("RCPT TO:<orders@corp.example>");
    await sending.say("DATA");
    const idle = await relay.partner();
    await relay.receiver.reload(listening(relay.config, at(two)));
    expect(await idle.reply()).toMatch(/^421 /);
    sending.write("x\r\n");
    expect(await sending.say(".")).toMatch(/^250 2\.0\.0/);
    expect(await sending.reply()).toMatch(/^421 /);
  });

  it("change nothing where one of them cannot be had, the policy neither", async () => {
    const [one, two] = [await freePort(), await freePort()];
    const taken = createServer().listen(0, relayAddress);
    onTestFinished(() => void taken.close());
    await new Promise((resolve) => taken.once("listening", resolve));
    const bound = taken.address();
    const relay = await relayOn(at(one));
    const acme = await relay.partner();
    const wanted = [at(two), at(typeof bound === "object" && bound !== null ? bound.port : 0)];
    await expect(relay.receiver.reload(withoutPin(listening(relay.config, ...wanted)))).rejects.toThrow("EADDRINUSE");
    expect(relay.receiver.policy).toBe(relay.config.version);
    expect([await answers(relayAddress, one), await answers(relayAddress, two)]).toEqual([true, false]);
    expect(await acme.send("x\r\n")).toMatch(/^250 2\.0\.0/);
  });

  it("take the place of one that is in their way: a single address, and every address, of the same port", async () => {
    const port = await freePort("0.0.0.0");
    const relay = await relayOn(at(port, "0.0.0.0"));
    await relay.receiver.reload(listening(relay.config, at(port, "127.0.0.3")));
    expect([await answers("127.0.0.3", port), await answers(relayAddress, port)]).toEqual([true, false]);
    await relay.receiver.reload(listening(relay.config, at(port, "0.0.0.0")));
    expect([await answers("127.0.0.3", port), await answers(relayAddress, port)]).toEqual([true, true]);
  });

  it("in whose way another was are back where the rest cannot be had", async () => {
    const port = await freePort("0.0.0.0");
    const taken = createServer().listen(0, "127.0.0.3");
    onTestFinished(() => void taken.close());
    await new Promise((resolve) => taken.once("listening", resolve));
    const bound = taken.address();
    const relay = await relayOn(at(port, "0.0.0.0"));
    const wanted = [
      at(port, "127.0.0.3"),
      at(typeof bound === "object" && bound !== null ? bound.port : 0, "127.0.0.3"),
    ];
    await expect(relay.receiver.reload(listening(relay.config, ...wanted))).rejects.toThrow("EADDRINUSE");
    expect([await answers("127.0.0.3", port), await answers(relayAddress, port)]).toEqual([true, true]);
  });
});

describe("the server's certificate", () => {
  /** A relay whose certificate is in files of its own, which are looked at often. */
  async function renewable() {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-certificate-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const files = { certificateFile: join(path, "server.pem"), keyFile: join(path, "server.key") };
    let original = { certificateFile: "", keyFile: "" };
    const loaded = await relayWith({ change: (config) => ((original = config.tls), config) });
    await copyFile(original.certificateFile, files.certificateFile);
    await copyFile(original.keyFile, files.keyFile);
    const relay = await relayWith({
      change: (config) => ({ ...config, tls: { ...config.tls, ...files } }),
      certificatePollMs: 20,
    });
    const replace = async (file: string, text: string): Promise<void> => {
      await writeFile(`${file}.new`, text);
      await rename(`${file}.new`, file);
    };
    return { relay, files, replace, other: loaded.certificates.inside, old: loaded.certificates.server };
  }

  const pinOf = ({ cert }: ClientCertificate): string => spkiDigest(new X509Certificate(cert));

  async function shownTo(socket: Socket): Promise<string> {
    const secured = connectTls({ socket, rejectUnauthorized: false });
    await once(secured, "secureConnect");
    const certificate = secured.getPeerX509Certificate();
    secured.destroy();
    if (certificate === undefined) throw new Error("no certificate was shown");
    return spkiDigest(certificate);
  }

  const shownOn = ({ implicitTls: { address, port } }: Relay): Promise<string> =>
    shownTo(connect({ host: address, port, localAddress: acmeAddress }));

  async function shownAfterStartTls({ plain }: Relay): Promise<string> {
    const socket = connect({ host: plain.address, port: plain.port, localAddress: acmeAddress });
    onTestFinished(() => void socket.destroy());
    for (const command of ["EHLO mx.acme.example", "STARTTLS"]) {
      await once(socket, "data"); // each reply comes in one piece
      socket.write(`${command}\r\n`);
    }
    await once(socket, "data");
    return shownTo(socket);
  }

  const events = (relay: Relay, name: string) => relay.log().filter(({ event }) => event === name);

  it("is taken when its files change: new handshakes show it, and live sessions go on", async () => {
    const { relay, files, replace, other, old } = await renewable();
    const live = await relay.partner();
    expect(await shownOn(relay)).toBe(pinOf(old));
    await replace(files.certificateFile, other.cert);
    await replace(files.keyFile, other.key);
    await eventually(() => events(relay, "server certificate renewed").length === 1);
    expect(await shownOn(relay)).toBe(pinOf(other));
    expect(await live.send("x\r\n")).toMatch(/^250 2\.0\.0/);
    const fresh = await relay.partner();
    expect(await fresh.send("x\r\n")).toMatch(/^250 2\.0\.0/);
    expect(events(relay, "server certificate renewed")).toMatchObject([
      { pin: pinOf(other), pinBefore: pinOf(old), note: expect.stringContaining("pinned the old one") },
    ]);
    expect(await shownAfterStartTls(relay)).toBe(pinOf(other));
  });

  it("stays while only one half of the pair has been replaced, which is said once", async () => {
    const { relay, files, replace, other, old } = await renewable();
    await replace(files.certificateFile, other.cert);
    await eventually(() => events(relay, "server certificate not usable").length > 0);
    await new Promise((resolve) => setTimeout(resolve, 150)); // several looks
    expect(await shownOn(relay)).toBe(pinOf(old));
    expect(events(relay, "server certificate not usable")).toMatchObject([
      { error: expect.stringContaining("is not the key of"), kept: pinOf(old) },
    ]);
    await replace(files.keyFile, other.key);
    await eventually(() => events(relay, "server certificate renewed").length === 1);
    expect(await shownOn(relay)).toBe(pinOf(other));
  });

  it.each([
    ["garbage", "certificateFile", "no certificate at all"],
    ["nothing", "certificateFile", ""],
    ["garbage for a key", "keyFile", "no key at all"],
    ["no file", "keyFile", undefined],
  ] as const)("stays where there is %s", async (_what, name, text) => {
    const { relay, files, replace, old } = await renewable();
    if (text === undefined) await rm(files[name]);
    else await replace(files[name], text);
    await eventually(() => events(relay, "server certificate not usable").length > 0);
    expect(await shownOn(relay)).toBe(pinOf(old));
    expect(await (await relay.partner()).send("x\r\n")).toMatch(/^250 2\.0\.0/);
    expect(events(relay, "server certificate not usable")).toHaveLength(1);
  });

  it("is not spoken of where only the time of a file is another", async () => {
    const { relay, files, replace, old } = await renewable();
    await replace(files.certificateFile, old.cert);
    await new Promise((resolve) => setTimeout(resolve, 150)); // several looks
    expect(relay.log().filter(({ event }) => String(event).startsWith("server certificate"))).toEqual([]);
  });

  it("moves to other files by a reload; a pair that does not fit is refused, and nothing changes", async () => {
    const { relay, files, replace, other, old } = await renewable();
    const moved = { certificateFile: `${files.certificateFile}.moved`, keyFile: `${files.keyFile}.moved` };
    const config = { ...relay.config, version: "moved", tls: { ...relay.config.tls, ...moved } };
    await replace(moved.certificateFile, other.cert);
    await replace(moved.keyFile, old.key);
    await expect(relay.receiver.reload(config)).rejects.toThrow("is not the key of");
    expect(relay.receiver.policy).toBe(relay.config.version);
    await replace(moved.keyFile, other.key);
    await relay.receiver.reload(config);
    expect(await shownOn(relay)).toBe(pinOf(other));
    await replace(moved.certificateFile, old.cert);
    await replace(moved.keyFile, old.key);
    await eventually(() => events(relay, "server certificate renewed").length === 2);
    expect(await shownOn(relay)).toBe(pinOf(old));
  });

  it("of the configuration serves where the file is no good when the receiver starts", async () => {
    const { files, replace, old } = await renewable();
    await replace(files.certificateFile, "half a certif");
    const again = await relayWith({ change: (config) => ({ ...config, tls: { ...config.tls, ...files } }) });
    expect(await shownOn(again)).toBe(pinOf(old));
    expect(events(again, "server certificate not usable")).toHaveLength(1);
  });
});
