import { describe, expect, it } from "vitest";
import { authority, digests, loaded, partnerYaml, problemsOf, relayYaml } from "./support.ts";

function changed(from: string, to: string): string {
  const text = partnerYaml();
  if (!text.includes(from)) throw new Error(`no ${from}`);
  return text.replace(from, to);
}
const onePin = `{ spki: "${digests[1]}" }`;
const withPins = (written: string): string => changed(onePin, written);
const deliverAcme = `deliver: { domains: [acme.example], servers: [{ address: 192.0.2.1, pin: "${digests[2]}" }] }`;
const fromRule = `from: ["@acme.example"], `;

it("a contact may be told who is reached by the partner's own servers", async () => {
  const { config } = await loaded({
    "partners/acme.yaml": partnerYaml(`contact: Ops@ACME.example\nnotify-contact: true\n${deliverAcme}`),
  });
  expect(config.partners[0]).toMatchObject({ contact: "Ops@ACME.example", notifyContact: true });
});

describe("a partner's file is refused for", () => {
  it.each([
    [
      "an unknown key",
      partnerYaml("allowed: {}"),
      "5: error: allowed: is no key: the keys here are description, contact, notify-contact, mode",
    ],
    ["an unknown key in allow", changed(fromRule, "cc: [], "), "3: error: allow.cc: is no key"],
    ["an unknown key in a pin", withPins(`{ spki: "${digests[1]}", lable: x }`), "2: error: pins[0].lable: is no key"],
    [
      "a contact to be told without a way to it",
      partnerYaml("contact: ops@acme.example\nnotify-contact: true"),
      "6: error: notify-contact: needs `deliver`",
    ],
    [
      "a contact to be told that is not there",
      partnerYaml(`notify-contact: true\n${deliverAcme}`),
      "5: error: notify-contact: needs `contact` to be a mail address",
    ],
    [
      "a contact to be told that is no address",
      partnerYaml(`contact: Anna <anna@acme.example>\nnotify-contact: true\n${deliverAcme}`),
      "6: error: notify-contact: needs `contact` to be a mail address",
    ],
    [
      "a contact to be told who is elsewhere",
      partnerYaml(`contact: anna@elsewhere.example\nnotify-contact: true\n${deliverAcme}`),
      "6: error: notify-contact: needs `contact` to be in one of the domains of `deliver`: elsewhere.example is none",
    ],
    ["no hosts", changed("hosts: [203.0.113.1]", "#"), "1: error: hosts: is missing: add it"],
    ["empty hosts", changed("[203.0.113.1]", "[]"), "1: error: hosts: must not be empty"],
    ["hosts that are no list", changed("[203.0.113.1]", "203.0.113.1"), "1: error: hosts: must be a list, as [a, b]"],
    [
      "a host's name",
      changed("[203.0.113.1]", "[203.0.113.1, mx.acme.example]"),
      "1: error: hosts[1]: must be an address, a network",
    ],
    [
      "a network with host bits",
      changed("203.0.113.1", "203.0.113.1/28"),
      "1: error: hosts[0]: must be an address, a network as 192.0.2.0/28, or any (has host bits set: the network is 203.0.113.0/28)",
    ],
    ["no pins", changed("pins: ", "# "), "1: error: pins: is missing: add it"],
    ["empty pins", withPins(""), "2: error: pins: must not be empty"],
    ["text for a pin", withPins(`"${digests[1]}"`), "2: error: pins[0]: must be a map of keys"],
    ["a pin of nothing", withPins("{ label: x }"), "2: error: pins[0]: must have spki, certificate or trust-anchor"],
    [
      "a pin of two kinds",
      withPins(`{ spki: "${digests[1]}", certificate: "${digests[2]}" }`),
      "2: error: pins[0].certificate: cannot stand beside `spki`",
    ],
    ["a pin that is no digest", withPins("{ spki: sha256/BASE64 }"), "2: error: pins[0].spki: must be sha256/"],
    ["a pin that is empty", withPins("{ spki: }"), "2: error: pins[0].spki: must be text; it is empty"],
    [
      "a pin with a name",
      withPins(`{ spki: "${digests[1]}", name: mx.acme.example }`),
      "2: error: pins[0].name: means something with `trust-anchor` only",
    ],
    [
      "an anchor without a name",
      withPins("{ trust-anchor: ../ca.pem }"),
      "2: error: pins[0].trust-anchor: needs `name`",
    ],
    [
      "an anchor with a wildcard",
      withPins("{ trust-anchor: ../ca.pem, name: '*.acme.example' }"),
      "2: error: pins[0].name: must be a domain name",
    ],
    [
      "an anchor with all names below one",
      withPins("{ trust-anchor: ../ca.pem, name: .acme.example }"),
      "2: error: pins[0].name: must be a domain name",
    ],
    [
      "an anchor with an address for a name",
      withPins("{ trust-anchor: ../ca.pem, name: 203.0.113.1 }"),
      "2: error: pins[0].name: must be a domain name",
    ],
    [
      "an anchor that is missing",
      withPins("{ trust-anchor: gone.pem, name: mx.acme.example }"),
      "2: error: pins[0].trust-anchor: partners/gone.pem does not exist",
    ],
    [
      "an anchor that is no CA",
      withPins("{ trust-anchor: ../server.pem, name: mx.acme.example }"),
      "2: error: pins[0].trust-anchor: server.pem holds no CA certificate",
    ],
    [
      "a day that is none",
      withPins(`{ spki: "${digests[1]}", not-after: 2027-02-29 }`),
      "2: error: pins[0].not-after: must be a date",
    ],
    [
      "a label that is a number",
      withPins(`{ spki: "${digests[1]}", label: 2026 }`),
      '2: error: pins[0].label: must be text: put it in quotes, as "2026"',
    ],
    [
      "the same pin twice",
      withPins(`${onePin}, ${onePin}`),
      "2: error: pins[1].spki: is the same pin as pins[0].spki in line 2",
    ],
    ["no allow", changed("allow: ", "# "), "1: error: allow: is missing: add it"],
    ["no allow.to", changed(`, to: ["@corp.example"]`, ""), "3: error: allow.to: is missing: add it"],
    ["empty allow.to", changed(`["@corp.example"]`, "[]"), "3: error: allow.to: must not be empty"],
    ["text for allow.from", changed(`["@acme.example"]`, '"@acme.example"'), "3: error: allow.from: must be a list"],
    [
      "a rule that is none",
      changed(`["@corp.example"]`, `["@corp.example", "*"]`),
      "3: error: allow.to[1]: must be user@domain, @domain or @*.domain",
    ],
    [
      "a rule with a routed local part",
      changed(`["@corp.example"]`, "[a%b@corp.example]"),
      "3: error: allow.to[0]: must be user@domain, @domain or @*.domain; a local part with %, ! or @ is always refused",
    ],
    ["a number for a rule", changed(`["@acme.example"]`, "[5]"), "3: error: allow.from[0]: must be text"],
    ["another mode", partnerYaml("mode: off"), '5: error: mode: must be enforce or observe; it is "off"'],
    ["a boolean mode", partnerYaml("mode: false"), "5: error: mode: must be enforce or observe; it is false"],
    [
      "text for a limit",
      partnerYaml("limits:\n  recipients: many"),
      '6: error: limits.recipients: must be a whole number from 1 to 1000000, without quotes; it is "many"',
    ],
    [
      "a limit of another unit",
      partnerYaml("limits: { queue-bytes: 1GB }"),
      "5: error: limits.queue-bytes: must be a size above zero",
    ],
    [
      "an empty deliver",
      partnerYaml("deliver:"),
      "5: error: deliver: must be a map of keys; it is empty: give it a value or remove the key",
    ],
    [
      "deliver to nowhere",
      partnerYaml("deliver: { domains: [acme.example], servers: [] }"),
      "5: error: deliver.servers: must not be empty",
    ],
    [
      "deliver of our own domain",
      partnerYaml(`deliver: { domains: [corp.example], servers: [{ address: 192.0.2.1, pin: "${digests[2]}" }] }`),
      "5: error: deliver.domains[0]: corp.example has a route already, at relay.yaml:8 (routes.internal.domains[0])",
    ],
    [
      "deliver by name",
      partnerYaml(
        `deliver: { domains: [acme.example], servers: [{ address: mx.acme.example, pin: "${digests[2]}" }] }`,
      ),
      "5: error: deliver.servers[0].address: must be an IP literal: no DNS is asked",
    ],
    [
      "an escape sequence",
      partnerYaml('description: "\\e[31m"'),
      '5: error: description: must be one line without control characters; it is "\\u001b[31m"',
    ],
  ])("%s", async (_name, text, expected) => {
    const problems = await problemsOf({ "partners/acme.yaml": text, "ca.pem": authority.pem });
    const errors = problems.filter((problem) => problem.includes(": error: "));
    expect(errors[0]).toContain(`partners/acme.yaml:${expected}`);
    expect(errors).toHaveLength(1);
  });
});

