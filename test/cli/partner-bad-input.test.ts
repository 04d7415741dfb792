/** What operators are sent and type by mistake: each is one line that names the file, and nothing has changed. */
import { X509Certificate } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { issue } from "../../src/certs/ca.ts";
import { fingerprintForms } from "../../src/partner/fingerprint.ts";
import { certificateDigest, spkiDigest } from "../../src/partner/pin.ts";
import { fixture, fixturePath, fixtureDer } from "../certs/support.ts";
import { bench, confirmWith, enrolCert, now, partner, rules, selfSigned, snapshot, type Bench } from "./support.ts";

const good = fixture("self-signed.pem").toString("latin1");
const key = spkiDigest(selfSigned);

interface Case {
  readonly what: string;
  readonly content: string | Buffer;
  readonly says: string;
}

const badCertificates: readonly Case[] = [
  { what: "an empty file", content: "", says: "is empty" },
  { what: "broken PEM", content: good.replace(/\n.{20}/, "\n!"), says: "" },
  { what: "PEM without its end", content: good.slice(0, 300), says: "" },
  { what: "damaged DER", content: fixtureDer("self-signed.pem").subarray(0, 200), says: "is damaged" },
  { what: "PKCS #12", content: Buffer.from(fixture("pkcs12.base64").toString(), "base64"), says: "openssl pkcs12" },
  { what: "PKCS #7", content: fixture("pkcs7.pem"), says: "openssl pkcs7" },
  { what: "a request", content: fixture("p256.csr.pem"), says: "give it as --csr" },
  { what: "several certificates", content: good + fixture("pss-sha256.pem").toString(), says: "leave only the one" },
  { what: "a short RSA key", content: fixture("rsa1024.pem"), says: "only 1024 bits" },
  { what: "a SHA-1 signature", content: fixture("sha1.pem"), says: "signed with SHA-1" },
  { what: "a curve that TLS does not use", content: fixture("secp256k1.pem"), says: "on the curve" },
  { what: "something else", content: "Dear postmaster,\n", says: "neither PEM nor DER" },
];

/** The key of our own relay stands in for a private key that was sent. */
async function withFile(at: Bench, content: string | Buffer): Promise<string> {
  const file = join(dirname(at.partners), "..", "sent.pem");
  await writeFile(file, content);
  return file;
}

/** Runs a command; it must end with this status and one line that holds the words, and leave everything as it was. */
async function refused(at: Bench, exitCode: 1 | 2, args: readonly string[], says: readonly string[]): Promise<void> {
  const root = join(at.config, "../..");
  const before = await snapshot(root);
  const ran = await partner([...args, "--config", at.config]);
  expect(ran).toMatchObject({ exitCode });
  const lines = ran.err.split("\n").filter((line) => line !== "" && !line.startsWith("warning: "));
  expect(lines).toHaveLength(1);
  for (const words of says) expect(lines[0]).toContain(words);
  expect(await snapshot(root)).toEqual(before);
}

