import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { chmod, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { formatProblem, loadConfig, locate } from "../../src/config/load.ts";
import { partnerKeys } from "../../src/config/partner.ts";
import { relayKeys } from "../../src/config/relay.ts";
import type { Entry, Keys } from "../../src/config/schema.ts";
import { PartnerIndex } from "../../src/partner/identity.ts";
import { RouteTable } from "../../src/partner/policy.ts";
import { anchorPin, certificatePin, spkiPin } from "../partner/pins.ts";
import {
  authority,
  configFiles,
  digests,
  folderWith,
  loaded,
  now,
  partnerYaml,
  problemsOf,
  relayYaml,
  server,
  shown,
} from "./support.ts";

const theAuthority: unknown = expect.objectContaining({ fingerprint256: authority.certificate.fingerprint256 });

describe("a valid configuration", () => {
  it("is complete: what is not written has its default", async () => {
    const { config, folder, warnings } = await loaded();
    expect(warnings).toEqual([]);
    const { version, partners, ...relay } = config;
    expect(version).toMatch(/^[0-9a-f]{64}$/);
    expect(relay).toEqual({
      file: join(folder, "relay.yaml"),
      hostname: "mx.corp.example",
      listen: [{ address: "127.0.0.1", port: 0, implicitTls: false }],
      tls: {
        certificateFile: join(folder, "server.pem"),
        keyFile: join(folder, "server.key"),
        certificate: server.pem,
        minimumVersion: "TLSv1.2",
      },
      spool: { driver: "directory", path: join(folder, "../var/spool") },
      routes: [
        {
          name: "internal",
          kind: "internal",
          domains: ["corp.example"],
          servers: [
            {
              address: "10.1.0.10",
              port: 25,
              name: undefined,
              tls: { mode: "required", implicit: false, verification: { kind: "pin", digests: [digests[0]] } },
              source: { file: join(folder, "relay.yaml"), line: 9 },
            },
          ],
          source: { file: join(folder, "relay.yaml"), line: 7 },
        },
      ],
      retry: { scheduleMs: [60_000, 300_000, 900_000, 3_600_000, 14_400_000], expireMs: 432e6, warnAfterMs: 144e5 },
      limits: {
        messageBytesMax: 25 * 1024 ** 2,
        connectionsMax: 500,
        connectionsPerAddressMax: 20,
        turnedAwayMax: 100,
        handshakesPerMinute: 600,
        spoolBytesMax: 10 * 1024 ** 3,
        commandsMax: 100,
        badCommandsMax: 10,
        commandLineBytesMax: 4096,
        transactionsMax: 1000,
        headerBytesMax: 256 * 1024,
        headerLinesMax: 10_000,
        hopsMax: 50,
        timeouts: { idleMs: 300_000, handshakeMs: 30_000, sessionMs: 3_600_000, messageMs: 600_000 },
      },
      postmaster: {
        address: "postmaster@corp.example",
        localPart: "postmaster",
        domain: "corp.example",
        internationalized: false,
      },
      expiry: { warnMs: 30 * 86_400_000, criticalMs: 7 * 86_400_000, mail: "daily" },
      audit: { path: join(folder, "../var/audit") },
      console: { listen: undefined },
    });
    const file = join(folder, "partners/acme.yaml");
    expect(partners).toEqual([
      {
        name: "acme",
        file,
        description: "",
        contact: undefined,
        notifyContact: false,
        mode: "enforce",
        hosts: [{ kind: "network", text: "203.0.113.1", bytes: [203, 0, 113, 1], prefixBits: 32 }],
        pins: [spkiPin(digests[1], { source: { file, line: 2 } })],
        keyExchange: "any",
        content: { headerSyntax: "observe", singleFrom: "observe", fromAlignment: "observe" },
        extendedKeyUsage: "clientAuth",
        rollover: { retireAfterMs: 14 * 86_400_000 },
        allow: {
          from: [{ kind: "domain", text: "@acme.example", domain: "acme.example", source: { file, line: 3 } }],
          to: [{ kind: "domain", text: "@corp.example", domain: "corp.example", source: { file, line: 3 } }],
        },
        limits: {
          messageBytesMax: 10 * 1024 ** 2,
          recipientsMax: 100,
          messagesPerMinute: 600,
          connectionsMax: 10,
          queueBytesMax: 1024 ** 3,
        },
        deliver: undefined,
      },
    ]);
  });

  it("takes every key of the design, but for submission", async () => {
    const { config, folder, warnings } = await loaded({
      "relay.yaml": `hostname: MX.Corp.Example.
listen:
  - { address: 0.0.0.0, port: 25 }
  - { address: "::", port: 465, implicit-tls: true }
tls: { certificate: server.pem, key: /etc/pinrelay/server.key, minimum-version: TLSv1.3 }
partners: partners
spool: { driver: directory, path: /var/spool/pinrelay }
routes:
  internal:
    domains: [corp.example]
    servers:
      - { address: 10.1.0.10, name: mail1.corp.example, tls: { trust-anchor: ca.pem, implicit: true }, port: 465 }
      - { address: "2001:db8::1", port: 2525, tls: { mode: required, pin: ["${digests[0]}", "${digests[1]}"] } }
  a.b:
    domains: [lab.corp.example]
    servers: [{ address: 127.0.0.1, port: 2500, tls: { mode: none } }]
  constructor:
    domains: [edi.corp.example]
    servers: [{ address: "::1", tls: { mode: none } }]
retry: { schedule: [30s], expire: 2d, warn-after: 1h }
limits: { message-size: 50MiB, connections: 5, connections-per-address: 2, spool-bytes: 1GiB }
postmaster: mail.admin@edi.corp.example
audit: { path: audit }
console: { listen: run/console.sock }
`,
      "partners/acme.yaml": `description: ACME Supplies
contact: mail-ops@acme.example
mode: observe
hosts: [203.0.113.0/28, "2001:db8:1::/64"]
pins:
  - { spki: "${digests[1]}", label: "2026" }
  - { certificate: "${digests[2]}", not-after: 2027-01-31 }
  - { trust-anchor: ../ca.pem, name: MX.acme.example }
allow:
  from: ["@acme.example", "@*.acme.example"]
  to: [orders@corp.example, "@*.corp.example"]
limits: { message-size: 1KiB, recipients: 1, messages-per-minute: 2, connections: 3, queue-bytes: 4 }
deliver:
  domains: [acme.example]
  servers: [{ address: 203.0.113.5, port: 26, name: mx.acme.example, pin: "${digests[2]}" }]
`,
      "ca.pem": authority.pem,
    });
    expect(warnings).toEqual([]);
    expect(config).toMatchObject({
      hostname: "mx.corp.example",
      tls: { keyFile: "/etc/pinrelay/server.key", minimumVersion: "TLSv1.3" },
      listen: [{ implicitTls: false }, { implicitTls: true }],
      spool: { path: "/var/spool/pinrelay" },
      retry: { scheduleMs: [30_000], expireMs: 172_800_000, warnAfterMs: 3_600_000 },
      limits: { connectionsMax: 5 },
      postmaster: { address: "mail.admin@edi.corp.example" },
      audit: { path: join(folder, "audit") },
      console: { listen: join(folder, "run/console.sock") },
    });
    expect(config.routes.map(({ name }) => name)).toEqual(["internal", "a.b", "constructor"]);
    const [first, second] = config.routes[0]?.servers ?? [];
    expect(first?.tls).toMatchObject({
      implicit: true,
      verification: { kind: "trustAnchor", file: join(folder, "ca.pem"), anchors: [theAuthority] },
    });
    expect(second?.tls).toMatchObject({ verification: { kind: "pin", digests: [digests[0], digests[1]] } });
    expect(config.routes[1]?.servers[0]?.tls).toEqual({ mode: "none" });
    const [acme] = config.partners;
    const file = join(folder, "partners/acme.yaml");
    expect(acme?.pins).toEqual([
      spkiPin(digests[1], { label: "2026", source: { file, line: 6 } }),
      certificatePin(digests[2], { notAfter: new Date("2027-01-31T23:59:59.999Z"), source: { file, line: 7 } }),
      { ...anchorPin([], { file: join(folder, "ca.pem"), source: { file, line: 8 } }), anchors: [theAuthority] },
    ]);
    expect(acme).toMatchObject({
      mode: "observe",
      contact: "mail-ops@acme.example",
      limits: { messageBytesMax: 1024, recipientsMax: 1, messagesPerMinute: 2, connectionsMax: 3, queueBytesMax: 4 },
      deliver: {
        name: "acme",
        kind: "partner",
        domains: ["acme.example"],
        servers: [{ address: "203.0.113.5", port: 26, name: "mx.acme.example" }],
        source: { file: join(folder, "partners/acme.yaml"), line: 13 },
      },
    });
  });

  it("follows aliases, with the line of what is meant", async () => {
    const { config } = await loaded({
      "partners/acme.yaml": `hosts: [203.0.113.1]
pins: [{ spki: "${digests[1]}" }]
allow:
  to: &ours
    - "@corp.example"
  from: *ours
`,
    });
    expect(config.partners[0]?.allow.from[0]).toMatchObject({ domain: "corp.example", source: { line: 5 } });
  });

  it("has a version that follows every byte of every file but the relay's own certificate, and not the place", async () => {
    const version = async (changed: Record<string, string> = {}): Promise<string> =>
      (await loaded(changed)).config.version;
    const first = await version();
    expect(await version()).toBe(first);
    const others = [
      await version({ "relay.yaml": relayYaml("# comment\n") }),
      await version({ "partners/acme.yaml": partnerYaml("\n") }),
      await version({ "partners/globex.yaml": partnerYaml("", digests[2]) }),
    ];
    expect(new Set([first, ...others]).size).toBe(4);
    expect(await version({ "server.pem": `${server.pem}\n` })).toBe(first);
  });

  it("does not read the key", async () => {
    const { folder } = await loaded();
    await chmod(join(folder, "server.key"), 0o000);
    await rm(join(folder, "server.key"));
    expect((await loadConfig(join(folder, "relay.yaml"), now)).kind).toBe("loaded");
  });

  it("loads ten thousand partners", async () => {
    const many = Array.from({ length: 10_000 }, (_, index): [string, string] => {
      const pin = `sha256/${Buffer.alloc(32, index.toString().padStart(8, "x")).toString("base64")}`;
      const deliver = `deliver: { domains: [p${index}.example], servers: [{ address: 192.0.2.1, pin: "${pin}" }] }\n`;
      return [`partners/p${index}.yaml`, partnerYaml(deliver, pin)];
    });
    const folder = await folderWith(configFiles(Object.fromEntries(many)));
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    expect(result.kind).toBe("loaded");
    if (result.kind === "invalid") return;
    expect(result.warnings).toEqual([]);
    expect(result.config.partners).toHaveLength(10_001);
    const routes = new RouteTable(result.config.routes, result.config.partners);
    expect(routes.toPartner("p9999.example")?.name).toBe("p9999");
    expect(new PartnerIndex(result.config.partners).partnersAt("203.0.113.1")).toHaveLength(10_001);
  }, 120_000);
});

describe("errors", () => {
  it("of all files are reported at once, each with its line and key path", async () => {
    expect(
      await problemsOf({
        "relay.yaml": `hostname: mx.corp.example
listen:
  - { address: 127.0.0.1, port: 0 }
  - address: localhost
    port: 70000
tls:
  certificate: server.pem
routes:
  internal:
    domains:
      - corp.example
      - 5
    servers:
      - address: mail1.corp.example
        pin: "${digests[0]}"
greeting: hello
`,
        "partners/acme.yaml": `hosts:
  - 203.0.113.1
  - 203.0.113.0/33
pins:
  - spki: "${digests[1]}"
  - { spki: nonsense }
allow:
  to: ["@corp.example"]
  from: "@acme.example"
`,
        "partners/globex.yaml": `mode: monitor
hosts: [198.51.100.1]
pins: [{ spki: "${digests[1]}" }]
allow: { from: ["@globex.example"], to: ["@corp.example"] }
deliver:
  domains: [Corp.Example]
  servers: [{ address: 198.51.100.2, pin: "${digests[0]}" }]
`,
      }),
    ).toEqual([
      'relay.yaml:4: error: listen[1].address: must be an IP literal, as 192.0.2.1; it is "localhost"',
      "relay.yaml:5: error: listen[1].port: must be a whole number from 0 to 65535; it is 70000",
      expect.stringContaining("relay.yaml:6: error: tls.key: is missing: add it."),
      'relay.yaml:12: error: routes.internal.domains[1]: must be text: put it in quotes, as "5"',
      expect.stringContaining(
        "relay.yaml:14: error: routes.internal.servers[0].address: must be an IP literal: no DNS",
      ),
      expect.stringContaining("relay.yaml:16: error: greeting: is no key: the keys here are hostname, listen,"),
      expect.stringContaining("partners/acme.yaml:3: error: hosts[1]: must be an address, a network as 192.0.2.0/28"),
      expect.stringContaining("partners/acme.yaml:6: error: pins[1].spki: must be sha256/ and 44 characters of base64"),
      "partners/acme.yaml:9: error: allow.from: must be a list, as [a, b]",
      'partners/globex.yaml:1: error: mode: must be enforce or observe; it is "monitor"',
      "partners/globex.yaml:3: error: pins[0].spki: is a pin of another partner, at partners/acme.yaml:5 (pins[0].spki): a certificate is one partner's",
      "partners/globex.yaml:6: error: deliver.domains[0]: corp.example has a route already, at relay.yaml:11 (routes.internal.domains[0]): remove one of them",
    ]);
  });

  it("in the YAML of one file do not hide those of the others", async () => {
    const problems = await problemsOf({
      "relay.yaml": "hostname: [",
      "partners/acme.yaml": "hosts:\n\t- a",
      "partners/globex.yaml": partnerYaml("colour: red"),
    });
    expect(problems.map((problem) => problem.slice(0, 50))).toEqual([
      "relay.yaml:1: error: is not valid YAML: Flow seque",
      "partners/acme.yaml:2: error: is not valid YAML: Ta",
      "partners/globex.yaml:5: error: colour: is no key: ",
    ]);
  });

  it("about a key given twice do not hide the others", async () => {
    const problems = await problemsOf({ "relay.yaml": relayYaml("postmaster: a@corp.example\npostmaster: 5\nx: 1\n") });
    expect(problems).toEqual([
      "relay.yaml:11: error: postmaster: is given twice, first in line 10: remove one of them",
      expect.stringContaining("relay.yaml:12: error: x: is no key"),
    ]);
  });

  it("stop at a hundred a file", async () => {
    const many = Array.from({ length: 500 }, (_, index) => `k${index}: 1\n`).join("");
    const cut = await problemsOf({ "partners/acme.yaml": partnerYaml(many), "partners/globex.yaml": "x: 1" });
    expect(cut.filter((problem) => problem.startsWith("partners/acme.yaml"))).toHaveLength(101);
    expect(cut).toContain("partners/acme.yaml: error: has more than 100 problems: the rest is not shown");
    expect(cut.some((problem) => problem.startsWith("partners/globex.yaml:1: error: x: is no key"))).toBe(true);
  });

  it("about relay.yaml itself are one line", async () => {
    const folder = await folderWith({});
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    expect(result.kind === "invalid" && shown(result.problems, folder)).toEqual(["relay.yaml: error: does not exist"]);
    expect(await problemsOf({ "relay.yaml": "" })).toEqual([expect.stringContaining("relay.yaml: error: is empty")]);
    expect(await problemsOf({ "relay.yaml": "- a\n- b\n" })).toEqual([
      expect.stringContaining("relay.yaml:1: error: must be a map of keys; its keys are hostname, listen"),
    ]);
    expect(await problemsOf({ "relay.yaml": "hello" })).toEqual([
      expect.stringContaining("relay.yaml:1: error: must be a map of keys"),
    ]);
  });
});

it("never throws, whatever stands under the keys", async () => {
  const folder = await folderWith(configFiles());
  const written = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(null, true, 5, "x", [], {}, [[]], [{}], [null], { constructor: {} }) },
    { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
  );
  const under = (keys: Keys, depth: number): fc.Arbitrary<unknown> =>
    fc
      .dictionary(fc.constantFrom(...Object.keys(keys), "__proto__", "a.b"), written, { maxKeys: 8 })
      .chain((plain) =>
        fc.record(
          Object.fromEntries(
            Object.keys(plain).map((key) => [
              key,
              fc.oneof(fc.constant(plain[key]), below(Object.hasOwn(keys, key) ? keys[key] : undefined, depth)),
            ]),
          ),
        ),
      );
  const below = (entry: Entry | undefined, depth: number): fc.Arbitrary<unknown> => {
    if (entry === undefined || depth > 4) return written;
    switch (entry.shape) {
      case "scalar":
      case "unavailable":
        return written;
      case "list":
        return fc.array(below(entry.of, depth + 1), { maxLength: 3 });
      case "group":
        return under(entry.keys, depth + 1);
      case "names":
        return fc.dictionary(fc.constantFrom("internal", "a.b", "__proto__"), below(entry.of, depth + 1));
    }
  };
  await fc.assert(
    fc.asyncProperty(under(relayKeys.keys, 0), under(partnerKeys.keys, 0), async (relay, partner) => {
      await writeFile(join(folder, "relay.yaml"), JSON.stringify(relay));
      await writeFile(join(folder, "partners/acme.yaml"), JSON.stringify(partner));
      const result = await loadConfig(join(folder, "relay.yaml"), now);
      expect(result.kind).toBe("invalid");
      for (const { message } of result.kind === "invalid" ? result.problems : []) expect(message).not.toContain("\n");
    }),
    { numRuns: 500 },
  );
});

