/** The kit tells a partner's postmaster what to configure, and nothing that is ours alone. */
import { X509Certificate } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { certificateDigest, spkiDigest } from "../../src/partner/pin.ts";
import { bench, enrolCert, partner, type Bench, type Ran } from "./support.ts";

const listening = (listen: string) => `hostname: mx.corp.example
listen: [${listen}]
tls: { certificate: ../certs/server.pem, key: ../certs/server.key }
routes:
  internal:
    domains: [corp.example, corp.test]
    servers: [{ address: 127.0.0.1, port: 2526, tls: { mode: none } }]
`;
const usual = "{ address: 203.0.113.1, port: 25 }, { address: 203.0.113.1, port: 465, implicit-tls: true }";

async function withPartner(listen = usual): Promise<Bench> {
  const made = await bench(listening(listen));
  await enrolCert(made, "acme");
  return made;
}

const kit = ({ config }: Bench, ...args: string[]): Promise<Ran> =>
  partner(["kit", "acme", "--config", config, ...args]);

const servers = ["postfix", "exim", "opensmtpd", "sendmail", "exchange", "generic"];

describe("partner kit", () => {
  it.each(servers)("for %s tells where, what to trust, what is allowed and how to test", async (server) => {
    const made = await withPartner();
    const { exitCode, out, err } = await kit(made, "--for", server);
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: "" });
    const ours = new X509Certificate(await readFile(join(made.certs, "server.pem")));
    for (const text of [
      "mx.corp.example",
      "203.0.113.1 port 25, STARTTLS",
      "203.0.113.1 port 465, TLS from the first byte",
      "TLSv1.2 or later",
      spkiDigest(ours),
      certificateDigest(ours),
      ours.fingerprint256,
      ours.toString().trim(),
      "from          @acme.example",
      "to            orders@corp.example",
      "probe@mx.corp.example",
      "openssl s_client -starttls smtp -connect 203.0.113.1:25",
      "swaks --server 203.0.113.1 --port 25 --tls --tls-cert",
      "chmod 600",
    ]) {
      expect(out).toContain(text);
    }
    expect(out).not.toContain("PRIVATE KEY");
    expect(out).not.toContain("127.0.0.1"); // our servers inside
    expect(out).not.toContain("corp.test"); // ours, but the partner may not write to it
  });

  it("routes the domains that the partner may write to, and the relay's own name for the probe, to the fixed address", async () => {
    const { out } = await kit(await withPartner(), "--for", "postfix");
    expect(out).toContain("corp.example\tto-mx-corp-example:[203.0.113.1]:25\n");
    expect(out).toContain("mx.corp.example\tto-mx-corp-example:[203.0.113.1]:25\n");
  });

  it("writes files, and overwrites none without --force", async () => {
    const made = await withPartner();
    const out = join(made.config, "..", "kit");
    const first = await kit(made, "--for", "exim", "--out", out);
    expect(first.exitCode).toBe(0);
    const names = [
      "README.txt",
      "exim-router.conf",
      "exim-transport.conf",
      "mx.corp.example-ca.pem",
      "mx.corp.example.pem",
    ];
    expect((await readdir(out)).toSorted()).toEqual(names);
    expect(await readFile(join(out, "README.txt"), "utf8")).toContain("File exim-router.conf: put it at the top");
    await writeFile(join(out, "README.txt"), "mine");
    const second = await kit(made, "--for", "exim", "--out", out);
    expect(second.exitCode).toBe(1);
    expect(second.err).toContain("README.txt: is there already");
    expect(await readFile(join(out, "README.txt"), "utf8")).toBe("mine");
    expect((await kit(made, "--for", "exim", "--out", out, "--force")).exitCode).toBe(0);
    expect(await readFile(join(out, "README.txt"), "utf8")).not.toBe("mine");
  });

  it("says that nobody can connect to a wildcard, and takes --address in its place", async () => {
    const made = await withPartner("{ address: 0.0.0.0, port: 25 }, { address: '::', port: 25 }");
    const unknown = await kit(made, "--for", "postfix");
    expect(unknown.out).toContain("NOTE: The relay listens on all its addresses");
    expect(unknown.err).toContain("--address tells it");
    const known = await kit(made, "--for", "postfix", "--address", "2001:db8::25");
    expect(known.out).toContain("to-mx-corp-example:[ipv6:2001:db8::25]:25\n");
    expect(known.out + known.err).not.toContain("ADDRESS");
    expect((await kit(made, "--address", "[2001:db8::25]:2525")).out).toContain("2001:db8::25 port 2525, STARTTLS");
  });

  it("has the partner's own paths where they are told", async () => {
    const { out } = await kit(
      await withPartner(),
      "--for",
      "sendmail",
      "--partner-cert",
      "/a/c.pem",
      "--partner-key",
      "/a/k.pem",
    );
    expect(out).toContain("TLS_Clt_Features:203.0.113.1\tCertFile=/a/c.pem; KeyFile=/a/k.pem\n");
  });

  it("brings our CA where the server verifies with it", async () => {
    const made = await withPartner();
    const ca = await readFile(join(made.certs, "ca.pem"), "utf8");
    const { out } = await kit(made, "--for", "opensmtpd");
    expect(out).toContain(ca.trim());
    expect(out).toContain('ca "to-mx-corp-example" cert "/etc/mail/mx.corp.example-ca.pem"');
  });

  it("in JSON has everything, for programs", async () => {
    const { out } = await kit(await withPartner(), "--for", "postfix", "--json");
    expect(JSON.parse(out)).toMatchObject({
      partner: "acme",
      for: "postfix",
      probe: "probe@mx.corp.example",
      domains: ["corp.example", "mx.corp.example"],
      endpoint: { address: "203.0.113.1", port: 25 },
      snippets: [{ name: "mx.corp.example.transport" }, { name: "main.cf" }, { name: "master.cf" }],
    });
  });

  it("says of Exchange that nobody has tried it", async () => {
    expect((await kit(await withPartner(), "--for", "exchange")).out).toContain("UNPROVEN");
  });

  it.each<[string, string[], 1 | 2, string]>([
    ["a partner that is not there", ["kit", "nobody"], 1, "there is no partner 'nobody'"],
    ["a server that it does not know", ["kit", "acme", "--for", "qmail"], 2, "Allowed choices are postfix"],
    [
      "an address that is a name",
      ["kit", "acme", "--address", "mx.corp.example"],
      2,
      "--address 'mx.corp.example' is none",
    ],
    ["a port that is none", ["kit", "acme", "--address", "203.0.113.1:70000"], 2, "is none"],
    ["every address in place of one", ["kit", "acme", "--address", "0.0.0.0"], 2, "is none"],
    [
      "a path that breaks out of the snippet",
      ["kit", "acme", "--partner-key", "/a b\n}"],
      2,
      "must be an absolute path",
    ],
    ["a relative path", ["kit", "acme", "--partner-cert", "client.pem"], 2, "must be an absolute path"],
    ["--force without --out", ["kit", "acme", "--force"], 2, "--force goes with --out"],
  ])("refuses %s", async (_, args, code, text) => {
    const { config } = await withPartner();
    const { exitCode, out, err } = await partner([...args, "--config", config]);
    expect({ exitCode, out }).toEqual({ exitCode: code, out: "" });
    expect(err).toContain(text);
  });

  it("refuses where nothing listens with STARTTLS, or at a port that nobody knows", async () => {
    const implicit = await kit(await withPartner("{ address: 203.0.113.1, port: 465, implicit-tls: true }"));
    expect([implicit.exitCode, implicit.err]).toEqual([1, expect.stringContaining("without implicit-tls")]);
    const unknown = await kit(await withPartner("{ address: 203.0.113.1, port: 0 }"));
    expect([unknown.exitCode, unknown.err]).toEqual([2, expect.stringContaining("--address ADDRESS:PORT")]);
  });
});
