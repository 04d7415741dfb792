import { describe, expect, it } from "vitest";
import { chmod, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import { runCheck, type CheckResult } from "../../src/cli/check.ts";
import { spkiDigest } from "../../src/partner/pin.ts";
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
  it("says how many days the certificate has left, and that all is well", async () => {
    expect(await check({})).toMatchObject({
      exitCode: 0,
      output: ` days  ends        state  what                subject
34166  2120-01-01  ok     server certificate  CN=mx.corp.example
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
      "relay.yaml:4: error: tls.certificate: server.pem (CN=mx.corp.example) expired on 2026-06-15, less than a day ago: renew it",
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
      "relay.yaml:4: error: tls.certificate: server.pem (CN=CA) expired on 2026-01-01, 165 days ago: ask your CA for the present chain",
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
      "relay.yaml:9: error: routes.internal.servers[0].tls.trust-anchor: ca.pem (CN=Inside CA) expired on 2026-01-01, 165 days ago: put the CA's next certificate",
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
      "relay.yaml:4: warning: tls.certificate: server.pem (CN=mx.corp.example) ends on 2026-07-14, in 28 days: renew it",
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
      { "partners/acme.yaml": partnerYaml(deliver).replace('" }]', '", not-after: 2026-06-24 }]') },
      nothing,
      "partners/acme.yaml:2: warning: pins[0].not-after: this pin key 54T/ebkR ends on 2026-06-24, in 9 days: ask the partner for its next certificate, and run pinrelay partner rollover acme",
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
      "relay.yaml:9: warning: routes.internal.servers[0].tls.trust-anchor: ca.pem (CN=Old CA) expired on 2026-01-01, 165 days ago: put",
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

  it.each<[string, Record<string, string>, (folder: string) => Promise<unknown>, string]>([
    [
      "a certificate that ends within days",
      withCertificate(mint({ notAfter: "2026-06-22" })),
      nothing,
      "relay.yaml:4: warning: tls.certificate: server.pem (CN=mx.corp.example) ends on 2026-06-22, in 6 days: renew it",
    ],
    [
      "a pin that ends within days",
      { "partners/acme.yaml": partnerYaml(deliver).replace('" }]', '", not-after: 2026-06-20 }]') },
      nothing,
      "partners/acme.yaml:2: warning: pins[0].not-after: this pin key 54T/ebkR ends on 2026-06-20, in 5 days",
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
      "partners/acme.yaml:2: warning: pins[0].trust-anchor: ca.pem (CN=ACME CA) expired on 2026-01-01, 165 days ago: ask the partner for its CA's next certificate",
    ],
    [
      "thresholds of its own",
      {
        "relay.yaml": relayYaml(`${spool}expiry: { warn: 90d, critical: 60d }\n`),
        ...withCertificate(mint({ notAfter: "2026-07-14" })),
      },
      nothing,
      "relay.yaml:4: warning: tls.certificate: server.pem (CN=mx.corp.example) ends on 2026-07-14, in 28 days: renew it",
    ],
  ])("warns of %s, and ends with 1 for monitoring", async (_name, changed, prepare, expected) => {
    const { exitCode, lines } = await check(changed, prepare);
    expect(exitCode).toBe(1);
    expect(lines.filter((line) => line.includes(": warning: "))).toEqual([expect.stringContaining(expected)]);
  });

  it("sorts by urgency what runs out, in a table of 80 columns", async () => {
    const { exitCode, lines } = await check({
      ...withCertificate(mint({ notAfter: "2026-07-14" })),
      "partners/acme.yaml": partnerYaml(deliver).replace(
        "}]",
        `}, { trust-anchor: ../ca.pem, name: a.b, not-after: 2026-06-20, label: "${"long ".repeat(20)}" }]`,
      ),
      "ca.pem": mint({ ca: true, commonName: "ACME\u001b[31m CA", notAfter: "2026-01-01" }).pem,
    });
    expect(exitCode).toBe(1);
    const table = lines.slice(
      lines.findIndex((line) => line.startsWith("days")),
      -2,
    );
    expect(table.map((line) => line.slice(0, 26))).toEqual([
      "days  ends        state   ",
      "-166  2026-01-01  expired ",
      "   5  2026-06-20  critical",
      "  28  2026-07-14  warning ",
    ]);
    expect(Math.max(...table.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(lines.join()).not.toContain("\u001b");
    expect(lines.at(-2)).toContain("; 3 items run out soon (1 expired, 1 critical)");
  });

  it("warns of thresholds in the wrong order", async () => {
    const { lines } = await check({ "relay.yaml": relayYaml(`${spool}expiry: { warn: 5d }\n`) });
    expect(lines.filter((line) => line.includes(": warning: "))).toEqual([
      "relay.yaml:11: warning: expiry.critical: is longer than `expiry.warn`: nothing is ever warned of, it is critical at once",
    ]);
  });

  it("looks at our CA, and at what it signed for a partner who has not shown it yet", async () => {
    const signed = mint({ commonName: "mx.acme.example", notAfter: "2026-06-18" });
    const folder = await folderWith({
      "certs/ca.pem": mint({ ca: true, commonName: "Our CA", notAfter: "2026-06-30" }).pem,
      "certs/partners/acme.pem": signed.pem,
      "certs/partners/globex.pem": mint({ notAfter: "2026-06-17" }).pem, // of a pin that is gone
      ...Object.fromEntries(
        Object.entries(
          configFiles({ ...quiet, "partners/acme.yaml": partnerYaml(deliver, spkiDigest(signed.certificate)) }),
        ).map(([name, content]) => [`config/${name}`, content]),
      ),
    });
    const { exitCode, output } = await runCheck(join(folder, "config/relay.yaml"), { json: true, now, cwd: folder });
    expect(exitCode).toBe(1);
    const { expiry } = JSON.parse(output) as { expiry: Array<Record<string, unknown>> };
    expect(expiry.map(({ what, partner, state }) => [what, partner, state])).toEqual([
      ["signed certificate", "acme", "critical"],
      ["CA certificate", undefined, "warning"],
      ["server certificate", undefined, "ok"],
    ]);
  });

  it("names a loop of links for what it is", async () => {
    const { exitCode, lines } = await check({}, async (folder) => {
      await rm(join(folder, "server.key"));
      await symlink("server.key", join(folder, "server.key"));
    });
    expect(exitCode).toBe(2);
    expect(lines).toContain("relay.yaml:5: error: tls.key: server.key is a loop of symbolic links");
  });

  it("warns that a partner has no pin left", async () => {
    const { exitCode, lines } = await check({
      "partners/acme.yaml": partnerYaml(deliver).replace('" }]', '", not-after: 2026-06-01 }]'),
    });
    expect(exitCode).toBe(1);
    expect(lines.filter((line) => line.includes(": warning: "))).toEqual([
      expect.stringContaining("partners/acme.yaml:2: warning: pins[0].not-after: is past"),
      expect.stringContaining("partners/acme.yaml:2: warning: pins: no pin counts: the partner can send nothing"),
    ]);
  });

  it("notes what has no effect, and who gets no mail", async () => {
    const { exitCode, lines } = await check({
      "relay.yaml": relayYaml(`${spool}audit: { path: audit }\nconsole: { listen: 127.0.0.1:8025 }\n`),
      "partners/acme.yaml": partnerYaml(),
    });
    expect(exitCode).toBe(0);
    expect(lines.slice(0, 2)).toEqual([
      "partners/acme.yaml:1: note: deliver: absent: the partner gets no mail, and reports about its mail go to our postmaster",
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
        { severity: "note", file, line: 11, keyPath: "console", message: expect.stringContaining("has no effect") },
      ],
      expiry: [
        {
          what: "server certificate",
          file: join(folder, "server.pem"),
          subject: "CN=mx.corp.example",
          endsAt: "2120-01-01T00:00:00.000Z",
          daysLeft: 34166,
          state: "ok",
        },
        {
          what: "trust anchor",
          partner: "acme",
          file: join(folder, "ca.pem"),
          subject: "CN=Inside CA",
          pin: expect.stringMatching(/^trust-anchor sha256\/.{44} for a\.b$/),
          endsAt: "2120-01-01T00:00:00.000Z",
          daysLeft: 34166,
          state: "ok",
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
      expiry: [],
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
