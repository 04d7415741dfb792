/** `pinrelay status` over a spool whose locks are held as by a running relay. */
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { statusCommand } from "../../src/cli/status.ts";
import { sightingsFolders } from "../../src/sightings/reader.ts";
import { encodeQuarantineRecord, quarantineRecordName } from "../../src/sightings/record.ts";
import { prepareFolders, type SpoolFolders } from "../../src/spool/directory/folders.ts";
import { takeLock, type Lock } from "../../src/spool/directory/lock.ts";
import { makeRelayFolder, type RelayFolder } from "../tools/relay-folder.ts";
import { run, type Ran } from "./support.ts";

let folder: RelayFolder;
let spool: SpoolFolders;
const locks: Lock[] = [];

beforeEach(async () => {
  folder = await makeRelayFolder();
  spool = await prepareFolders(join(folder.path, "spool"));
});

afterEach(async () => {
  for (const lock of locks.splice(0)) lock.release();
  await folder.remove();
});

function holdLocks(): void {
  for (const at of [spool.incoming, spool.queue]) locks.push(takeLock(join(at, "lock.sqlite"), "held"));
}

const status = (...args: string[]): Promise<Ran> => run(statusCommand, ["--config", folder.configFile, ...args]);

/** So that the server's certificate has as long as the threshold says. */
async function thresholds(warn: string, critical: string): Promise<void> {
  await appendFile(folder.configFile, `expiry: { warn: ${warn}, critical: ${critical} }\n`);
}

describe("pinrelay status", () => {
  it("ends with 1 where nothing runs, and with what to do", async () => {
    const { exitCode, out, err } = await status();
    expect({ exitCode, err }).toEqual({ exitCode: 1, err: "pinrelay: start it with pinrelay start\n" });
    expect(out).toContain("mx.corp.example: not running\n");
  });

  it("ends with 0 where all lives and nothing is urgent, and tells what ends next", async () => {
    holdLocks();
    const { exitCode, out, err } = await status();
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: "" });
    expect(out).toMatch(/^expiry: server certificate ends on \d{4}-\d\d-\d\d, in \d+ days$/m);
    expect(out).not.toMatch(/^(?:corrupt|quarantine):/m);
  });

  it("ends with 0 where something runs out, but not within days", async () => {
    await thresholds("3650d", "1d");
    holdLocks();
    const { exitCode, out } = await status();
    expect(exitCode).toBe(0);
    expect(out).toMatch(/^expiry: .*; 2 items run out soon: pinrelay check$/m);
  });

  it("ends with 1 where something is critical, with the reason in one line", async () => {
    await thresholds("3650d", "100d");
    holdLocks();
    const { exitCode, out, err } = await status();
    expect(exitCode).toBe(1);
    expect(err).toMatch(/^pinrelay: server certificate ends on \d{4}-\d\d-\d\d, in \d+ days: renew it.*\n$/);
    expect(out).toMatch(/^expiry: .*; 2 items run out soon \(1 critical\): pinrelay check$/m);
  });

  it("says in JSON all that runs out", async () => {
    await thresholds("3650d", "100d");
    holdLocks();
    const { exitCode, out } = await status("--json");
    expect(exitCode).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      running: true,
      corrupt: 0,
      quarantine: 0,
      expiry: [
        { what: "server certificate", state: "critical", file: join(folder.path, "certs/server.pem") },
        { what: "CA certificate", state: "warning", file: join(folder.path, "certs/ca.pem") },
      ],
    });
  });

  it("counts what was set aside, without the notes, and what is in quarantine", async () => {
    holdLocks();
    for (const name of ["a.batch", "a.batch.reason", "b.content"]) await writeFile(join(spool.corrupt, name), "");
    const der = new X509Certificate(await readFile(join(folder.path, "certs/outsider.pem"))).raw;
    const at = sightingsFolders(spool.root).quarantine;
    await mkdir(at, { recursive: true });
    const seen = { firstSeenMs: 0, lastSeenMs: 0, count: 1, addresses: ["127.0.0.11"], partners: ["acme"] };
    await writeFile(join(at, quarantineRecordName(der)), encodeQuarantineRecord({ der, ...seen }));
    const { exitCode, out } = await status();
    expect(exitCode).toBe(0);
    expect(out).toContain("corrupt: 2 set aside");
    expect(out).toContain("quarantine: 1 waiting for a decision: pinrelay partner list --quarantine\n");
    expect(JSON.parse((await status("--json")).out)).toMatchObject({ corrupt: 2, quarantine: 1 });
  });

  it("tells of the relay, and nothing of what runs out, while the configuration is invalid", async () => {
    await appendFile(folder.configFile, "hostnam: oops\n");
    holdLocks();
    const { exitCode, out, err } = await status("--json");
    expect(exitCode).toBe(0);
    expect(err).toContain("invalid at the moment");
    expect(JSON.parse(out)).toMatchObject({ running: true, expiry: null });
  });
});
