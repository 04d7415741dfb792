/** A command that died, or was refused, after it had changed the file: the same command again makes up for the rest. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { afterEach, beforeEach, expect, it } from "vitest";
import { readActions } from "../../src/audit/operator-journal.ts";
import { spkiDigest } from "../../src/partner/pin.ts";
import { acmeAddress, makeRelayFolder, relayAddress, type RelayFolder } from "../tools/relay-folder.ts";
import { runPinrelay, startRelayProcess, type RelayProcess } from "../tools/relay-process.ts";
import { SmtpDialogue } from "../tools/smtp-dialogue.ts";

let folder: RelayFolder;
let relay: RelayProcess;

beforeEach(async () => {
  folder = await makeRelayFolder();
  relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
});

afterEach(async () => {
  await relay.stop();
  await folder.remove();
});

const partner = (...args: string[]) => runPinrelay("partner", ...args, "--config", folder.configFile);
const file = (name: string): string => join(folder.path, "config", "partners", `${name}.yaml`);
const replace = async (name: string, from: string, to: string): Promise<void> =>
  writeFile(file(name), (await readFile(file(name), "utf8")).replace(from, to));

/** What MAIL of acme's host is answered. */
async function mail(): Promise<string> {
  const client = await SmtpDialogue.open({ address: relayAddress, port: relay.ports[0] ?? 0 }, acmeAddress);
  await client.begin(folder.certificates.acme, "mx.acme.example");
  const reply = await client.say("MAIL FROM:<a@acme.example>");
  client.close();
  return reply;
}

async function journal(): Promise<string[]> {
  const { audit } = await folder.load();
  return (await readActions(audit.path)).map(({ action }) => action);
}

it("revoke, where the relay could not take it up the first time", async () => {
  await replace("globex", "allow:", "alow:");
  expect(await partner("revoke", "acme", "--yes")).toMatchObject({ status: 1 });
  await replace("globex", "alow:", "allow:");
  expect(await mail()).toMatch(/^250 /);
  const again = await partner("revoke", "acme", "--yes");
  expect(again).toMatchObject({ status: 0, text: expect.stringContaining("uses it from now on") as string });
  expect(await mail()).toMatch(/^454 /);
  expect(await journal()).toEqual(["revoke"]);
});

it("revoke, where whoever did it died before the journal and the relay knew", async () => {
  await replace("acme", `" }]`, `", state: revoked }]`);
  expect(await mail()).toMatch(/^250 /);
  expect((await partner("revoke", "acme", "--yes")).status).toBe(0);
  expect(await mail()).toMatch(/^454 /);
  expect(await journal()).toEqual(["revoke"]);
});

it("confirm, where whoever did it died before the journal and the relay knew", async () => {
  await replace("acme", `" }]`, `", state: pending }]`);
  expect((await runPinrelay("reload", "--config", folder.configFile)).status).toBe(0);
  await replace("acme", ", state: pending", "");
  expect(await mail()).toMatch(/^454 /);
  const fingerprint = spkiDigest(new X509Certificate(folder.certificates.acme.cert));
  expect((await partner("confirm", "acme", fingerprint)).status).toBe(0);
  expect(await mail()).toMatch(/^250 /);
  expect(await journal()).toEqual(["confirm"]);
});
