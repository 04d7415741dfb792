import { createServer } from "node:net";
import { chmod, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { spawn } from "node:child_process";
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { nextSnapshotFile, snapshotFile } from "../../src/supervisor/state.ts";
import { startScriptedHop, type ScriptedHop } from "../tools/scripted-hop.ts";
import { acmeAddress, globexAddress, makeRelayFolder, relayAddress, type RelayFolder } from "../tools/relay-folder.ts";
import { runPinrelay, startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { SmtpDialogue } from "../tools/smtp-dialogue.ts";

let folder: RelayFolder;
let hop: ScriptedHop;
let relay: RelayProcess | undefined;

beforeEach(async () => {
  folder = await makeRelayFolder();
  hop = await startScriptedHop({ ...folder.certificates.inside, address: "127.0.0.21" });
  await edit(folder.configFile, "port: 9,", `port: ${hop.port},`);
});

afterEach(async () => {
  if (relay?.child.exitCode === null && relay.child.signalCode === null) await relay.stop();
  relay = undefined;
  await hop.close();
  await folder.remove();
});

const spool = (): string => join(folder.path, "spool");
const partnerFile = (name: string): string => join(folder.path, "config", "partners", `${name}.yaml`);

async function start(): Promise<RelayProcess> {
  relay = await startRelayProcess(folder.configFile, spool());
  return relay;
}

async function edit(file: string, from: string | RegExp, to: string): Promise<void> {
  const text = await readFile(file, "utf8");
  const edited = text.replace(from, to);
  expect(edited).not.toBe(text);
  await writeFile(file, edited);
}

const reload = (...more: string[]) => runPinrelay("reload", "--config", folder.configFile, ...more);

async function client(running: RelayProcess, name: "acme" | "globex" = "acme"): Promise<SmtpDialogue> {
  const from = name === "acme" ? acmeAddress : globexAddress;
  const dialogue = await SmtpDialogue.open({ address: relayAddress, port: running.ports[0] ?? 0 }, from);
  onTestFinished(() => dialogue.close());
  await dialogue.begin(folder.certificates[name], `mx.${name}.example`);
  return dialogue;
}

async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50)); // of another process there is no event to wait for
  }
  throw new Error(`${holds.toString()} did not come true`);
}