describe("the partners' folder", () => {
  it("must exist", async () => {
    const folder = await folderWith(configFiles());
    await rm(join(folder, "partners"), { recursive: true });
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    expect(result.kind === "invalid" && shown(result.problems, folder)).toEqual([
      "relay.yaml:1: error: partners: folder partners does not exist: create it, or name the right one here",
    ]);
    expect(await problemsOf({ "relay.yaml": relayYaml("partners: server.pem\n") })).toEqual([
      "relay.yaml:10: error: partners: folder server.pem is not in a folder: create it, or name the right one here",
    ]);
  });

  it("may be empty, with a warning", async () => {
    const folder = await folderWith(configFiles());
    await rm(join(folder, "partners/acme.yaml"));
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    expect(result.kind === "loaded" && shown(result.warnings, folder)).toEqual([
      "relay.yaml:1: warning: partners: partners holds no partner: nobody can send mail; `pinrelay partner enrol` adds one",
    ]);
  });

  it("is not searched in silence for files with other names", async () => {
    const { config, warnings } = await loaded({
      "relay.yaml": relayYaml("partners: them\n"),
      "them/acme.yaml": partnerYaml(),
      "them/globex.yml": "x",
      "them/.#acme.yaml": "x",
      "them/acme.yaml~": "x",
      "them/README": "x",
    });
    expect(config.partners.map(({ name }) => name)).toEqual(["acme"]);
    expect(warnings).toEqual([
      "relay.yaml:10: warning: partners: them/.#acme.yaml is not read: its name begins with a dot",
      "relay.yaml:10: warning: partners: them/globex.yml is not read: rename it to .yaml",
    ]);
  });

  it("may hold links, but no folders and no dangling links", async () => {
    const folder = await folderWith({ ...configFiles(), "elsewhere.yaml": partnerYaml("", digests[2]) });
    await symlink("../elsewhere.yaml", join(folder, "partners/linked.yaml"));
    await mkdir(join(folder, "partners/folder.yaml"));
    await symlink("nowhere", join(folder, "partners/dangling.yaml"));
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    expect(result.kind === "invalid" && shown(result.problems, folder)).toEqual([
      "partners/dangling.yaml: error: does not exist",
      "partners/folder.yaml: error: is a folder",
    ]);
  });

  it.each(["ACME", "acme.example", "-acme", "__proto__", "acme_2", "caf\u00e9", "a".repeat(64), " acme"])(
    "refuses the partner's name %j",
    async (name) => {
      const problems = await problemsOf({ [`partners/${name}.yaml`]: partnerYaml("", digests[2]) });
      expect(problems).toEqual([
        expect.stringContaining(`partners/${name}.yaml:1: error: the file's name is the partner's name`),
      ]);
    },
  );

  it.each(["constructor", "prototype", "tostring", "0", "a-", "a".repeat(63)])(
    "takes the partner's name %j",
    async (name) => {
      const { config } = await loaded({ [`partners/${name}.yaml`]: partnerYaml("", digests[2]) });
      expect(config.partners.map((partner) => partner.name)).toContain(name);
    },
  );
});

