import { appendFile, chmod, readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { acmeAddress, makeRelayFolder, relayAddress, type RelayFolder } from "../tools/relay-folder.ts";
import { runPinrelay, startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { SmtpDialogue } from "../tools/smtp-dialogue.ts";

let folder: RelayFolder;
let relay: RelayProcess | undefined;

beforeEach(async () => {
  folder = await makeRelayFolder();
});

afterEach(async () => {
  if (relay?.child.exitCode === null && relay.child.signalCode === null) await relay.stop();
  relay = undefined;
  await folder.remove();
});

async function start(): Promise<RelayProcess> {
  relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
  return relay;
}

async function partner(running: RelayProcess): Promise<SmtpDialogue> {
  const client = await SmtpDialogue.open({ address: relayAddress, port: running.ports[0] ?? 0 }, acmeAddress);
  await client.begin(folder.certificates.acme);
  return client;
}

/** Begins a message; the final dot is still to come. */
async function beginMessage(client: SmtpDialogue): Promise<void> {
  await client.say("MAIL FROM:<a@acme.example>");
  await client.say("RCPT TO:<orders@corp.example>");
  await client.say("DATA");
  client.write("Subject: slow\r\n\r\nhalf of it\r\n");
}

async function pidOf(running: RelayProcess, name: string): Promise<number> {
  const pid = (await running.state())?.compartments.find((compartment) => compartment.name === name)?.pid;
  if (pid === undefined || pid === null) throw new Error(`no ${name}`);
  return pid;
}

async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50)); // of another process there is no event to wait for
  }
  throw new Error(`${holds.toString()} did not come true`);
}

describe("pinrelay start", () => {
  it.each(["SIGINT", "SIGTERM"] as const)(
    "lets a message in flight end when %s reaches the whole group, as Ctrl-C does",
    async (signal) => {
      const running = await start();
      const client = await partner(running);
      await beginMessage(client);
      process.kill(-(running.child.pid ?? 0), signal);
      await eventually(async () => running.log().length > 0 && (await connectionRefused(running)));
      expect(await client.say(".")).toMatch(/^250 2\.0\.0 Queued/);
      expect(await client.reply()).toMatch(/^421 /);
      expect(await running.ended).toBe(0);
      expect(running.log().filter(({ event }) => event === "compartment ended")).toEqual([]);
      expect((await readdir(join(folder.path, "spool"))).includes("relay.json")).toBe(false);
    },
  );

  it("refuses to run twice on one spool, and leaves the first one's state alone", async () => {
    await start();
    const second = await runPinrelay("start", "--config", folder.configFile);
    expect(second.status).toBe(1);
    expect(second.text).toContain("another relay is at work on this spool");
    const status = await runPinrelay("status", "--config", folder.configFile);
    expect(status).toMatchObject({ status: 0 });
    expect(status.text).toContain("mx.corp.example: running");
  });

  it("starts nothing on what check calls an error: a key that others can read", async () => {
    await chmod(join(folder.path, "certs", "server.key"), 0o644);
    const { status, text } = await runPinrelay("start", "--config", folder.configFile);
    expect(status).toBe(2);
    expect(text).toContain("chmod 600");
  });

  it("starts although something is about to run out, which check and status answer with no", async () => {
    await appendFile(folder.configFile, "expiry: { warn: 3650d, critical: 3000d }\n");
    await start();
    for (const command of ["check", "status"]) {
      const { status, text } = await runPinrelay(command, "--config", folder.configFile);
      expect(status).toBe(1);
      expect(text).toContain("server certificate");
    }
  });

  it.each(["receiver", "deliverer"])("starts a %s again that was killed", async (name) => {
    const running = await start();
    const killed = await pidOf(running, name);
    process.kill(killed, "SIGKILL");
    await eventually(async () => {
      const compartment = (await running.state())?.compartments.find((one) => one.name === name);
      return compartment?.ready === true && compartment.pid !== killed;
    });
    const status = await runPinrelay("status", "--config", folder.configFile, "--json");
    expect(JSON.parse(status.text)).toMatchObject({ running: true });
  });

  it("leaves no compartment behind when it is killed itself", async () => {
    const running = await start();
    process.kill(running.child.pid ?? 0, "SIGKILL");
    await eventually(async () => {
      const { text } = await runPinrelay("status", "--config", folder.configFile);
      return text.includes("not running");
    });
  });
});

async function connectionRefused(running: RelayProcess): Promise<boolean> {
  try {
    const client = await SmtpDialogue.open({ address: relayAddress, port: running.ports[0] ?? 0 }, acmeAddress);
    client.close();
    return false;
  } catch {
    return true;
  }
}
