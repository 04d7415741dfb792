import { describe, expect, it } from "vitest";
import { chmod, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import { runCheck, type CheckResult } from "../../src/cli/check.ts";
import {
  authority,
  configFiles,
  digests,
  folderWith,
  mint,
  now,
  partnerYaml,
  relayYaml,
  server,
  type Minted,
} from "./support.ts";

const spool = "spool: { path: var/spool }\n";
const deliver = `deliver: { domains: [acme.example], servers: [{ address: 192.0.2.1, pin: "${digests[2]}" }] }\n`;
/** A configuration that leaves nothing to say but how long the certificate is valid. */
const quiet = { "relay.yaml": relayYaml(spool), "partners/acme.yaml": partnerYaml(deliver) };

async function check(
  changed: Readonly<Record<string, string | Uint8Array>>,
  prepare: (folder: string) => Promise<unknown> = async () => undefined,
): Promise<CheckResult & { lines: string[] }> {
  const folder = await folderWith(configFiles({ ...quiet, ...changed }));
  await prepare(folder);
  const result = await runCheck(join(folder, "relay.yaml"), { json: false, now, cwd: folder });
  const output = result.output.replaceAll(`${folder}/`, "").replace(/version [0-9a-f]{12}/, "version V");
  return { ...result, output, lines: output.split("\n") };
}

function withCertificate(minted: Minted): Record<string, string> {
  return { "server.pem": minted.pem, "server.key": minted.keyPem };
}

describe("pinrelay check", () => {
  it("says how long the certificate is valid, and that all is well", async () => {
    expect(await check({})).toMatchObject({
      exitCode: 0,
      output: `relay.yaml:4: note: tls.certificate: CN=mx.corp.example: valid until 2120-01-01, 34166 days left
relay.yaml: valid: 1 partner, 1 route, version V; 0 errors, 0 warnings
`,
    });
  });

  it("changes nothing: the spool is not made", async () => {
    let made = "";
    await check({}, async (folder) => (made = folder));
    expect((await readdir(made)).toSorted()).toEqual(["partners", "relay.yaml", "server.key", "server.pem"]);
  });

  it("lists all that is wrong with the files, and ends with 2", async () => {
    const { exitCode, lines } = await check({
      "relay.yaml": relayYaml("x: 1\n"),
      "partners/acme.yaml": partnerYaml("mode: off\nhosts: [any]\n"),
    });
    expect(exitCode).toBe(2);
    expect(lines).toEqual([
      expect.stringContaining("relay.yaml:10: error: x: is no key"),
      expect.stringContaining("partners/acme.yaml:5: error: mode: must be enforce or observe"),
      "partners/acme.yaml:6: error: hosts: is given twice, first in line 1: remove one of them",
      "relay.yaml: invalid: 3 errors, 0 warnings",
      "",
    ]);
  });

  it.each<[string, Record<string, string>, (folder: string) => Promise<unknown>, string]>([
    [
      "a certificate of the past",
      withCertificate(mint({ notAfter: "2026-06-15" })),
      nothing,
      "relay.yaml:4: error: tls.certificate: server.pem (CN=mx.corp.example) has expired on 2026-06-15: renew it",
    ],
    [
      "a certificate of the future",
      withCertificate(mint({ notBefore: "2026-06-16" })),
      nothing,
      "relay.yaml:4: error: tls.certificate: server.pem (CN=mx.corp.example) is not valid before 2026-06-16T00:00:00.000Z",
    ],
    [
      "an intermediate of the past",
      { "server.pem": server.pem + mint({ ca: true, commonName: "CA", notAfter: "2026-01-01" }).pem },
      nothing,
      "relay.yaml:4: error: tls.certificate: server.pem (CN=CA) has expired",
    ],
    [
      "a missing key",
      {},
      async (folder) => rm(join(folder, "server.key")),
      "relay.yaml:5: error: tls.key: server.key does not exist: the key of `tls.certificate` belongs there",
    ],
    [
      "a key that others may read",
      {},
      async (folder) => chmod(join(folder, "server.key"), 0o640),
      "relay.yaml:5: error: tls.key: server.key is open to others (mode 640): chmod 600",
    ],
    [
      "a key that the world may read",
      {},
      async (folder) => chmod(join(folder, "server.key"), 0o604),
      "relay.yaml:5: error: tls.key: server.key is open to others (mode 604): chmod 600",
    ],
    [
      "a folder for a key",
      {},
      async (folder) => {
        await rm(join(folder, "server.key"));
        await mkdir(join(folder, "server.key"), { mode: 0o700 });
      },
      "relay.yaml:5: error: tls.key: server.key is a folder",
    ],
    [
      "text for a key",
      { "server.key": "hello" },
      nothing,
      "relay.yaml:5: error: tls.key: server.key holds no private key in PEM",
    ],
    [
      "a certificate for a key",
      { "server.key": server.pem },
      nothing,
      "relay.yaml:5: error: tls.key: server.key holds no private key in PEM",
    ],
    [
      "an encrypted key",
      { "server.key": encryptedKey() },
      nothing,
      "relay.yaml:5: error: tls.key: server.key is encrypted, and a relay has nobody to ask",
    ],
    [
      "another key",
      { "server.key": mint({}).keyPem },
      nothing,
      "relay.yaml:5: error: tls.key: server.key is not the key of `tls.certificate`",
    ],
    ["a file for a spool", { "var/spool": "" }, nothing, "relay.yaml:10: error: spool.path: var/spool is no folder"],
    [
      "a file on the way to the spool",
      { var: "" },
      nothing,
      "relay.yaml:10: error: spool.path: var/spool is not in a folder",
    ],
    [
      "a spool that everybody may write",
      {},
      async (folder) => {
        await mkdir(join(folder, "var/spool"), { recursive: true });
        await chmod(join(folder, "var/spool"), 0o777);
      },
      "relay.yaml:10: error: spool.path: var/spool may be written by everybody: chmod o-w",
    ],
    [
      "an inside CA of the past",
      {
        "relay.yaml": relayYaml(spool).replace(
          /\{ address: 10.*\}/,
          "{ address: 10.1.0.10, name: a.b, tls: { trust-anchor: ca.pem } }",
        ),
        "ca.pem": mint({ ca: true, commonName: "Inside CA", notAfter: "2026-01-01" }).pem,
      },
      nothing,
      "relay.yaml:9: error: routes.internal.servers[0].tls.trust-anchor: ca.pem (CN=Inside CA) has expired on 2026-01-01",
    ],
  ])("ends with 2 for %s", async (_name, changed, prepare, expected) => {
    const { exitCode, lines } = await check(changed, prepare);
    expect(exitCode).toBe(2);
    expect(lines.filter((line) => line.includes(": error: "))).toEqual([expect.stringContaining(expected)]);
  });

  it.each<[string, Record<string, string>, (folder: string) => Promise<unknown>, string]>([
    [
      "a certificate that ends soon",
      withCertificate(mint({ notAfter: "2026-07-14" })),
      nothing,
      "relay.yaml:4: warning: tls.certificate: server.pem (CN=mx.corp.example) expires soon, valid until 2026-07-14, 28 days left",
    ],
    [
      "a certificate in another name",
      withCertificate(mint({ dnsName: "mail.corp.example" })),
      nothing,
      "relay.yaml:4: warning: tls.certificate: does not carry the hostname mx.corp.example but DNS:mail.corp.example",
    ],
    [
      "a chain out of order",
      { "server.pem": server.pem + authority.pem },
      nothing,
      "relay.yaml:4: warning: tls.certificate: its second certificate did not issue the first",
    ],
    [
      "a pin that ends soon",
      { "partners/acme.yaml": partnerYaml(deliver).replace('" }]', '", not-after: 2026-06-20 }]') },
      nothing,
      "partners/acme.yaml:2: warning: pins[0].not-after: this pin ends in 5 days: is the next one there?",
    ],
    [
      "a partner's CA of the past",
      {
        "partners/acme.yaml": partnerYaml(deliver).replace(
          /pins: .*/,
          "pins: [{ trust-anchor: ../ca.pem, name: a.b }]",
        ),
        "ca.pem": mint({ ca: true, commonName: "ACME CA", notAfter: "2026-01-01" }).pem,
      },
      nothing,
      "partners/acme.yaml:2: warning: pins[0].trust-anchor: ca.pem (CN=ACME CA) has expired on 2026-01-01",
    ],
    [
      "one of two CAs that ends",
      {
        "relay.yaml": relayYaml(spool).replace(
          /\{ address: 10.*\}/,
          "{ address: 10.1.0.10, name: a.b, tls: { trust-anchor: ca.pem } }",
        ),
        "ca.pem": mint({ ca: true, commonName: "Old CA", notAfter: "2026-01-01" }).pem + authority.pem,
      },
      nothing,
      "relay.yaml:9: warning: routes.internal.servers[0].tls.trust-anchor: ca.pem (CN=Old CA) has expired",
    ],
    [
      "a file that everybody may write",
      {},
      async (folder) => chmod(join(folder, "partners/acme.yaml"), 0o666),
      "partners/acme.yaml: warning: may be written by everybody: chmod o-w partners/acme.yaml",
    ],
    [
      "a folder that everybody may write",
      {},
      async (folder) => chmod(join(folder, "partners"), 0o777),
      "partners: warning: may be written by everybody",
    ],
  ])("warns of %s", async (_name, changed, prepare, expected) => {
    const { exitCode, lines } = await check(changed, prepare);
    expect(exitCode).toBe(0);
    expect(lines.filter((line) => line.includes(": warning: "))).toEqual([expect.stringContaining(expected)]);
  });

  it("warns that a partner has no pin left", async () => {
    const { exitCode, lines } = await check({
      "partners/acme.yaml": partnerYaml(deliver).replace('" }]', '", not-after: 2026-06-01 }]'),
    });
    expect(exitCode).toBe(0);
    expect(lines.filter((line) => line.includes(": warning: "))).toEqual([
      expect.stringContaining("partners/acme.yaml:2: warning: pins[0].not-after: is past"),
      expect.stringContaining(
        "partners/acme.yaml:2: warning: pins: no pin counts any more: the partner can send nothing",
      ),
    ]);
  });

  it("notes what has no effect, and who gets no mail", async () => {
    const { exitCode, lines } = await check({
      "relay.yaml": relayYaml(`${spool}audit: { path: audit }\nconsole: { listen: 127.0.0.1:8025 }\n`),
      "partners/acme.yaml": partnerYaml(),
    });
    expect(exitCode).toBe(0);
    expect(lines.slice(1, 4)).toEqual([
      "partners/acme.yaml:1: note: deliver: absent: the partner gets no mail, and reports about its mail go to our postmaster",
      "relay.yaml:11: note: audit: has no effect: this version writes no audit trail",
      "relay.yaml:12: note: console: has no effect: this version serves no console",
    ]);
  });

  it("takes a spool that is there, and a key behind a link", async () => {
    const { exitCode } = await check({}, async (folder) => {
      await mkdir(join(folder, "var/spool"), { recursive: true, mode: 0o700 });
      await rm(join(folder, "server.key"));
      await writeFile(join(folder, "real.key"), server.keyPem, { mode: 0o600 });
      await symlink("real.key", join(folder, "server.key"));
    });
    expect(exitCode).toBe(0);
  });

  it("prints JSON for machines", async () => {
    const folder = await folderWith(
      configFiles({
        "relay.yaml": relayYaml("spool: { path: var/spool }\nconsole: {}\n"),
        "partners/acme.yaml": partnerYaml(deliver).replace("}]", "}, { trust-anchor: ../ca.pem, name: a.b }]"),
        "ca.pem": authority.pem,
      }),
    );
    const { exitCode, output } = await runCheck(join(folder, "relay.yaml"), { json: true, now });
    expect(exitCode).toBe(0);
    const file = join(folder, "relay.yaml");
    expect(JSON.parse(output)).toEqual({
      ok: true,
      problems: [
        { severity: "note", file, line: 4, keyPath: "tls.certificate", message: expect.stringContaining("34166 days") },
        { severity: "note", file, line: 11, keyPath: "console", message: expect.stringContaining("has no effect") },
      ],
      certificates: [
        {
          what: "tls.certificate",
          file: join(folder, "server.pem"),
          subject: "CN=mx.corp.example",
          notAfter: "2120-01-01T00:00:00.000Z",
          daysLeft: 34166,
        },
        {
          what: "acme: pins[1].trust-anchor",
          file: join(folder, "ca.pem"),
          subject: "CN=Inside CA",
          notAfter: "2120-01-01T00:00:00.000Z",
          daysLeft: 34166,
        },
      ],
    });
  });

  it("prints JSON for what is wrong", async () => {
    const folder = await folderWith({});
    const { exitCode, output } = await runCheck(join(folder, "relay.yaml"), { json: true, now });
    expect(exitCode).toBe(2);
    expect(JSON.parse(output)).toEqual({
      ok: false,
      problems: [{ severity: "error", file: join(folder, "relay.yaml"), keyPath: "", message: "does not exist" }],
      certificates: [],
    });
  });
});

async function nothing(): Promise<void> {}

function encryptedKey(): string {
  return generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "secret" },
  }).privateKey;
}