describe("formatProblem", () => {
  const problem = {
    severity: "error",
    file: "/etc/p/a.yaml",
    line: 12,
    keyPath: "pins[0].spki",
    message: "x",
  } as const;
  it.each([
    [problem, "/etc/p", "a.yaml:12: error: pins[0].spki: x"],
    [problem, "/etc", "p/a.yaml:12: error: pins[0].spki: x"],
    [problem, "/home", "/etc/p/a.yaml:12: error: pins[0].spki: x"],
    [{ ...problem, line: undefined, keyPath: "" }, "/etc/p", "a.yaml: error: x"],
    [
      { ...problem, severity: "warning", message: "a\nb\u001b[0m" },
      "/etc/p",
      "a.yaml:12: warning: pins[0].spki: a\\u{a}b\\u{1b}[0m",
    ],
  ] as const)("shows %j below %s", (shownProblem, cwd, expected) => {
    expect(formatProblem(shownProblem, cwd)).toBe(expected);
  });
});

describe("locate", () => {
  it("finds keys, and survives files that are gone", async () => {
    const { folder } = await loaded();
    const file = join(folder, "relay.yaml");
    expect(await locate(file, ["tls", "key"])).toEqual({ file, line: 5, keyPath: "tls.key", isSet: true });
    expect(await locate(file, ["audit"])).toEqual({ file, line: 1, keyPath: "audit", isSet: false });
    expect(await locate(`${file}.gone`, ["a"])).toMatchObject({ line: undefined, isSet: false });
  });
});
