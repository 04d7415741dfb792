/** `pinrelay partner list` and `show`: what is in force, in a table, in words and in JSON. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { certificateDigest, spkiDigest } from "../../src/partner/pin.ts";
import { bareBench, bench, enrolCert, enrolCsr, partner, selfSigned, type Bench } from "./support.ts";

describe("partner list", () => {
  it("says how to add one where there is none", async () => {
    const at = await bench();
    expect(await partner(["list", "--config", at.config])).toMatchObject({
      exitCode: 0,
      out: expect.stringContaining("There is no partner yet: pinrelay partner enrol"),
    });
    expect(await partner(["list", "--json", "--config", at.config])).toMatchObject({ exitCode: 0, out: "[]\n" });
  });

  it("shows a line a partner, with the date where it is known", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    await enrolCsr(at, "beta", "p384.csr.pem");
    const { out, exitCode } = await partner(["list", "--config", at.config]);
    expect(exitCode).toBe(0);
    expect(out.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["NAME", "HOSTS", "PINS", "VALID UNTIL", "MODE", "FROM", "TO"],
      [
        "acme",
        "203.0.113.0/28, 2001:db8:1::/64",
        `key ${spkiDigest(selfSigned).slice(7, 15)} (pending)`,
        "-",
        "enforce",
        "1",
        "1",
      ],
      [
        "beta",
        "203.0.113.0/28, 2001:db8:1::/64",
        expect.stringMatching(/^key .{8} \(pending\)$/),
        "2028-02-02",
        "enforce",
        "1",
        "1",
      ],
      [""],
    ]);
  });

  it("writes JSON for programs", async () => {
    const at = await bench();
    await enrolCert(at, "acme", "--pin-certificate");
    const { out } = await partner(["list", "--json", "--config", at.config]);
    expect(JSON.parse(out)).toMatchObject([
      {
        name: "acme",
        hosts: ["203.0.113.0/28", "2001:db8:1::/64"],
        pins: [{ kind: "certificate", digest: certificateDigest(selfSigned), label: "enrolled 2027-01-01" }],
        validUntil: expect.stringMatching(/^2126-/),
        mode: "enforce",
        allow: { from: ["@acme.example"], to: ["orders@corp.example"] },
      },
    ]);
  });
});

const fullPartner = (anchor: string): string => `description: The full partner
contact: mail-ops@full.example
mode: observe
hosts: [any]
pins:
  - { spki: "sha256/${"A".repeat(43)}=", label: "2026", not-after: 2027-02-01 }
  - { spki: "sha256/${"B".repeat(42)}A=", not-after: 2027-06-30 }
  - { trust-anchor: ${anchor}, name: mx.full.example }
allow: { from: [], to: ["@corp.example", "@*.corp.test"] }
deliver:
  domains: [full.example]
  servers: [{ address: "2001:db8::5", port: 25, name: mx.full.example, pin: "sha256/${"A".repeat(43)}=" }]
`;

describe("partner show", () => {
  async function fullBench(): Promise<Bench> {
    const at = await bench();
    await writeFile(join(at.partners, "full.yaml"), fullPartner("../../certs/ca.pem"));
    return at;
  }

  it("shows everything that is in force", async () => {
    const at = await fullBench();
    const { out, exitCode } = await partner(["show", "full", "--config", at.config]);
    expect(exitCode).toBe(0);
    for (const text of [
      "full\n",
      "description  The full partner",
      "contact      mail-ops@full.example",
      "mode         observe",
      "hosts        any",
      `key sha256/${"A".repeat(43)}=, "2026", until 2027-02-01`,
      "any certificate for mx.full.example of the CA in ",
      "valid until  not known",
      "from         nobody, reports only",
      "to           @corp.example\n               @*.corp.test\n",
      "10 MiB a message, 100 recipients a message",
      "deliver      full.example\n               by [2001:db8::5]:25 (mx.full.example), TLS required",
    ]) {
      expect(out).toContain(text);
    }
  });

  it("writes the same as JSON", async () => {
    const at = await fullBench();
    const { out } = await partner(["show", "full", "--json", "--config", at.config]);
    expect(JSON.parse(out)).toMatchObject({
      name: "full",
      mode: "observe",
      pins: [{ kind: "spki" }, { kind: "spki" }, { kind: "trustAnchor", name: "mx.full.example" }],
      deliver: { domains: ["full.example"], servers: [{ address: "2001:db8::5", port: 25, tls: "required" }] },
    });
  });

  it("tells the last end of several pins where all have one", async () => {
    const at = await bench();
    const yaml = fullPartner("x").replace(/ {2}- \{ trust-anchor.*\n/, "");
    await writeFile(join(at.partners, "full.yaml"), yaml);
    expect((await partner(["show", "full", "--config", at.config])).out).toContain("valid until  2027-06-30");
  });

  it("says that no pin counts where all wait or are revoked", async () => {
    const at = await bench();
    await enrolCert(at, "acme");
    expect((await partner(["show", "acme", "--config", at.config])).out).toContain("valid until  no pin counts\n");
  });

  it("ends with 1 where there is no such partner", async () => {
    const at = await bench();
    expect(await partner(["show", "nobody", "--config", at.config])).toEqual({
      exitCode: 1,
      out: "",
      err: "pinrelay: there is no partner 'nobody': pinrelay partner list shows those there are\n",
    });
  });

  it("ends with 2 where the configuration is invalid or missing", async () => {
    const at = await bareBench();
    expect((await partner(["show", "acme", "--config", at.config])).exitCode).toBe(2);
    expect((await partner(["list", "--config", join(at.partners, "none.yaml")])).exitCode).toBe(2);
  });
});