describe.each(["enrol", "rollover"])("partner %s --cert", (command) => {
  let at: Bench;
  let args: readonly string[];
  beforeAll(() => {
    args = command === "enrol" ? ["enrol", "acme", ...rules] : ["rollover", "acme"];
  });

  async function prepared(): Promise<Bench> {
    const made = await bench();
    if (command === "rollover") {
      const csr = ["--csr", fixturePath("p384.csr.pem")];
      await partner(["enrol", "acme", ...csr, ...rules, "--config", made.config]);
      const signed = new X509Certificate(await readFile(join(made.certs, "partners/acme.pem")));
      expect((await confirmWith(made, "acme", spkiDigest(signed))).exitCode).toBe(0);
    }
    return made;
  }

  it.each(badCertificates)("refuses $what", async ({ content, says }) => {
    at = await prepared();
    const file = await withFile(at, content);
    await refused(at, 1, [...args, "--cert", file], ["sent.pem: ", says]);
  });

  it("refuses a private key, a folder, and what is not there", async () => {
    at = await prepared();
    await refused(at, 1, [...args, "--cert", join(at.certs, "server.key")], ["server.key: holds a private key"]);
    await refused(at, 1, [...args, "--cert", at.certs], ["certs: is a folder"]);
    await refused(at, 1, [...args, "--cert", join(at.certs, "none.pem")], ["none.pem: no such file"]);
  });

  it.each([
    { form: "as DER", content: fixtureDer("self-signed.pem") },
    { form: "with CRLF line ends", content: good.replaceAll("\n", "\r\n") },
  ])("takes a certificate $form", async ({ content }) => {
    at = await prepared();
    const file = await withFile(at, content);
    expect((await partner([...args, "--cert", file, "--config", at.config])).exitCode).toBe(0);
    expect((await confirmWith(at, "acme", key)).exitCode).toBe(0);
  });

  it("takes a certificate that is not valid yet, and warns", async () => {
    at = await prepared();
    const early = new Date("2027-03-01T00:00:00Z");
    const plan = {
      directory: at.certs,
      commonName: "early",
      dnsNames: [],
      ipAddresses: [],
      days: 30,
      now: early,
    } as const;
    const file = await withFile(at, (await issue({ ...plan, usages: "client" })).certificatePem);
    const ran = await partner([...args, "--cert", file, "--config", at.config]);
    expect(ran).toMatchObject({ exitCode: 0, err: expect.stringContaining("is not valid before 2027-0") });
  });

  it("refuses a key that another partner has, as key and as certificate", async () => {
    at = await prepared();
    await enrolCert(at, "globex");
    for (const more of [[], ["--pin-certificate"]]) {
      const file = fixturePath("self-signed.pem");
      await refused(
        at,
        1,
        [...args, "--cert", file, ...more],
        ["self-signed.pem: its key already identifies", "'globex'"],
      );
    }
    await refused(at, 1, [...args, "--pin", key], ["--pin: its key already identifies the partner 'globex'"]);
  });

  it("refuses the relay's own certificate", async () => {
    at = await prepared();
    const file = join(at.certs, "server.pem");
    await refused(at, 1, [...args, "--cert", file], ["server.pem: is the certificate of our own relay"]);
  });

  it.each([
    { csr: "own-hostname.csr.pem", says: "is not signed: it claims 'MX.Corp.Example', which is a name of ours" },
    { csr: "wildcard.csr.pem", says: "the wildcard" },
    { csr: "broken-signature.csr.pem", says: "has a signature that does not fit" },
    { csr: "sha1.csr.pem", says: "signed with SHA-1" },
    { csr: "self-signed.pem", says: "give it as --cert" },
  ])("refuses the request in $csr", async ({ csr, says }) => {
    at = await prepared();
    await refused(at, 1, [...args, "--csr", fixturePath(csr)], [`${csr}: `, says]);
  });

  it.each([
    { what: "no source", more: [], says: "give exactly one of --cert, --csr" },
    { what: "two sources", more: ["--cert", "a.pem", "--pin", key], says: "not --cert and --pin" },
    { what: "half a fingerprint", more: ["--pin", key.slice(0, 30)], says: "--pin: " },
    {
      what: "a host that is a name",
      more: ["--from-host", "mx.acme.example:25"],
      says: "--from-host mx.acme.example:25: ",
    },
    { what: "a port too high", more: ["--from-host", "203.0.113.5:70000"], says: "as 203.0.113.5:25" },
    {
      what: "an option of another source",
      more: ["--cert", "a.pem", "--implicit-tls"],
      says: "goes with --from-host only",
    },
    {
      what: "a certificate to pin that nobody has",
      more: ["--pin", key, "--pin-certificate"],
      says: "needs the partner's",
    },
  ])("refuses $what", async ({ more, says }) => {
    at = await prepared();
    await refused(at, 2, [...args, ...more], [says]);
  });

  it.each(["0123456789ab", "../../etc/passwd"])("refuses the quarantine id %s, which nothing has", async (id) => {
    at = await prepared();
    await refused(at, 1, [...args, "--from-quarantine", id], [`nothing in quarantine has the id '${id}'`]);
  });
});

describe("partner enrol", () => {
  it.each(["../acme", "ACME", "acme/x", ".acme", "acme.yaml", "a".repeat(64), "", "acme\u0000"])(
    "refuses the name %j",
    async (name) => {
      const at = await bench();
      await refused(
        at,
        2,
        ["enrol", name, "--cert", fixturePath("self-signed.pem"), ...rules],
        ["is no name for a partner"],
      );
    },
  );

  it("never touches a partner that is there, and names the command that does", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const args = ["enrol", "acme", "--csr", fixturePath("p384.csr.pem"), ...rules];
    await refused(at, 1, args, ["acme.yaml: exists and is left as it is", "pinrelay partner rollover acme"]);
  });

  it("refuses a trust anchor that is none, several of them, and one without a name", async () => {
    const at = await bench();
    const args = ["enrol", "acme", ...rules, "--trust-anchor"];
    const ca = await readFile(join(at.certs, "ca.pem"), "utf8");
    const leaf = join(at.certs, "server.pem");
    await refused(at, 1, [...args, leaf, "--name", "mx.acme.example"], ["server.pem: is no CA's certificate"]);
    const both = await withFile(at, ca + ca);
    await refused(at, 1, [...args, both, "--name", "mx.acme.example"], ["sent.pem: holds 2 certificates"]);
    for (const name of ["mx.corp.example", "host.corp.test"]) {
      await refused(at, 1, [...args, join(at.certs, "ca.pem"), "--name", name], [`--name ${name}: is a name of ours`]);
    }
    await refused(at, 2, [...args, join(at.certs, "ca.pem")], ["--name is missing"]);
    await refused(at, 2, [...args, join(at.certs, "ca.pem"), "--name", "no name"], ["'no name' is no domain name"]);
  });

  it("refuses half of what mail to the partner needs", async () => {
    const at = await bench();
    const args = ["enrol", "acme", "--cert", fixturePath("self-signed.pem"), ...rules];
    await refused(at, 2, [...args, "--deliver-domain", "acme.example"], ["--deliver-pin together"]);
    const whole = ["--deliver-domain", "acme.example", "--deliver-pin", key, "--deliver-server"];
    await refused(
      at,
      2,
      [...args, ...whole, "mx.acme.example"],
      ["--deliver-server mx.acme.example: write an address"],
    );
  });
});

