/** `pinrelay ca` and the script that mints: as they are typed, with their exit status. */
import { chmod, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { caCommand } from "../../src/cli/ca.ts";
import { mintTestCaCommand } from "../../src/cli/mint.ts";
import { hasOpenssl, openssl } from "../certs/openssl.ts";
import { fixturePath, temporaryFolder, x509 } from "../certs/support.ts";
import { bareBench, bench, now, run, type Ran } from "./support.ts";

const ca = (args: readonly string[], at?: Date): Promise<Ran> => run(caCommand, args, at);

describe("ca init", () => {
  it("makes a CA beside the configuration's folder, whether or not there is a configuration", async () => {
    const folder = await temporaryFolder();
    const { exitCode, out } = await ca(["init", "--config", join(folder, "config", "relay.yaml")]);
    expect(exitCode).toBe(0);
    expect(out).toContain(`Made ${join(folder, "certs", "ca.pem")} and`);
    expect(out).toContain("subject  CN=pinrelay CA");
    expect(out).toContain("valid    2027-01-01 to 2036-12-29");
    expect((await stat(join(folder, "certs", "ca.key"))).mode & 0o777).toBe(0o600);
  });

  it("takes name, kind of key and days", async () => {
    const directory = await temporaryFolder();
    await ca(["init", "--ca", directory, "--name", "Corp Partner CA", "--key-type", "ed25519", "--days", "10"]);
    const certificate = x509(await readFile(join(directory, "ca.pem"), "utf8"));
    expect(certificate.subject).toBe("CN=Corp Partner CA");
    expect(certificate.publicKey.asymmetricKeyType).toBe("ed25519");
    expect(certificate.validToDate).toEqual(new Date("2027-01-11T12:00:00Z"));
  });

  it("finds the configuration's folder by the environment", async () => {
    const { config, certs } = await bareBench();
    vi.stubEnv("PINRELAY_CONFIG", config);
    onTestFinished(() => void vi.unstubAllEnvs());
    expect((await ca(["init"])).exitCode).toBe(0);
    expect(await readdir(certs)).toEqual(["ca.key", "ca.pem"]);
  });

  it("ends with 1 where a CA exists, and keeps it", async () => {
    const { config, certs } = await bench();
    const before = await readFile(join(certs, "ca.pem"), "utf8");
    const { exitCode, err } = await ca(["init", "--config", config]);
    expect(exitCode).toBe(1);
    expect(err).toContain("exists and is left as it is");
    expect(await readFile(join(certs, "ca.pem"), "utf8")).toBe(before);
  });

  it.each([
    { what: "days that are no number", args: ["--days", "many"] },
    { what: "no days", args: ["--days", "0"] },
    { what: "half days", args: ["--days", "1.5"] },
    { what: "an unknown kind of key", args: ["--key-type", "rsa-1024"] },
    { what: "an unknown option", args: ["--nmae", "x"] },
  ])("ends with 2 for $what", async ({ args }) => {
    const directory = await temporaryFolder();
    const { exitCode, err } = await ca(["init", "--ca", directory, ...args]);
    expect(exitCode).toBe(2);
    expect(err).toMatch(/^error: /);
    expect(await readdir(directory)).toEqual([]);
  });
});

describe("ca issue", () => {
  it("makes a certificate for the host that it is called by", async () => {
    const { config, certs } = await bench();
    const { exitCode, out } = await ca(["issue", "mail1.corp.example", "--ip", "10.1.0.10", "--config", config]);
    expect(exitCode).toBe(0);
    expect(out).toContain("names    DNS:mail1.corp.example, IP Address:10.1.0.10");
    expect((await stat(join(certs, "mail1.corp.example.key"))).mode & 0o777).toBe(0o600);
  });

  it("takes other names, a use, a kind of key and a place", async () => {
    const { config, certs } = await bench();
    const base = join(certs, "hosts", "two");
    const names = ["--dns", "a.corp.example", "b.corp.example", "--usage", "server", "--key-type", "ec-p384"];
    expect((await ca(["issue", "The second host", ...names, "--out", base, "--config", config])).exitCode).toBe(0);
    const certificate = x509(await readFile(`${base}.pem`, "utf8"));
    expect(certificate.subject).toBe("CN=The second host");
    expect(certificate.subjectAltName).toBe("DNS:a.corp.example, DNS:b.corp.example");
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
  });

  it.each([
    {
      what: "a CA that is missing",
      args: ["issue", "mx.acme.example"],
      says: "make a CA with pinrelay ca init",
      code: 1,
    },
  ])("ends with $code for $what", async ({ args, says, code }) => {
    const { config } = await bareBench();
    expect(await ca([...args, "--config", config])).toMatchObject({
      exitCode: code,
      err: expect.stringContaining(says),
    });
  });

  it.each([
    { what: "a name that is no file name", args: ["../evil"], says: "say with --out", code: 2 },
    { what: "the CA's own name", args: ["ca"], says: "say with --out", code: 2 },
    { what: "a server without a name", args: ["word", "--usage", "server"], says: "needs the DNS name", code: 1 },
    { what: "a wildcard", args: ["x", "--dns", "*.corp.example"], says: "is not a domain name", code: 1 },
    { what: "an existing certificate", args: ["server", "--usage", "client"], says: "server.pem: exists", code: 1 },
    {
      what: "an unknown use",
      args: ["x", "--usage", "mail"],
      says: "Allowed choices are server, client, both",
      code: 2,
    },
    { what: "no name", args: [], says: "missing required argument 'name'", code: 2 },
  ])("ends with $code for $what", async ({ args, says, code }) => {
    const { config, certs } = await bench();
    const before = await readdir(certs);
    const ran = await ca(["issue", ...args, "--config", config]);
    expect(ran).toMatchObject({ exitCode: code, err: expect.stringContaining(says) });
    expect(await readdir(certs)).toEqual(before);
  });

  it("ends with 1 where others may read the CA's key", async () => {
    const { config, certs } = await bench();
    await chmod(join(certs, "ca.key"), 0o644);
    const { exitCode, err } = await ca(["issue", "mx2.corp.example", "--config", config]);
    expect(exitCode).toBe(1);
    expect(err).toContain("chmod 600");
  });
});

describe("ca sign", () => {
  it("shows what the request asks for and signs it for clients", async () => {
    const { config, certs } = await bench();
    const out = join(certs, "acme.pem");
    const ran = await ca(["sign", "--csr", fixturePath("p256.csr.pem"), "--out", out, "--config", config]);
    expect(ran.exitCode).toBe(0);
    expect(ran.out).toContain(
      "The request names\n  C=DE\n  O=ACME Supplies\n  CN=mx.acme.example\n  DNS:mx.acme.example\n",
    );
    expect(ran.out).toContain("email:ops@acme.example");
    const certificate = x509(await readFile(out, "utf8"));
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(certificate.subjectAltName).toBe(
      "DNS:mx.acme.example, DNS:mx2.acme.example, IP Address:203.0.113.5, IP Address:2001:DB8:1:0:0:0:0:5",
    );
  });

  it.skipIf(!hasOpenssl)("makes what openssl verifies strictly", async () => {
    const { config, certs } = await bench();
    const out = join(certs, "acme.pem");
    await ca(["sign", "--csr", fixturePath("ed25519.csr.pem"), "--out", out, "--config", config]);
    const at = String(now.getTime() / 1000);
    expect(
      openssl("verify", "-x509_strict", "-attime", at, "-purpose", "sslclient", "-CAfile", join(certs, "ca.pem"), out),
    ).toContain("OK");
  });

  it("signs a request for our own names only where it is told that the host is ours", async () => {
    const { config, certs } = await bench();
    const args = [
      "sign",
      "--csr",
      fixturePath("own-hostname.csr.pem"),
      "--out",
      join(certs, "x.pem"),
      "--config",
      config,
    ];
    expect(await ca(args)).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("it claims 'MX.Corp.Example', which is a name of ours"),
    });
    expect((await ca([...args, "--own-names"])).exitCode).toBe(0);
  });

  it.each([
    { what: "a broken signature", csr: "broken-signature.csr.pem", says: "has a signature that does not fit" },
    { what: "a weak key", csr: "rsa1024.csr.pem", says: "only 1024 bits" },
    { what: "a wildcard", csr: "wildcard.csr.pem", says: "claims the wildcard" },
    { what: "a certificate in place of a request", csr: "self-signed.pem", says: "not a signing request" },
    { what: "no file", csr: "none.pem", says: "no such file" },
  ])("ends with 1 for $what, and writes nothing", async ({ csr, says }) => {
    const { config, certs } = await bench();
    const before = await readdir(certs);
    const ran = await ca(["sign", "--csr", fixturePath(csr), "--out", join(certs, "x.pem"), "--config", config]);
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining(says) });
    expect(await readdir(certs)).toEqual(before);
  });

  it("ends with 2 where it cannot know our names, with all that is wrong", async () => {
    const { config, certs } = await bench("hostname: mx.corp.example\nlsiten: []\n");
    const args = ["sign", "--csr", fixturePath("p256.csr.pem"), "--out", join(certs, "x.pem"), "--config", config];
    const { exitCode, err } = await ca(args);
    expect(exitCode).toBe(2);
    expect(err).toContain("lsiten");
    expect(err).toContain("the configuration is invalid");
  });

  it("never overwrites", async () => {
    const { config, certs } = await bench();
    const args = ["sign", "--csr", fixturePath("p256.csr.pem"), "--out", join(certs, "server.pem"), "--config", config];
    expect(await ca(args)).toMatchObject({ exitCode: 1, err: expect.stringContaining("exists and is left as it is") });
  });
});

