/** Revocation lists of a pin: read, held against its CAs, and part of the policy's version. */
import { describe, expect, it } from "vitest";
import { openAuthority } from "../../src/certs/authority.ts";
import { createRevocationList } from "../../src/certs/crl.ts";
import { authority, digests, loaded, mint, now, partnerYaml, problemsOf, type Minted } from "./support.ts";

const dayMs = 86_400_000;

function listOf(ca: Minted, plan: { readonly serials?: readonly string[]; readonly days?: number } = {}): string {
  const revoked = (plan.serials ?? []).map((serial) => ({ serial, at: now, reason: "unspecified" as const }));
  const made = new Date(now.getTime() - 10 * dayMs);
  return createRevocationList(openAuthority({ certificatePem: ca.pem, keyPem: ca.keyPem }, now), {
    revoked,
    number: 1n,
    now: made,
    nextUpdate: new Date(made.getTime() + (plan.days ?? 30) * dayMs),
  });
}

const other = mint({ commonName: "Other CA", ca: true });
const impostor = mint({ commonName: "Inside CA", ca: true });
const leaf = mint({ commonName: "mx.acme.example", issuer: { minted: authority, commonName: "Inside CA" } });

function acme(lists: string, pin = "trust-anchor: ../ca.pem, name: mx.acme.example"): Record<string, string> {
  return {
    "partners/acme.yaml": partnerYaml().replace(/pins:.*/, `pins: [{ ${pin}, revocation-list: ${lists} }]`),
    "ca.pem": authority.pem,
    "ca.crl": listOf(authority),
  };
}

describe("the revocation lists of a trust anchor", () => {
  it("are read, one without a list around it, relative to the partner's file", async () => {
    const serial = leaf.certificate.serialNumber;
    const files = { ...acme("../ca.crl"), "ca.crl": listOf(authority, { serials: [serial] }) };
    const { config, warnings, folder } = await loaded(files);
    expect(warnings).toEqual([]);
    const [pin] = config.partners[0]?.pins ?? [];
    const lists = pin?.kind === "trustAnchor" ? pin.revocationLists : [];
    expect(lists.map(({ file }) => file)).toEqual([`${folder}/ca.crl`]);
    expect(lists.map((list) => list.revokes(leaf.certificate))).toEqual([true]);
  });

  it("may be several, of several CAs in one file", async () => {
    const { config } = await loaded({
      ...acme("[../ca.crl, ../other.crl]"),
      "ca.pem": authority.pem + other.pem,
      "other.crl": listOf(other),
    });
    expect(config.partners[0]?.pins[0]).toMatchObject({ revocationLists: [{}, {}] });
  });

  it("are part of the version", async () => {
    const version = async (list: string): Promise<string> =>
      (await loaded({ ...acme("../ca.crl"), "ca.crl": list })).config.version;
    const list = listOf(authority, { serials: ["0A"] });
    const first = await version(list);
    expect(await version(list)).toBe(first);
    expect(await version(listOf(authority, { serials: ["0A", "0B"] }))).not.toBe(first);
  });

  it("are taken with a warning where they are out of date", async () => {
    const { warnings } = await loaded({ ...acme("../ca.crl"), "ca.crl": listOf(authority, { days: 9 }) });
    expect(warnings).toEqual([
      "partners/acme.yaml:2: warning: pins[0].revocation-list: ca.crl is out of date since 2026-06-14: mail of its certificates waits; get the new one",
    ]);
  });
});

describe("a revocation list is refused", () => {
  const place = "partners/acme.yaml:2: error: pins[0].revocation-list";
  it.each<{ what: string; files: Record<string, string | Uint8Array>; says: string }>([
    {
      what: "beside a pin of a key",
      files: acme("../ca.crl", `spki: "${digests[1]}"`),
      says: `${place}: means something with \`trust-anchor\` only: remove it`,
    },
    {
      what: "that is missing",
      files: acme("[../ca.crl, gone.crl]"),
      says: `${place}[1]: partners/gone.crl does not exist`,
    },
    {
      what: "that is a certificate",
      files: acme("../ca.pem"),
      says: `${place}: ca.pem holds a CERTIFICATE, not a revocation list: it begins with -----BEGIN X509 CRL-----`,
    },
    {
      what: "of another CA",
      files: { ...acme("../ca.crl"), "ca.crl": listOf(other) },
      says: `${place}: ca.crl was signed by none of the CAs in ca.pem: put the CA's own list here, or its certificate there`,
    },
    {
      what: "of another CA of the same name",
      files: { ...acme("../ca.crl"), "ca.crl": listOf(impostor) },
      says: `${place}: ca.crl was signed by none of the CAs in ca.pem`,
    },
    { what: "where none is named", files: acme("[]"), says: `${place}: must not be empty` },
    { what: "where a number stands", files: acme("7"), says: `${place}: must be` },
  ])("$what", async ({ files, says }) => {
    const problems = await problemsOf(files);
    expect(problems).toEqual([expect.stringContaining(says)]);
  });
});