async function compartment(running: RelayProcess, name: string) {
  const found = (await running.state())?.compartments.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no ${name}`);
  return found;
}

/** Both run, and by the same configuration, which is the one in force. */
async function isOfOneMind(running: RelayProcess): Promise<boolean> {
  const state = await running.state();
  return state?.compartments.every(({ ready, policy }) => ready && policy === state.policy) === true;
}

describe("pinrelay reload", () => {
  it("takes a new partner's rules into force, says what changed, and status tells of it", async () => {
    const running = await start();
    const session = await client(running);
    expect(await session.send("x\r\n", "a@acme.example", ["invoices@corp.example"])).toMatch(/^550 5\.7\.1/);
    await edit(partnerFile("acme"), "to: [", "to: [invoices@corp.example, ");
    const before = await runPinrelay("status", "--config", folder.configFile);
    expect(before.text).toContain("the files differ from what runs: pinrelay reload");
    const { status, text } = await reload();
    expect({ status, text }).toMatchObject({
      status: 0,
      text: expect.stringMatching(/in force: partner changed: acme\n$/),
    });
    await session.say("RSET");
    expect(await session.send("x\r\n", "a@acme.example", ["invoices@corp.example"])).toMatch(/^250 2\.0\.0 Queued/);
    const after = await runPinrelay("status", "--config", folder.configFile);
    expect(after.text).toMatch(/last reload: .*partner changed: acme/);
    expect(after.text).not.toContain("differ");
    expect(await isOfOneMind(running)).toBe(true);
  });

  it("says so when nothing has changed, a renewed server certificate among that", async () => {
    await start();
    expect(await reload()).toMatchObject({ status: 0, text: expect.stringContaining("nothing has changed") });
    const json: unknown = JSON.parse((await reload("--json")).text);
    expect(json).toMatchObject({ kind: "reloaded", changes: [] });
  });

  it("keeps the old configuration where a file is invalid, and says why, with file and line", async () => {
    const running = await start();
    const policy = (await running.state())?.policy;
    await edit(partnerFile("acme"), "allow:", "alow:");
    await edit(partnerFile("globex"), "hosts: [", "hosts: [nonsense, ");
    const { status, text } = await reload();
    expect(status).toBe(1);
    expect(text).toMatch(/partners\/acme\.yaml:3: error: .*alow/);
    expect(text).toMatch(/partners\/globex\.yaml:1: error: hosts/);
    expect(text).toContain("the relay keeps its old configuration");
    expect((await running.state())?.policy).toBe(policy);
    const problems = running.log().flatMap(({ event, problem }) => (event === "reload refused" ? [problem] : []));
    expect(problems).toEqual(
      expect.arrayContaining([expect.stringMatching(/acme\.yaml:3/), expect.stringMatching(/globex\.yaml:1/)]),
    );
    const told = await runPinrelay("status", "--config", folder.configFile);
    expect(told.text).toMatch(/last reload: .*refused/);
    expect(await (await client(running)).send("x\r\n")).toMatch(/^250 2\.0\.0 Queued/);
  });

  it("says what check would find wrong with what it takes", async () => {
    await start();
    await chmod(join(folder.path, "certs", "server.key"), 0o644);
    await edit(partnerFile("acme"), "to: [", "to: [invoices@corp.example, ");
    const { status, text } = await reload();
    expect({ status, text }).toMatchObject({
      status: 0,
      text: expect.stringMatching(/error: tls\.key: .*server\.key/),
    });
  });

  it("lets a revocation be written while another partner's file is invalid, and says loudly that it does not count yet", async () => {
    const running = await start();
    const session = await client(running);
    await edit(partnerFile("globex"), "hosts:", "host:");
    const args = ["--config", folder.configFile, "--all", "--reason", "key lost", "--yes"];
    const revoked = await runPinrelay("partner", "revoke", "acme", ...args);
    expect(revoked.status).toBe(1);
    expect(revoked.text).toContain("MAIL OF acme STILL PASSES until pinrelay reload succeeds");
    expect(revoked.text).toMatch(/globex\.yaml:1: error: host/);
    expect(await readFile(partnerFile("acme"), "utf8")).toContain("state: revoked");
    expect(await session.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    await edit(partnerFile("globex"), "host:", "hosts:");
    expect((await reload()).status).toBe(0);
    await session.say("RSET");
    expect(await session.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 Client certificate was revoked/);
  });

  it("refuses what a running relay cannot change, and tells to restart it", async () => {
    await start();
    await edit(folder.configFile, "hostname: mx.corp.example", "hostname: mx2.corp.example");
    const { status, text } = await reload();
    expect(status).toBe(1);
    expect(text).toMatch(/relay\.yaml:1: error: hostname: .*restart the relay/);
  });

  it("changes nothing anywhere where a new address cannot be had", async () => {
    const other = createServer().listen(0, relayAddress);
    onTestFinished(() => void other.close());
    await new Promise((resolve) => other.once("listening", resolve));
    const bound = other.address();
    const port = typeof bound === "object" ? bound?.port : undefined;
    const running = await start();
    const policy = (await running.state())?.policy;
    await edit(folder.configFile, "listen:", `listen:\n  - { address: ${relayAddress}, port: ${port} }`);
    await edit(partnerFile("acme"), "to: [", "to: [invoices@corp.example, ");
    const { status, text } = await reload();
    expect(status).toBe(1);
    expect(text).toContain("EADDRINUSE");
    expect((await running.state())?.policy).toBe(policy);
    expect(await isOfOneMind(running)).toBe(true);
    await expect(stat(nextSnapshotFile(spool()))).rejects.toThrow("ENOENT");
    const session = await client(running);
    expect(await session.send("x\r\n", "a@acme.example", ["invoices@corp.example"])).toMatch(/^550 5\.7\.1/);
  });

  it("says that no relay runs", async () => {
    expect(await reload()).toMatchObject({ status: 1, text: expect.stringContaining("no relay runs on") });
  });
});

describe("a revoked pin", () => {
  it("is refused at the next MAIL of a live session; a message that is coming in and another partner go on", async () => {
    const running = await start();
    const [live, sending, other] = [await client(running), await client(running), await client(running, "globex")];
    expect(await live.send("before\r\n")).toMatch(/^250 2\.0\.0 Queued/);
    await sending.say("MAIL FROM:<a@acme.example>");
    await sending.say("RCPT TO:<orders@corp.example>");
    await sending.say("DATA");
    sending.write("half of it\r\n");
    await other.say("MAIL FROM:<g@globex.example>");

    await edit(partnerFile("acme"), " }]", ", state: revoked }]");
    expect(await reload()).toMatchObject({ status: 0 });

    expect(await live.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0/);
    sending.write("the other half\r\n");
    expect(await sending.say(".")).toMatch(/^250 2\.0\.0 Queued/);
    expect(await sending.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0/);
    expect(await other.say("RCPT TO:<orders@corp.example>")).toMatch(/^250/);
    expect(await other.say("DATA")).toMatch(/^354/);
    other.write("undisturbed\r\n");
    expect(await other.say(".")).toMatch(/^250 2\.0\.0 Queued/);
    await hop.until(() => hop.contents.length === 3);
  });
});

describe("SIGHUP", () => {
  it("twenty times under load, with partners coming and going, loses nothing and doubles nothing", async () => {
    const running = await start();
    const until = { stop: false };
    const accepted: string[] = [];
    const load = async (name: "acme" | "globex"): Promise<void> => {
      const session = await client(running, name);
      for (let at = 0; !until.stop; at++) {
        const reply = await session.send(`Subject: ${name} ${at}\r\n\r\nx\r\n`, `a@${name}.example`);
        expect(reply).toMatch(/^250 2\.0\.0 Queued/);
        accepted.push(`${name} ${at}`);
      }
    };
    const loads = [load("acme"), load("acme"), load("globex")];
    const usual = await readFile(partnerFile("acme"), "utf8");
    for (let at = 0; at < 20; at++) {
      await writeFile(partnerFile("acme"), `${usual}description: number ${at}\n`);
      if (at % 4 === 0) await writeFile(folder.configFile, `${await readFile(folder.configFile, "utf8")}# ${at}\n`);
      process.kill(running.child.pid ?? 0, "SIGHUP");
      await new Promise((resolve) => setTimeout(resolve, 100)); // a storm is one in time
    }
    expect(await reload()).toMatchObject({ status: 0 });
    until.stop = true;
    await Promise.all(loads);
    await eventually(async () => (await countQueued()) === 0);
    const subjects = hop.contents.map((content) => /^Subject: (.*?)\r$/m.exec(content.toString())?.[1] ?? "none");
    expect(accepted.length).toBeGreaterThan(20);
    expect(subjects.toSorted()).toEqual(accepted.toSorted());
    expect(running.log().filter(({ event }) => event === "compartment ended")).toEqual([]);
    expect(running.log().filter(({ event }) => event === "reloaded").length).toBeGreaterThan(2);
    expect(await isOfOneMind(running)).toBe(true);
  });

  it("to a receiver without a supervisor reloads it, all or nothing", async () => {
    const port = await freePort();
    await edit(folder.configFile, /listen:\n.*\n.*\n/, `listen: [{ address: ${relayAddress}, port: ${port} }]\n`);
    const script = join(import.meta.dirname, "../../scripts/pinrelay.mjs");
    const child = spawn(process.execPath, [script, "receive", "--config", folder.configFile]);
    let log = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text: Buffer) => (log += text.toString()));
    const ended = new Promise((resolve) => child.once("exit", resolve));
    onTestFinished(async () => {
      child.kill("SIGTERM");
      await ended;
    });
    await eventually(() => log.includes('"listening"'));
    const session = await SmtpDialogue.open({ address: relayAddress, port }, acmeAddress);
    onTestFinished(() => session.close());
    await session.begin(folder.certificates.acme);
    await edit(partnerFile("acme"), "to: [", "to: [invoices@corp.example, not an address, ");
    child.kill("SIGHUP");
    await eventually(() => log.includes("configuration kept"));
    expect(log).toMatch(/reload refused.*acme\.yaml:5/);
    const wanted = ["invoices@corp.example"];
    expect(await session.send("x\r\n", "a@acme.example", wanted)).toMatch(/^550 5\.7\.1/);
    await session.say("RSET");
    await edit(partnerFile("acme"), "not an address, ", "");
    child.kill("SIGHUP");
    await eventually(() => log.includes('"reloaded"'));
    expect(await session.send("x\r\n", "a@acme.example", wanted)).toMatch(/^250 2\.0\.0 Queued/);
  });
});