describe("two partners are refused with", () => {
  const anchor = (name: string, file = "../ca.pem"): string => withPins(`{ trust-anchor: ${file}, name: ${name} }`);
  const deliver = (domain: string): string =>
    `deliver: { domains: [${domain}], servers: [{ address: 192.0.2.1, pin: "${digests[0]}" }] }`;
  it.each([
    [
      "one key",
      partnerYaml(),
      partnerYaml(),
      "2: error: pins[0].spki: is a pin of another partner, at partners/acme.yaml:2 (pins[0].spki)",
    ],
    [
      "one key in two spellings",
      partnerYaml(),
      partnerYaml("", Buffer.from(digests[1].slice(7), "base64").toString("hex")),
      "2: error: pins[0].spki: is a pin of another partner",
    ],
    [
      "one certificate",
      withPins(`{ certificate: "${digests[2]}" }`),
      withPins(`{ certificate: "${digests[2]}" }`),
      "2: error: pins[0].certificate: is a pin of another partner",
    ],
    [
      "one name under one anchor",
      anchor("a.example"),
      anchor("A.Example."),
      "2: error: pins[0].trust-anchor: is a pin of another partner",
    ],
    [
      "one name under copies of an anchor",
      anchor("a.example"),
      anchor("a.example", "../copy.pem"),
      "2: error: pins[0].trust-anchor: is a pin of another partner",
    ],
    [
      "one domain",
      partnerYaml(deliver("a.example")),
      partnerYaml(deliver("A.example"), digests[2]),
      "5: error: deliver.domains[0]: a.example has a route already, at partners/acme.yaml:5 (deliver.domains[0])",
    ],
  ])("%s", async (_name, acme, globex, expected) => {
    const problems = await problemsOf({
      "partners/acme.yaml": acme,
      "partners/globex.yaml": globex,
      "ca.pem": authority.pem,
      "copy.pem": `a copy\n${authority.pem}`,
    });
    expect(problems).toEqual([expect.stringContaining(`partners/globex.yaml:${expected}`)]);
  });

  it("one key, also where one of them is not valid for another reason", async () => {
    const problems = await problemsOf({
      "partners/acme.yaml": `${partnerYaml()}x: 1\n`,
      "partners/globex.yaml": partnerYaml(),
    });
    expect(problems).toHaveLength(2);
  });

  it("but not for sharing an anchor under two names, or hosts", async () => {
    const { warnings } = await loaded({
      "partners/acme.yaml": anchor("a.example"),
      "partners/globex.yaml": anchor("b.example"),
      "ca.pem": authority.pem,
    });
    expect(warnings).toEqual([]);
  });
});