describe("mint-test-ca", () => {
  const mint = (args: readonly string[], at?: Date): Promise<Ran> => run(mintTestCaCommand, args, at);

  it("takes the host name of a configuration that is not valid yet, and keeps what exists", async () => {
    const { config, certs } = await bareBench();
    const first = await mint(["--config", config]);
    expect(first).toMatchObject({ exitCode: 0, err: "" });
    expect(first.out).toMatch(/^made .*ca\.pem and .*ca\.key: test CA\nmade .*server\.pem and .*server\.key/);
    expect(await readdir(certs)).toEqual(["ca.key", "ca.pem", "server.key", "server.pem"]);
    const second = await mint(["--config", config]);
    expect(second).toMatchObject({ exitCode: 0, err: "" });
    expect(second.out).toMatch(/^kept .*\nkept .*\n$/);
  });

  it("warns where what it keeps is for another host", async () => {
    const { config } = await bench();
    const { exitCode, err } = await mint(["--config", config, "--hostname", "mx2.corp.example"]);
    expect(exitCode).toBe(0);
    expect(err).toContain("is not for mx2.corp.example");
  });

  it("needs no configuration where the name is given", async () => {
    const folder = await temporaryFolder();
    const args = [
      "--hostname",
      "mx.corp.example",
      "--ca",
      join(folder, "certs"),
      "--config",
      join(folder, "none.yaml"),
    ];
    expect((await mint(args)).exitCode).toBe(0);
  });

  it.each([
    { what: "no configuration", yaml: undefined, says: "name the configuration with --config" },
    { what: "a configuration without a host name", yaml: "listen: []\n", says: "has no hostname" },
    { what: "a configuration that is not YAML", yaml: "hostname: [\n", says: "relay.yaml:" },
  ])("ends with 2 for $what", async ({ yaml, says }) => {
    const { config, certs } = await bareBench(yaml ?? "");
    if (yaml === undefined) await rm(config);
    expect(await mint(["--config", config])).toMatchObject({ exitCode: 2, err: expect.stringContaining(says) });
    await expect(readdir(certs)).rejects.toThrow("ENOENT");
  });
});