describe("a compartment that dies", () => {
  it.each(["receiver", "deliverer"])(
    "comes back, with the last good configuration, while files are invalid: %s",
    async (name) => {
      const running = await start();
      const { pid } = await compartment(running, name);
      await writeFile(folder.configFile, "hostname: [");
      await rm(partnerFile("globex"));
      process.kill(pid ?? 0, "SIGKILL");
      await eventually(async () => {
        const now = await compartment(running, name);
        return now.ready && now.pid !== pid;
      });
      expect(await isOfOneMind(running)).toBe(true);
      const port = Number(/:(\d+)$/.exec((await compartment(running, "receiver")).listening[0] ?? "")?.[1]);
      const session = await client({ ...running, ports: [port] }, "globex");
      expect(await session.send("x\r\n", "g@globex.example")).toMatch(/^250 2\.0\.0 Queued/);
      await hop.until(() => hop.contents.length === 1);
    },
  );

  it.each(["receiver", "deliverer"])("in the middle of reloads ends up with what all others have: %s", async (name) => {
    const running = await start();
    const usual = await readFile(partnerFile("acme"), "utf8");
    let killed: number | null = null;
    for (let at = 0; at < 3; at++) {
      await writeFile(partnerFile("acme"), `${usual}description: number ${at}\n`);
      await eventually(async () => (await isOfOneMind(running)) && (await compartment(running, name)).pid !== killed);
      const { pid } = await compartment(running, name);
      killed = pid;
      process.kill(running.child.pid ?? 0, "SIGHUP");
      await new Promise((resolve) => setTimeout(resolve, at * 60)); // at different steps of it
      process.kill(pid ?? 0, "SIGKILL");
    }
    await eventually(() => isOfOneMind(running));
    expect(await reload()).toMatchObject({ status: 0 });
    await eventually(() => isOfOneMind(running));
    expect((await running.state())?.policy).toBe((await folder.load()).version);
  });
});

