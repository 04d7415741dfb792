import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { changesThatNeedRestart, describeChanges } from "../../src/config/change.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { loadSnapshot, readSnapshot, RecordingFiles, SnapshotFault } from "../../src/config/snapshot.ts";
import { makeRelayFolder, type RelayFolder } from "../tools/relay-folder.ts";

const now = new Date();
let folder: RelayFolder;
let snapshot: string;

beforeAll(async () => {
  folder = await makeRelayFolder();
  snapshot = join(folder.path, "policy.json");
});

afterAll(() => folder.remove());

async function record(): Promise<RelayConfig> {
  const files = new RecordingFiles();
  const loaded = await loadConfig(folder.configFile, now, files);
  if (loaded.kind === "invalid") throw new Error(JSON.stringify(loaded.problems));
  await files.write(snapshot, now);
  return loaded.config;
}

/** The folder as it is, with something done to it for the length of a test. */
async function withFile(name: string, text: string | undefined, test: () => Promise<void>): Promise<void> {
  const file = join(folder.path, name);
  const before = await readFile(file).catch(() => undefined);
  if (text === undefined) await rm(file);
  else await writeFile(file, text);
  try {
    await test();
  } finally {
    if (before === undefined) await rm(file);
    else await writeFile(file, before);
  }
}

describe("a snapshot", () => {
  it("loads as the files did: same paths, lines, partners and version", async () => {
    const config = await record();
    const again = await loadSnapshot(snapshot, folder.configFile);
    expect(again).toMatchObject({ kind: "loaded" });
    if (again.kind !== "loaded") return;
    expect(again.config.version).toBe(config.version);
    expect(again.config.partners.map(({ file, pins, hosts }) => ({ file, pins, hosts }))).toEqual(
      config.partners.map(({ file, pins, hosts }) => ({ file, pins, hosts })),
    );
    expect(again.config.tls).toEqual(config.tls);
  });

  it.each([
    ["config/relay.yaml", "hostname: ["],
    ["config/partners/acme.yaml", undefined],
    ["config/partners/new.yaml", "hosts: nonsense"],
    ["certs/server.pem", "half a cert"],
  ])("loads whatever has become of %s", async (name, text) => {
    const config = await record();
    await withFile(name, text, async () => {
      const again = await loadSnapshot(snapshot, folder.configFile);
      expect(again).toMatchObject({ kind: "loaded", config: { version: config.version } });
    });
  });

  it("is judged by the time when it was loaded: one that was valid stays valid", async () => {
    await record();
    expect((await readSnapshot(snapshot)).loadedAt).toEqual(now);
  });

  it("is for the relay's user alone, and holds no private key", async () => {
    await record();
    expect((await stat(snapshot)).mode & 0o777).toBe(0o600);
    const key = await readFile(join(folder.path, "certs/server.key"));
    const value = JSON.parse(await readFile(snapshot, "utf8")) as { files: Array<[string, string]> };
    expect(value.files.map(([file]) => file)).not.toContain(join(folder.path, "certs/server.key"));
    const contents = value.files.map(([, bytes]) => Buffer.from(bytes, "base64").toString("latin1")).join("\n");
    expect(contents).not.toContain("PRIVATE KEY");
    expect(contents).not.toContain(key.toString("latin1").split("\n")[1]);
  });

  it.each([
    ["nothing", ""],
    ["half of it", '{"format":1,"loadedAt":"2026-01-01T00:00:00Z","files":[["/a"'],
    ["another format", '{"format":2,"loadedAt":"2026-01-01T00:00:00Z","files":[],"folders":[]}'],
    ["a list", "[]"],
    ["numbers for names", '{"format":1,"loadedAt":"2026-01-01T00:00:00Z","files":[[1,"eA=="]],"folders":[]}'],
    ["numbers for contents", '{"format":1,"loadedAt":"2026-01-01T00:00:00Z","files":[["/a",1]],"folders":[]}'],
    ["no time", '{"format":1,"files":[],"folders":[]}'],
  ])("that holds %s is refused, with its name", async (_what, text) => {
    const file = join(folder.path, "damaged.json");
    await writeFile(file, text);
    await expect(readSnapshot(file)).rejects.toThrow(SnapshotFault);
    await expect(readSnapshot(file)).rejects.toThrow(file);
  });

  it("that is not there is refused", async () => {
    await expect(readSnapshot(join(folder.path, "missing.json"))).rejects.toThrow("missing.json does not exist");
  });
});