describe("partner confirm, rollover and revoke", () => {
  async function confirmed(): Promise<Bench> {
    const at = await bench();
    await enrolCert(at, "acme");
    await confirmWith(at, "acme", key);
    return at;
  }

  it.each([
    { what: "a partner that is not there", args: ["confirm", "nobody", key], exitCode: 1, says: "no partner 'nobody'" },
    {
      what: "a name that leads elsewhere",
      args: ["confirm", "../acme", key],
      exitCode: 1,
      says: "no partner '../acme'",
    },
    { what: "half a fingerprint", args: ["confirm", "acme", "abandon", "ability"], exitCode: 2, says: "" },
    { what: "an empty standard input", args: ["confirm", "acme", "-"], exitCode: 2, says: "" },
    {
      what: "a day that is none",
      args: ["rollover", "acme", "--csr", fixturePath("p384.csr.pem"), "--not-before", "2027-02-31"],
      exitCode: 2,
      says: "acme.yaml",
    },
    { what: "two ends at once", args: ["rollover", "acme", "--finish", "--cancel"], exitCode: 2, says: "go alone" },
    {
      what: "an end with a source",
      args: ["rollover", "acme", "--finish", "--pin", key],
      exitCode: 2,
      says: "go alone",
    },
    { what: "two ways to name a pin", args: ["revoke", "acme", key, "--all"], exitCode: 2, says: "in one way" },
    { what: "revocation that nobody confirms", args: ["revoke", "acme"], exitCode: 2, says: "add --yes" },
  ] as const)("refuse $what", async ({ args, exitCode, says }) => {
    await refused(await confirmed(), exitCode, args, [says]);
  });

  it("refuse words of which one was misheard", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const words = fingerprintForms(key).words.split(" ");
    words[3] = words[3] === "zoo" ? "zone" : "zoo";
    await refused(at, 2, ["confirm", "acme", ...words], [""]);
  });

  it("keep what somebody else writes into the file meanwhile", async () => {
    const at = await confirmed();
    const file = join(at.partners, "acme.yaml");
    const ran = await partner(["revoke", "acme", "--config", at.config], now, {
      ask: async () => {
        await writeFile(file, `${await readFile(file, "utf8")}# they moved\n`);
        return "acme";
      },
    });
    expect(ran.exitCode).toBe(0);
    expect(await readFile(file, "utf8")).toMatch(/revoked[^]*# they moved\n$/);
  });

  it("leave a file alone whose pins have become others meanwhile", async () => {
    const at = await confirmed();
    const file = join(at.partners, "acme.yaml");
    const theirs = (await readFile(file, "utf8")).replaceAll(key, certificateDigest(selfSigned));
    const ran = await partner(["revoke", "acme", "--config", at.config], now, {
      ask: async () => {
        await writeFile(file, theirs);
        return "acme";
      },
    });
    expect(ran).toMatchObject({ exitCode: 2, err: expect.stringContaining("acme.yaml") });
    expect(await readFile(file, "utf8")).toBe(theirs);
  });

  it("say so where the journal cannot be written, and keep the certificate that the file speaks of", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    const journal = join(at.config, "../../var/audit/operator.jsonl");
    await rm(journal);
    await mkdir(journal);
    const says = expect.stringContaining("acme.yaml is changed, but that cannot be recorded") as string;
    expect(await confirmWith(at, "acme", key)).toMatchObject({ exitCode: 1, err: says });
    const csr = ["rollover", "acme", "--csr", fixturePath("p384.csr.pem")];
    expect(await partner([...csr, "--config", at.config])).toMatchObject({ exitCode: 1, err: says });
    expect(await readdir(join(at.certs, "partners"))).toEqual(["acme.pem"]);
  });

  it("take the certificate away again where the partner's file is refused", async () => {
    const at = await confirmed();
    const args = ["rollover", "acme", "--csr", fixturePath("p384.csr.pem"), "--not-after", "2020-01-01"];
    await refused(at, 2, args, ["acme.yaml"]);
  });
});
