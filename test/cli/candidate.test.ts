import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { firstCandidate, nextCandidate } from "../../src/cli/candidate.ts";
import { makeRelayFolder, type RelayFolder } from "../tools/relay-folder.ts";

const now = new Date();
let folder: RelayFolder;
let written: string;
const output = { out: () => undefined, err: (text: string) => void (written += text) };

beforeEach(async () => {
  written = "";
  folder = await makeRelayFolder();
});

afterEach(() => folder.remove());

async function edit(name: string, from: string, to: string): Promise<void> {
  const file = join(folder.path, name);
  await writeFile(file, (await readFile(file, "utf8")).replace(from, to));
}

describe("what is to be started", () => {
  it("is refused for what check calls an error", async () => {
    await chmod(join(folder.path, "certs/server.key"), 0o644);
    await expect(firstCandidate(folder.configFile, output, now)).rejects.toThrow("nothing is started");
    expect(written).toContain("chmod 600");
  });

  it("is refused with every problem of the files", async () => {
    await edit("config/partners/acme.yaml", "allow", "alow");
    await edit("config/partners/globex.yaml", "pins", "pin");
    await expect(firstCandidate(folder.configFile, output, now)).rejects.toThrow("the configuration is invalid");
    expect(written).toMatch(/acme\.yaml:3: error/);
    expect(written).toMatch(/globex\.yaml:2: error/);
  });
});

describe("what is to take the place of a running configuration", () => {
  it("is not refused for what the running one suffers from as well: a pin is revoked although others can read our key", async () => {
    const running = await firstCandidate(folder.configFile, output, now);
    await edit("config/partners/acme.yaml", " }]", ", state: revoked }]");
    await chmod(join(folder.path, "certs/server.key"), 0o644);
    const next = await nextCandidate(folder.configFile, running, now);
    expect(next).toMatchObject({ kind: "valid" });
    if (next.kind !== "valid") return;
    expect(next.candidate.config.version).not.toBe(running.config.version);
    expect(next.candidate.warnings.join("\n")).toContain("chmod 600");
  });

  it("is refused for what it brings itself: a key that is not that of the certificate", async () => {
    const running = await firstCandidate(folder.configFile, output, now);
    await edit("config/relay.yaml", "../certs/server.key", "../certs/acme.key");
    expect(await nextCandidate(folder.configFile, running, now)).toMatchObject({
      kind: "invalid",
      problems: [expect.stringMatching(/relay\.yaml:\d+: error: tls\.key: .*acme\.key/)],
    });
  });

  it("is refused where only a restart can change it, with the line", async () => {
    const running = await firstCandidate(folder.configFile, output, now);
    await edit("config/relay.yaml", "path: ../spool", "path: ../spool2");
    expect(await nextCandidate(folder.configFile, running, now)).toMatchObject({
      kind: "invalid",
      problems: [expect.stringMatching(/relay\.yaml:6: error: spool\.path: .*restart the relay/)],
    });
  });

  it("is refused where the server's certificate is garbage", async () => {
    const running = await firstCandidate(folder.configFile, output, now);
    await writeFile(join(folder.path, "certs/server.pem"), "garbage");
    expect(await nextCandidate(folder.configFile, running, now)).toMatchObject({
      kind: "invalid",
      problems: [expect.stringMatching(/tls\.certificate: .*server\.pem/)],
    });
  });
});