describe("RecordingFiles", () => {
  it("gives the same bytes again, whatever has become of the file", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-recording-"));
    try {
      const file = join(path, "a");
      await writeFile(file, "one");
      await mkdir(join(path, "b"));
      const files = new RecordingFiles();
      expect(await files.read(file)).toEqual(Buffer.from("one"));
      expect(await files.list(path)).toEqual(["a", "b"]);
      await rm(file);
      expect(await files.read(file)).toEqual(Buffer.from("one"));
      expect(await files.list(path)).toEqual(["a", "b"]);
    } finally {
      await rm(path, { recursive: true });
    }
  });
});

describe("the version of a configuration", () => {
  it("does not depend on the server's own certificate, which is renewed without a reload", async () => {
    const { version } = await record();
    await withFile("certs/server.pem", await readFile(join(folder.path, "certs/acme.pem"), "utf8"), async () => {
      expect((await record()).version).toBe(version);
    });
  });

  it("depends on it where it is a partner's trust anchor as well", async () => {
    const acme = `hosts: [127.0.0.11]
pins: [{ trust-anchor: ../../certs/server.pem, name: mx.acme.example }]
allow: { to: [orders@corp.example] }
`;
    const ca = await readFile(join(folder.path, "certs/ca.pem"), "utf8");
    await withFile("certs/server.pem", ca, () =>
      withFile("config/partners/acme.yaml", acme, async () => {
        const { version } = await record();
        await withFile("certs/server.pem", `${ca}\n`, async () => {
          expect((await record()).version).not.toBe(version);
        });
      }),
    );
  });
});

describe("describeChanges", () => {
  it("names the partners that were added, removed and changed", async () => {
    const before = await record();
    const [acme, globex] = before.partners;
    if (acme === undefined || globex === undefined) throw new Error("two partners");
    const after = {
      ...before,
      version: "x",
      partners: [
        { ...acme, mode: "observe" as const },
        { ...globex, name: "new" },
      ],
    };
    expect(describeChanges(before, after)).toEqual([
      "partner added: new",
      "partner removed: globex",
      "partner changed: acme",
    ]);
  });

  it("takes another place in a file for no change, and says so where nothing else is another", async () => {
    const before = await record();
    const text = await readFile(join(folder.path, "config/partners/acme.yaml"), "utf8");
    await withFile("config/partners/acme.yaml", `# a line more\n${text}`, async () => {
      expect(describeChanges(before, await record())).toEqual(["only comments or the order of lines changed"]);
    });
  });

  it("says nothing of the same configuration", async () => {
    const before = await record();
    expect(describeChanges(before, await record())).toEqual([]);
  });
});

describe("changesThatNeedRestart", () => {
  it.each<[string, (config: RelayConfig) => RelayConfig]>([
    ["hostname", (config) => ({ ...config, hostname: "mx2.corp.example" })],
    ["spool.path", (config) => ({ ...config, spool: { ...config.spool, path: "/elsewhere" } })],
    ["tls.minimum-version", (config) => ({ ...config, tls: { ...config.tls, minimumVersion: "TLSv1.3" } })],
  ])("names %s", async (key, change) => {
    const config = await record();
    const [only, ...others] = changesThatNeedRestart(config, change(config));
    expect(only?.path.join(".")).toBe(key);
    expect(only?.message).toContain("restart the relay");
    expect(others).toEqual([]);
    expect(changesThatNeedRestart(config, config)).toEqual([]);
  });
});
