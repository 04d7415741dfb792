/** `pinrelay ca` and the script that mints: as they are typed, with their exit status. */
import { chmod, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { parseRevocationList } from "../../src/certs/crl.ts";
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
    { what: "a server without a name", args: ["word", "--usage", "server"], says: "needs the DNS name", code: 2 },
    { what: "a wildcard", args: ["x", "--dns", "*.corp.example"], says: "is not a domain name", code: 2 },
    { what: "no address for one", args: ["x", "--ip", "foo"], says: "'foo' is not an IP address", code: 2 },
    { what: "more than a century", args: ["x", "--days", "40000"], says: "1 to 36525 whole days", code: 2 },
    { what: "a key of no kind", args: ["x", "--key-type", "rsa-1"], says: "Allowed choices are", code: 2 },
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

describe("ca sign --partner", () => {
  /** A bench with two partners, who are known by a CA and a name. */
  async function twoPartners(): Promise<{ config: string; certs: string }> {
    const made = await bench();
    for (const [name, host] of [
      ["acme", "mx.acme.example"],
      ["globex", "mx.globex.example"],
    ] as const) {
      const anchor = `{ trust-anchor: ../../certs/ca.pem, name: ${host} }`;
      const hosts = name === "acme" ? '203.0.113.0/28, "2001:db8:1::/64"' : "198.51.100.7";
      const text = `hosts: [${hosts}]\npins: [${anchor}]\nallow: { from: ["@${name}.example"], to: ["@corp.example"] }\n`;
      await writeFile(join(made.partners, `${name}.yaml`), text);
    }
    return made;
  }
  const csr = fixturePath("p256.csr.pem"); // mx.acme.example, 203.0.113.5

  it("signs the partner's own name and addresses", async () => {
    const { config, certs } = await twoPartners();
    const ran = await ca([
      "sign",
      "--csr",
      csr,
      "--partner",
      "acme",
      "--out",
      join(certs, "a.pem"),
      "--config",
      config,
    ]);
    expect(ran).toMatchObject({ exitCode: 0, err: "" });
  });

  it.each([
    {
      what: "a name of another partner",
      more: ["--partner", "globex"],
      code: 1,
      says: "claims 'mx.acme.example', which is a name of the partner acme",
    },
    {
      what: "addresses of another partner",
      more: ["--partner", "globex"],
      code: 1,
      says: "claims the address 203.0.113.5, which is not among the partner's hosts",
    },
    {
      what: "the name of a partner, where nobody says whose request it is",
      more: [],
      code: 1,
      says: "a name of the partner acme",
    },
    {
      what: "a partner that does not exist",
      more: ["--partner", "hooli"],
      code: 1,
      says: "there is no partner 'hooli'",
    },
    {
      what: "a partner that is to be ourselves",
      more: ["--partner", "acme", "--own-names"],
      code: 2,
      says: "choose one of them",
    },
  ])("refuses $what", async ({ more, code, says }) => {
    const { config, certs } = await twoPartners();
    const ran = await ca(["sign", "--csr", csr, ...more, "--out", join(certs, "a.pem"), "--config", config]);
    expect(ran).toMatchObject({ exitCode: code, err: expect.stringContaining(says) });
    await expect(stat(join(certs, "a.pem"))).rejects.toThrow("ENOENT");
  });
});

describe("ca revoke and ca crl", () => {
  const serverSerial = async (certs: string): Promise<string> =>
    x509(await readFile(join(certs, "server.pem"), "utf8")).serialNumber;

  it("put a certificate on the list, by its file, and record who did it, when and why", async () => {
    const { config, certs } = await bench();
    const ran = await ca(["revoke", join(certs, "server.pem"), "--reason", "superseded", "--config", config]);
    const serial = await serverSerial(certs);
    expect(ran).toMatchObject({ exitCode: 0, err: "" });
    expect(ran.out).toContain(`Revoked certificate ${serial.replace(/^0+/, "")} of CN=mx.corp.example (superseded)`);
    expect(ran.out).toContain("1 certificate, the next one is due on 2027-01-31");
    const [record = ""] = await readdir(join(certs, "revoked"));
    expect(JSON.parse(await readFile(join(certs, "revoked", record), "utf8"))).toEqual({
      serial: serial.replace(/^0+/, ""),
      subject: "CN=mx.corp.example",
      at: "2027-01-01T12:00:00.000Z",
      reason: "superseded",
      by: expect.stringMatching(/./),
    });
    expect((await stat(join(certs, "revoked", record))).mode & 0o777).toBe(0o600);
    expect((await stat(join(certs, "ca.crl"))).mode & 0o777).toBe(0o644);
  });

  it.skipIf(!hasOpenssl)("make what openssl checks by", async () => {
    const { config, certs } = await bench();
    await ca(["issue", "good.corp.example", "--config", config]);
    await ca(["revoke", await serverSerial(certs), "--reason", "keyCompromise", "--config", config]);
    const [anchor, crl] = [join(certs, "ca.pem"), join(certs, "ca.crl")];
    expect(openssl("crl", "-in", crl, "-CAfile", anchor, "-noout", "-text")).toContain("Key Compromise");
    const check = [
      "-x509_strict",
      "-crl_check",
      "-attime",
      String(now.getTime() / 1000),
      "-CAfile",
      anchor,
      "-CRLfile",
      crl,
    ];
    expect(openssl("verify", ...check, join(certs, "good.corp.example.pem"))).toContain("OK");
    expect(() => openssl("verify", ...check, join(certs, "server.pem"))).toThrow("certificate revoked");
  });

  it("keep what was recorded first, where a certificate is revoked again", async () => {
    const { config, certs } = await bench();
    await ca(["revoke", join(certs, "server.pem"), "--reason", "keyCompromise", "--config", config]);
    const later = new Date(now.getTime() + 86_400_000);
    const ran = await ca(["revoke", join(certs, "server.pem"), "--json", "--config", config], later);
    expect(JSON.parse(ran.out)).toMatchObject({ isNew: false, reason: "keyCompromise", at: now.toISOString() });
  });

  it("lose nothing where two revoke at once", async () => {
    const { config, certs } = await bench();
    const serials = ["0A:0B", "0x0c", "D", "0e0f", "10"];
    const ran = await Promise.all(serials.map((serial) => ca(["revoke", serial, "--config", config])));
    expect(ran.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0, 0]);
    const list = parseRevocationList(await readFile(join(certs, "ca.crl")), "ca.crl");
    expect([...list.serials].toSorted()).toEqual(["10", "A0B", "C", "D", "E0F"]);
  });

  it("count upwards, and not only with the clock", async () => {
    const { config } = await bench();
    const numberAt = async (at: Date): Promise<bigint> =>
      BigInt(JSON.parse((await ca(["crl", "--json", "--config", config], at)).out).number);
    const first = await numberAt(now);
    expect(await numberAt(now)).toBe(first + 1n);
    expect(await numberAt(new Date(now.getTime() - 60_000))).toBe(first + 2n);
    expect(await numberAt(new Date(now.getTime() + 60_000))).toBe(first + 60n);
  });

  it("write an empty list for so many days", async () => {
    const { config, certs } = await bench();
    const ran = await ca(["crl", "--days", "7", "--config", config]);
    expect(ran.out).toMatch(/ca\.crl: 0 certificates, the next one is due on 2027-01-08\n$/);
    const list = parseRevocationList(await readFile(join(certs, "ca.crl")), "ca.crl");
    expect(list.isOf(x509(await readFile(join(certs, "ca.pem"), "utf8")))).toBe(true);
  });

  it.each([
    {
      what: "a certificate of another CA",
      args: ["revoke", fixturePath("self-signed.pem")],
      says: "is not of this CA",
      code: 1,
    },
    { what: "the CA itself", args: ["revoke", "CERTS/ca.pem"], says: "is the CA itself", code: 1 },
    { what: "a key", args: ["revoke", "CERTS/server.key"], says: "holds a private key", code: 1 },
    { what: "no file and no number", args: ["revoke", "acme.pem"], says: "acme.pem: no such file", code: 1 },
    { what: "a number of no certificate", args: ["revoke", "0".repeat(8)], says: "is no serial number", code: 1 },
    { what: "a number that is too long", args: ["revoke", "F".repeat(41)], says: "is no serial number", code: 1 },
    {
      what: "an unknown reason",
      args: ["revoke", "0A", "--reason", "bored"],
      says: "Allowed choices are unspecified, keyCompromise",
      code: 2,
    },
    { what: "nothing", args: ["revoke"], says: "missing required argument", code: 2 },
    { what: "a list for no days", args: ["crl", "--days", "0"], says: "whole number of days", code: 2 },
  ])("refuse $what, and change nothing", async ({ args, says, code }) => {
    const { config, certs } = await bench();
    const before = await readdir(certs);
    const ran = await ca([...args.map((one) => one.replace("CERTS", certs)), "--config", config]);
    expect(ran).toMatchObject({ exitCode: code, err: expect.stringContaining(says) });
    expect(await readdir(certs)).toEqual(before);
  });

  it("make no list without a record that is damaged: its certificate would count again", async () => {
    const { config, certs } = await bench();
    await ca(["revoke", "0A", "--config", config]);
    await writeFile(join(certs, "revoked", "A.json"), "{");
    const ran = await ca(["crl", "--config", config]);
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining("A.json: is damaged") });
  });

  it("never replace what is no list of the CA's", async () => {
    const { config, certs } = await bench();
    await writeFile(join(certs, "ca.crl"), "my notes");
    const ran = await ca(["crl", "--config", config]);
    expect(ran).toMatchObject({ exitCode: 1, err: expect.stringContaining("ca.crl: holds neither PEM nor DER") });
    expect(await readFile(join(certs, "ca.crl"), "utf8")).toBe("my notes");
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
