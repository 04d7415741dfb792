import { describe, expect, it } from "vitest";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { loadConfig } from "../../src/config/load.ts";
import { PartnerFileError, writeNewPartner, type NewPartner } from "../../src/config/partner-file.ts";
import { authority, configFiles, digests, folderWith, now, partnerYaml, shown } from "./support.ts";

const acme: NewPartner = {
  name: "globex",
  description: 'Globex: "Corporation" # not a comment',
  contact: "yes",
  hosts: ["203.0.113.0/28", "2001:db8::/64"],
  pins: [
    { spki: digests[0], label: "2026" },
    { certificate: digests[2], notAfter: "2027-01-31" },
  ],
  from: ["@globex.example", "@*.globex.example"],
  to: ["orders@corp.example"],
};

describe("writeNewPartner", () => {
  it("writes a file that loads, and says what it was given", async () => {
    const folder = await folderWith(configFiles());
    const deliver = {
      domains: ["globex.example"],
      servers: [
        { address: "203.0.113.5", name: "mx.globex.example", pins: [digests[1]] },
        { address: "2001:db8::5", port: 26, pins: [digests[0], digests[2]] },
      ],
    };
    const file = await writeNewPartner(join(folder, "partners"), { ...acme, deliver }, now);
    expect(file).toBe(join(folder, "partners/globex.yaml"));
    expect((await stat(file)).mode & 0o777).toBe(0o644);
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
    expect(result.warnings).toEqual([]);
    expect(result.config.partners.find(({ name }) => name === "globex")).toMatchObject({
      description: 'Globex: "Corporation" # not a comment',
      contact: "yes",
      mode: "enforce",
      hosts: [{ text: "203.0.113.0/28" }, { text: "2001:db8::/64" }],
      pins: [
        { kind: "spki", digest: digests[0], label: "2026", notAfter: undefined },
        { kind: "certificate", digest: digests[2], label: undefined, notAfter: new Date("2027-01-31T23:59:59.999Z") },
      ],
      allow: {
        from: [{ text: "@globex.example" }, { text: "@*.globex.example" }],
        to: [{ text: "orders@corp.example" }],
      },
      deliver: {
        domains: ["globex.example"],
        servers: [
          { address: "203.0.113.5", port: 25, tls: { verification: { digests: [digests[1]] } } },
          { address: "2001:db8::5", port: 26, tls: { verification: { digests: [digests[0], digests[2]] } } },
        ],
      },
    });
  });

  it("writes a file for people: with comments, and the schema where there is one", async () => {
    const folder = await folderWith({ ...configFiles(), "schema/partner.schema.json": "{}" });
    const text = await readFile(await writeNewPartner(join(folder, "partners"), acme, now), "utf8");
    expect(text).toBe(`# yaml-language-server: $schema=../schema/partner.schema.json
# One partner: the name of this file is its name. After a change: \`pinrelay check\`, then \`pinrelay reload\`.

description: "Globex: \\"Corporation\\" # not a comment"
contact: "yes"
mode: enforce # or observe: what \`allow\` would refuse is reported and let through

# The addresses and networks that the partner connects from.
hosts:
  - "203.0.113.0/28"
  - "2001:db8::/64"

# What its certificate must match: any one suffices. \`state\` says where a pin is in its life: pending lets nobody in
# until \`pinrelay partner confirm\`; none, or active, counts; next counts too, and the active ones retire some time after
# its first use; revoked lets nobody in, and is kept so that nobody enrols it again.
pins:
  - { spki: "${digests[0]}", label: "2026" }
  - { certificate: "${digests[2]}", not-after: "2027-01-31" }

# What it may send: user@domain, @domain, or @*.domain for all below it. What is not here is refused.
allow:
  from: # reports (the null reverse-path) pass always
    - "@globex.example"
    - "@*.globex.example"
  to: # in our domains
    - "orders@corp.example"

# No \`deliver\`: the partner gets no mail, and reports about its mail go to our postmaster.
`);
    const without = await folderWith(configFiles());
    const plain = await readFile(await writeNewPartner(join(without, "partners"), acme, now), "utf8");
    expect(plain).not.toContain("$schema");
  });

  it.each<[string, Partial<NewPartner>, string]>([
    ["a name that leads elsewhere", { name: "../acme" }, '"../acme" is no name for a partner'],
    ["an absolute name", { name: "/etc/passwd" }, "is no name for a partner"],
    ["a name with a NUL", { name: "a\u0000" }, '"a\\u0000" is no name for a partner'],
    ["an empty name", { name: "" }, "is no name for a partner"],
    ["a name in capitals", { name: "Globex" }, "is no name for a partner"],
    ["a name that is taken", { name: "acme" }, "acme.yaml exists already: edit it, or choose another name"],
    ["no hosts", { hosts: [] }, "hosts: must not be empty"],
    ["a host that is none", { hosts: ["mx.globex.example"] }, "hosts[0]: must be an address"],
    ["no pins", { pins: [] }, "pins: must not be empty"],
    ["a pin that is none", { pins: [{ spki: "sha256/x" }] }, "pins[0].spki: must be sha256/"],
    [
      "a pin of another partner",
      { pins: [{ spki: digests[1] }] },
      "pins[0].spki: is a pin of another partner, at acme.yaml:2 (pins[0].spki)",
    ],
    ["a pin of the past", { pins: [{ spki: digests[0], notAfter: "2026-06-14" }] }, "pins[0].not-after: is past"],
    ["a day that is none", { pins: [{ spki: digests[0], notAfter: "soon" }] }, "pins[0].not-after: must be a date"],
    ["a start that is none", { pins: [{ spki: digests[0], notBefore: "soon" }] }, "pins[0].not-before: must be a date"],
    [
      "a trust anchor that is not there",
      { pins: [{ trustAnchor: "ca.pem", name: "mx.globex.example" }] },
      "ca.pem does not exist",
    ],
    [
      "a trust anchor without a name",
      { pins: [{ trustAnchor: "../server.pem", name: "" }] },
      "pins[0].name: must be a domain name",
    ],
    ["no recipients", { to: [] }, "allow.to: must not be empty"],
    ["a rule that is none", { from: ["*"] }, "allow.from[0]: must be user@domain"],
    ["a text of two lines", { description: "a\nhosts: [any]" }, "description: must be one line"],
    ["text that is none", { contact: "\ud800" }, "contact: must be one line"],
    [
      "a domain of another partner",
      { deliver: { domains: ["acme.example"], servers: [{ address: "192.0.2.1", pins: [digests[0]] }] } },
      "deliver.domains[0]: acme.example has a route already, at acme.yaml:5",
    ],
    [
      "deliver by name",
      { deliver: { domains: ["globex.example"], servers: [{ address: "mx", pins: [digests[0]] }] } },
      "deliver.servers[0].address: must be an IP literal",
    ],
    [
      "deliver without a pin",
      { deliver: { domains: ["globex.example"], servers: [{ address: "192.0.2.1", pins: [] }] } },
      "deliver.servers[0].pin: must not be empty",
    ],
  ])("writes nothing for %s", async (_name, changed, expected) => {
    const deliver = `deliver: { domains: [acme.example], servers: [{ address: 192.0.2.1, pin: "${digests[1]}" }] }`;
    const folder = await folderWith(configFiles({ "partners/acme.yaml": partnerYaml(deliver) }));
    const failure: unknown = await writeNewPartner(join(folder, "partners"), { ...acme, ...changed }, now).catch(
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(PartnerFileError);
    expect(failure instanceof PartnerFileError && failure.message).toContain(expected);
    expect(failure instanceof PartnerFileError && failure.message).not.toContain("\n");
    expect(await readdir(join(folder, "partners"))).toEqual(["acme.yaml"]);
    expect(await readFile(join(folder, "partners/acme.yaml"), "utf8")).toBe(partnerYaml(deliver));
  });

  it("writes pins of all kinds, in any state, and what their certificates must be good for", async () => {
    const folder = await folderWith(configFiles({ "ca.pem": authority.pem }));
    const pins = [
      { spki: digests[0], state: "pending", notBefore: "2026-07-01" },
      { certificate: digests[2], state: "active", notAfter: "2027-01-31T12:00:00Z" },
      { trustAnchor: "../ca.pem", name: "mx.globex.example", label: "CA" },
    ] as const;
    const partner = { ...acme, pins, extendedKeyUsage: "any" } as const;
    const text = await readFile(await writeNewPartner(join(folder, "partners"), partner, now), "utf8");
    expect(text).toContain(`
pins:
  - { spki: "${digests[0]}", state: pending, not-before: "2026-07-01" }
  - { certificate: "${digests[2]}", not-after: "2027-01-31T12:00:00Z" }
  - { trust-anchor: "../ca.pem", name: "mx.globex.example", label: "CA" }

# What its certificate must be good for: clientAuth; or any, where its CA issues for servers only.
extended-key-usage: any

`);
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
    expect(result.config.partners.find(({ name }) => name === "globex")).toMatchObject({
      extendedKeyUsage: "any",
      pins: [
        { state: "pending", notBefore: new Date("2026-07-01T00:00:00Z") },
        { state: "active", notBefore: undefined, notAfter: new Date("2027-01-31T12:00:00Z") },
        { kind: "trustAnchor", file: join(folder, "ca.pem"), name: "mx.globex.example", state: "active", label: "CA" },
      ],
    });
  });

  it("says that the folder is missing", async () => {
    const folder = await folderWith({});
    await expect(writeNewPartner(join(folder, "gone"), acme, now)).rejects.toThrow(/gone does not exist/);
  });

  it("is not kept from it by another file that is not valid", async () => {
    const folder = await folderWith(configFiles({ "partners/broken.yaml": "[" }));
    await expect(writeNewPartner(join(folder, "partners"), acme, now)).resolves.toContain("globex.yaml");
  });

  it("lets one of two win who write at the same time", async () => {
    const folder = await folderWith(configFiles());
    const write = async (): Promise<string> => writeNewPartner(join(folder, "partners"), acme, now);
    const settled = await Promise.allSettled([write(), write(), write()]);
    expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect((await readdir(join(folder, "partners"))).toSorted()).toEqual(["acme.yaml", "globex.yaml"]);
  });
});
