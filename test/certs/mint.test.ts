/** Minting: what is missing is made, what exists is kept and looked at. */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadCa } from "../../src/certs/ca.ts";
import { mintTestCa } from "../../src/certs/mint.ts";
import { now, temporaryFolder, x509 } from "./support.ts";

const hostname = "MX.Corp.Example";

async function contents(directory: string): Promise<Record<string, string>> {
  const names = await readdir(directory);
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(directory, name), "utf8")] as const)),
  );
}

describe("mintTestCa", () => {
  it("makes a CA and a certificate for the relay, good for both ends of a connection", async () => {
    const directory = join(await temporaryFolder(), "certs");
    const steps = await mintTestCa({ directory, hostname, now });
    expect(steps.map(({ kind }) => kind)).toEqual(["made", "made"]);
    const server = x509(await readFile(join(directory, "server.pem"), "utf8"));
    expect(server.checkHost("mx.corp.example", { subject: "never" })).toBe("mx.corp.example");
    expect(server.verify((await loadCa(directory, now)).certificate.publicKey)).toBe(true);
    expect(server.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  });

  it("changes nothing the second time, and says so", async () => {
    const directory = await temporaryFolder();
    await mintTestCa({ directory, hostname, now });
    const before = await contents(directory);
    const steps = await mintTestCa({ directory, hostname, now });
    expect(steps.map(({ kind, warnings }) => ({ kind, warnings }))).toEqual([
      { kind: "kept", warnings: [] },
      { kind: "kept", warnings: [] },
    ]);
    expect(await contents(directory)).toEqual(before);
  });

  it("makes what is missing under the CA that exists", async () => {
    const directory = await temporaryFolder();
    await mintTestCa({ directory, hostname, now });
    await rm(join(directory, "server.pem"));
    await rm(join(directory, "server.key"));
    expect((await mintTestCa({ directory, hostname, now })).map(({ kind }) => kind)).toEqual(["kept", "made"]);
  });

  it("warns of a certificate that it keeps though it is for another host, or over", async () => {
    const directory = await temporaryFolder();
    await mintTestCa({ directory, hostname, now });
    const later = new Date("2029-01-01T00:00:00Z");
    const [, server] = await mintTestCa({ directory, hostname: "mx2.corp.example", now: later });
    expect(server?.warnings.join("\n")).toContain("expired on 2028-06-06");
    expect(server?.warnings.join("\n")).toContain("is not for mx2.corp.example");
  });

  it("takes a host name too long for a common name", async () => {
    const directory = await temporaryFolder();
    const long = `${"a".repeat(60)}.corp.example`;
    await mintTestCa({ directory, hostname: long, now });
    const server = x509(await readFile(join(directory, "server.pem"), "utf8"));
    expect(server.checkHost(long, { subject: "never" })).toBe(long);
  });

  it.each([
    { without: "server.key", says: "is missing: move the certificate away" },
    { without: "server.pem", says: "server.key: exists and is left as it is" },
    { without: "ca.key", says: "ca.key: no such file" },
    { without: "ca.pem", says: "ca.key: exists and is left as it is" },
  ])("refuses to go on without $without", async ({ without, says }) => {
    const directory = await temporaryFolder();
    await mintTestCa({ directory, hostname, now });
    await rm(join(directory, without));
    const before = await contents(directory);
    await expect(mintTestCa({ directory, hostname, now })).rejects.toThrow(says);
    expect(await contents(directory)).toEqual(before);
  });

  it("refuses what is no host name, before anything is made", async () => {
    const directory = await temporaryFolder();
    await expect(mintTestCa({ directory, hostname: "mx corp", now })).rejects.toThrow("is not a host name");
    expect(await readdir(directory)).toEqual([]);
  });

  it("refuses a server.pem that is none", async () => {
    const directory = await temporaryFolder();
    await mintTestCa({ directory, hostname, now });
    await writeFile(join(directory, "server.pem"), "hello");
    await expect(mintTestCa({ directory, hostname, now })).rejects.toThrow("holds neither PEM nor DER");
  });
});