describe("a partner's file is taken with a warning for", () => {
  it.each([
    [
      "any host",
      changed("203.0.113.1", "203.0.113.1, any"),
      "1: warning: hosts[1]: any host may try: the certificate alone decides",
    ],
    [
      "a pin of the past",
      withPins(`{ spki: "${digests[1]}", not-after: 2026-06-14 }`),
      "2: warning: pins[0].not-after: is past",
    ],
    [
      "certificates of servers",
      partnerYaml("extended-key-usage: any"),
      "5: warning: extended-key-usage: a certificate that was issued for servers only will do",
    ],
    [
      "no senders",
      changed(fromRule, ""),
      "3: warning: allow.from: no sender is allowed: only reports (the null reverse-path) pass",
    ],
    ["an empty list of senders", changed(`["@acme.example"]`, "[]"), "3: warning: allow.from: no sender is allowed"],
    [
      "senders of our own",
      changed(`["@acme.example"]`, `["@acme.example", ceo@corp.example]`),
      "3: warning: allow.from[1]: ceo@corp.example is ours",
    ],
    [
      "recipients elsewhere",
      changed(`["@corp.example"]`, `["@corp.example", "@crop.example"]`),
      "3: warning: allow.to[1]: @crop.example can never match",
    ],
    [
      "subdomains that have no route",
      changed(`["@corp.example"]`, `["@*.corp.example"]`),
      "3: warning: allow.to[0]: @*.corp.example can never match",
    ],
    [
      "more than the relay takes",
      partnerYaml("limits: { message-size: 26MiB }"),
      "5: warning: limits.message-size: is above `limits.message-size` of relay.yaml",
    ],
  ])("%s", async (_name, text, expected) => {
    const { warnings } = await loaded({ "partners/acme.yaml": text });
    expect(warnings).toEqual([expect.stringContaining(`partners/acme.yaml:${expected}`)]);
  });

  it("nothing: a pin counts until the end of its day", async () => {
    const { warnings } = await loaded({
      "partners/acme.yaml": withPins(`{ spki: "${digests[1]}", not-after: 2026-06-15 }`),
    });
    expect(warnings).toEqual([]);
  });

  it("nothing: a default above what the relay takes is nobody's mistake", async () => {
    const { warnings } = await loaded({ "relay.yaml": relayYaml("limits: { message-size: 1MiB }") });
    expect(warnings).toEqual([]);
  });
});

it("the name beside a trust anchor is taken in any spelling, and compared in one", async () => {
  const { config } = await loaded({
    "partners/acme.yaml": withPins("{ trust-anchor: ../ca.pem, name: MX.Bücher.Example. }"),
    "ca.pem": authority.pem,
  });
  expect(config.partners[0]?.pins[0]).toMatchObject({ name: "mx.xn--bcher-kva.example" });
});

it("what one partner says is never another's: optional keys do not leak", async () => {
  const { config } = await loaded({
    "partners/acme.yaml": partnerYaml(
      `description: A\ncontact: a@b.example\nlimits: { recipients: 1 }\ndeliver: { domains: [acme.example], servers: [{ address: 192.0.2.1, pin: "${digests[2]}" }] }`,
    ),
    "partners/bcme.yaml": partnerYaml("", digests[2]),
  });
  expect(config.partners[1]).toMatchObject({
    name: "bcme",
    description: "",
    contact: undefined,
    deliver: undefined,
    limits: { recipientsMax: 100 },
  });
});
