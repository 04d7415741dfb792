/** The steps of a reload, and what is left of it when one fails: with compartments that do what the configuration says. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { createLog } from "../../src/log/log.ts";
import { nextSnapshotFile, readState, snapshotFile, type RelayState } from "../../src/supervisor/state.ts";
import { Supervisor, type Candidate, type Loaded } from "../../src/supervisor/supervisor.ts";
import { makeRelayFolder } from "../tools/relay-folder.ts";

/** A snapshot is a version, and behind it what happens to who reads it, as `v2 deliverer:refuse`. */
const compartment = `
import { readFileSync } from "node:fs";
const [role, , , , snapshot] = process.argv.slice(2);
const read = (file) => {
  const [policy, ...deeds] = readFileSync(file, "utf8").split(" ");
  return { policy, deed: deeds.find((deed) => deed.startsWith(role))?.split(":")[1] };
};
process.on("message", ({ order, snapshot }) => {
  const { policy, deed } = read(snapshot);
  if (deed === "die") process.exit(1);
  if (deed === "refuse") process.send({ kind: "refused", order, reason: "not that one" });
  else process.send({ kind: "reloaded", order, listening: [], policy });
});
process.once("disconnect", () => process.exit());
process.send({ kind: "ready", listening: [], policy: read(snapshot).policy });
`;

let folder: string;
let config: RelayConfig;
let script: string;
let spoolPath: string;
let supervisor: Supervisor<Candidate>;
let files: () => Promise<Loaded<Candidate>>;
let log: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pinrelay-supervisor-"));
  script = join(folder, "compartment.mjs");
  await writeFile(script, compartment);
  const relay = await makeRelayFolder();
  config = await relay.load();
  await relay.remove();
});

afterAll(() => rm(folder, { recursive: true }));

beforeEach(async () => {
  spoolPath = await mkdtemp(join(folder, "spool-"));
  log = [];
  files = () => Promise.resolve({ kind: "valid", candidate: candidate("v1") });
  supervisor = new Supervisor({
    script,
    configFile: "relay.yaml",
    spoolPath,
    initial: candidate("v1"),
    load: () => files(),
    log: createLog("supervisor", { write: (line) => void log.push(line) }),
  });
  await supervisor.start();
});

afterEach(() => supervisor.stop());

function candidate(version: string, ...deeds: readonly string[]): Candidate {
  return {
    config: { ...config, version },
    warnings: [],
    write: (file) => writeFile(file, [version, ...deeds].join(" ")),
  };
}

const filesHold = (version: string, ...deeds: readonly string[]): void => {
  files = () => Promise.resolve({ kind: "valid", candidate: candidate(version, ...deeds) });
};

async function until(holds: (state: RelayState) => boolean): Promise<RelayState> {
  for (let attempt = 0; attempt < 600; attempt++) {
    const state = await readState(spoolPath);
    if (state !== undefined && holds(state)) return state;
    await new Promise((resolve) => setTimeout(resolve, 20)); // of another process there is no event to wait for
  }
  throw new Error(`${holds.toString()} did not come true:\n${log.join("")}`);
}

const isReloaded = ({ lastReload }: RelayState): boolean => lastReload !== undefined;
const allHave = (version: string) => (state: RelayState) =>
  state.policy === version && state.compartments.every(({ policy }) => policy === version);

async function pidOf(name: string): Promise<number> {
  const pid = (await readState(spoolPath))?.compartments.find((one) => one.name === name)?.pid;
  if (pid === undefined || pid === null) throw new Error(`no ${name}`);
  return pid;
}

describe("a reload", () => {
  it("reaches both compartments, and then stands in the snapshot", async () => {
    filesHold("v2");
    supervisor.reload();
    const { lastReload } = await until((state) => isReloaded(state) && allHave("v2")(state));
    expect(lastReload).toMatchObject({ kind: "reloaded", policy: "v2" });
    expect(await readFile(snapshotFile(spoolPath), "utf8")).toBe("v2");
    await expect(stat(nextSnapshotFile(spoolPath))).rejects.toThrow("ENOENT");
  });

  it.each(["receiver", "deliverer"])("that the %s refuses leaves the old one in force in both", async (name) => {
    filesHold("v2", `${name === "receiver" ? "receive" : "deliver"}:refuse`);
    supervisor.reload();
    const { lastReload } = await until((state) => isReloaded(state) && allHave("v1")(state));
    expect(lastReload).toMatchObject({ kind: "refused", policy: "v1", problems: ["not that one"] });
    expect(await readFile(snapshotFile(spoolPath), "utf8")).toBe("v1");
    await expect(stat(nextSnapshotFile(spoolPath))).rejects.toThrow("ENOENT");
  });

  it.each(["receiver", "deliverer"])(
    "that the %s dies of is refused, and it comes back with the old one",
    async (name) => {
      const pid = await pidOf(name);
      filesHold("v2", `${name === "receiver" ? "receive" : "deliver"}:die`);
      supervisor.reload();
      const { lastReload } = await until(isReloaded);
      expect(lastReload).toMatchObject({ kind: "refused", policy: "v1" });
      expect(lastReload?.problems[0]).toContain(`the ${name} ended`);
      await until(allHave("v1"));
      expect(await pidOf(name)).not.toBe(pid);
    },
  );

  it.each(["receiver", "deliverer"])("while the %s is dead gives it the new one when it comes back", async (name) => {
    process.kill(await pidOf(name), "SIGKILL");
    await until((state) => state.compartments.some(({ pid }) => pid === null));
    filesHold("v2");
    supervisor.reload();
    await until(allHave("v2"));
  });

  it("of which the snapshot cannot be written is refused, and says why", async () => {
    const full = { ...candidate("v2"), write: () => Promise.reject(new Error("ENOSPC: no space left on device")) };
    files = () => Promise.resolve({ kind: "valid", candidate: full });
    supervisor.reload();
    const { lastReload } = await until(isReloaded);
    expect(lastReload).toMatchObject({ kind: "refused", problems: ["ENOSPC: no space left on device"], policy: "v1" });
    await until(allHave("v1"));
  });

  it("is one at a time, however often it is asked for, and the last request finds the files as they are then", async () => {
    let [loading, loadingMax, loads] = [0, 0, 0];
    files = async () => {
      loads += 1;
      loadingMax = Math.max(loadingMax, (loading += 1));
      await new Promise((resolve) => setTimeout(resolve, 20)); // files take their time
      loading -= 1;
      return { kind: "valid", candidate: candidate(`v${loads + 1}`) };
    };
    for (let at = 0; at < 20; at++) supervisor.reload();
    await until(allHave("v3"));
    expect({ loadingMax, loads }).toEqual({ loadingMax: 1, loads: 2 });
  });

  it("of invalid files keeps the old one, and logs each problem", async () => {
    files = () =>
      Promise.resolve({ kind: "invalid", problems: ["acme.yaml:3: error: one", "acme.yaml:4: error: two"] });
    supervisor.reload();
    const { lastReload } = await until(isReloaded);
    expect(lastReload).toMatchObject({
      kind: "refused",
      problems: ["acme.yaml:3: error: one", "acme.yaml:4: error: two"],
    });
    expect(log.filter((line) => line.includes("reload refused"))).toHaveLength(2);
  });
});