describe("the snapshot", () => {
  it("holds no private key, is readable by its owner alone, and a half-done one of a killed relay is removed", async () => {
    const running = await start();
    const key = await readFile(join(folder.path, "certs", "server.key"));
    const text = await readFile(snapshotFile(spool()), "utf8");
    expect(text).not.toContain(key.toString("base64").slice(0, 40));
    expect((await stat(snapshotFile(spool()))).mode & 0o777).toBe(0o600);
    process.kill(running.child.pid ?? 0, "SIGKILL");
    await running.ended;
    await writeFile(nextSnapshotFile(spool()), "half");
    await eventually(async () =>
      (await runPinrelay("status", "--config", folder.configFile)).text.includes("not running"),
    );
    const again = await start();
    await eventually(async () => (await again.state())?.pid === again.child.pid);
    await expect(stat(nextSnapshotFile(spool()))).rejects.toThrow("ENOENT");
  });
});

async function countQueued(): Promise<number> {
  const { text } = await runPinrelay("status", "--config", folder.configFile, "--json");
  const { queue } = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1)) as {
    queue: { batchesIncoming: number; batchesTaken: number; deferred: number };
  };
  return queue.batchesIncoming + queue.batchesTaken + queue.deferred;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, relayAddress);
  await new Promise((resolve) => server.once("listening", resolve));
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof bound === "object" && bound !== null ? bound.port : 0;
}
