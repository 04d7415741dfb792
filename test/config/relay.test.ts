import { describe, expect, it } from "vitest";
import { authority, digests, loaded, mint, problemsOf, relayYaml, server } from "./support.ts";

const pin = `pin: "${digests[0]}"`;

/** relay.yaml with one of its keys changed: lines are those of {@link relayYaml}. */
function changed(from: string, to: string): string {
  const text = relayYaml();
  if (!text.includes(from)) throw new Error(`no ${from}`);
  return text.replace(from, to);
}
const withServer = (written: string): string => changed(`{ address: 10.1.0.10, ${pin} }`, written);

describe("relay.yaml is refused for", () => {
  it.each([
    // keys
    ["an unknown key", relayYaml("colour: red"), "10: error: colour: is no key"],
    ["an unknown key in a group", relayYaml("limits: { messagesize: 1 }"), "10: error: limits.messagesize: is no key"],
    ["an unknown key in an element", changed("port: 0", "prot: 0"), "2: error: listen[0].prot: is no key"],
    ["a key with a dot", relayYaml("tls.key: x"), '10: error: ["tls.key"]: is no key'],
    ["__proto__", relayYaml("__proto__: { hostname: x }"), "10: error: __proto__: is no key"],
    ["constructor", relayYaml("constructor: { prototype: {} }"), "10: error: constructor: is no key"],
    ["a merge key", relayYaml("<<: { hostname: x }"), '10: error: ["<<"]: is no key'],
    ["no hostname", changed("hostname: mx.corp.example", "# none"), "1: error: hostname: is missing: add it"],
    ["no listen", changed("listen:", "# listen:"), "1: error: listen: is missing: add it"],
    ["no tls.key", changed("  key: server.key", "#"), "3: error: tls.key: is missing: add it"],
    [
      "submission",
      relayYaml("submission: []"),
      "10: error: submission: submission is not available in this version: remove it",
    ],
    // types
    [
      "a number for text",
      changed("mx.corp.example", "5"),
      '1: error: hostname: must be text: put it in quotes, as "5"',
    ],
    ["a list for text", changed("mx.corp.example", "[a]"), "1: error: hostname: must be a single value, not a list"],
    [
      "a map for text",
      changed("mx.corp.example", "{ a: b }"),
      "1: error: hostname: must be a single value, not a map of keys",
    ],
    ["nothing for text", changed("mx.corp.example", ""), "1: error: hostname: must be text; it is empty"],
    ["null for text", changed("mx.corp.example", "~"), "1: error: hostname: must be text; it is empty"],
    [
      "a map for a list",
      changed("[{ address: 127.0.0.1, port: 0 }]", "{ address: 127.0.0.1 }"),
      "2: error: listen: must be a list, as [a, b]",
    ],
    [
      "nothing for a list",
      changed("[{ address: 127.0.0.1, port: 0 }]", ""),
      "2: error: listen: must be a list, as [a, b]; it is empty",
    ],
    ["an empty list", changed("[{ address: 127.0.0.1, port: 0 }]", "[]"), "2: error: listen: must not be empty"],
    [
      "text for a map",
      relayYaml("limits: many"),
      "10: error: limits: must be a map of keys; its keys are message-size",
    ],
    ["a list for a map", relayYaml("spool: [x]"), "10: error: spool: must be a map of keys"],
    ["nothing for a map", relayYaml("retry:"), "10: error: retry: must be a map of keys; it is empty: give it a value"],
    [
      "text for a boolean",
      changed("port: 0", "port: 0, implicit-tls: 'true'"),
      '2: error: listen[0].implicit-tls: must be true or false, without quotes; it is "true"',
    ],
    [
      "yes for a boolean",
      changed("port: 0", "port: 0, implicit-tls: no"),
      '2: error: listen[0].implicit-tls: must be true or false, without quotes; it is "no"',
    ],
    [
      "text for a number",
      changed("port: 0", 'port: "25"'),
      '2: error: listen[0].port: must be a whole number from 0 to 65535, without quotes; it is "25"',
    ],
    [
      "a port out of range",
      changed("port: 0", "port: 65536"),
      "2: error: listen[0].port: must be a whole number from 0 to 65535; it is 65536",
    ],
    [
      "text in a list of maps",
      changed("[{ address: 127.0.0.1, port: 0 }]", "[127.0.0.1]"),
      "2: error: listen[0]: must be a map of keys",
    ],
    [
      "a list in a list of text",
      changed("[corp.example]", "[[corp.example]]"),
      "8: error: routes.internal.domains[0]: must be a single value, not a list",
    ],
    [
      "a word that is no choice",
      changed("key: server.key", "key: server.key\n  minimum-version: TLSv1.1"),
      "6: error: tls.minimum-version: must be TLSv1.2 or TLSv1.3",
    ],
    ["another driver", relayYaml("spool: { driver: postgresql }"), "10: error: spool.driver: must be directory"],
    // listening
    [
      "a host name to listen on",
      changed("127.0.0.1", "localhost"),
      "2: error: listen[0].address: must be an IP literal",
    ],
    [
      "the same address twice",
      changed("port: 0 }", "port: 25 }, { address: 127.0.0.1 }"),
      "2: error: listen[1]: is the same address and port as listen[0]",
    ],
    [
      "a console for everybody",
      relayYaml("console: { listen: 0.0.0.0:8025 }"),
      "10: error: console.listen: must be a loopback address",
    ],
    // routes
    [
      "no routes",
      changed("routes:", "x:")
        .replaceAll("x:", "#")
        .replace("  internal:", "#")
        .replace("    domains", "#")
        .replace("    servers", "#"),
      "1: error: routes: is missing",
    ],
    ["empty routes", relayYaml().replace(/routes:[^]*/, "routes: {}"), "6: error: routes: must not be empty"],
    ["a list of routes", relayYaml().replace(/routes:[^]*/, "routes: []"), "6: error: routes: must be a map of names"],
    ["a route's name __proto__", changed("  internal:", "  __proto__:"), "7: error: routes.__proto__: is no name"],
    ["a route's name with spaces", changed("  internal:", "  our own:"), '7: error: routes["our own"]: is no name'],
    ["a route that is empty", changed("[corp.example]", "[]"), "8: error: routes.internal.domains: must not be empty"],
    ["no domains", changed("    domains: [corp.example]", ""), "7: error: routes.internal.domains: is missing"],
    [
      "no servers",
      relayYaml().replace(/ {4}servers:.*\n/, "    servers: []\n"),
      "9: error: routes.internal.servers: must not be empty",
    ],
    [
      "a domain that is none",
      changed("[corp.example]", "[corp.example, '*.corp.example']"),
      "8: error: routes.internal.domains[1]: must be a domain name",
    ],
    [
      "a domain twice in a route",
      changed("[corp.example]", "[corp.example, CORP.example.]"),
      "8: error: routes.internal.domains[1]: corp.example has a route already, at relay.yaml:8 (routes.internal.domains[0])",
    ],
    [
      "a domain in two routes",
      `${relayYaml()}  other: { domains: [corp.example], servers: [{ address: 10.1.0.11, ${pin} }] }\n`,
      "10: error: routes.other.domains[0]: corp.example has a route already, at relay.yaml:8 (routes.internal.domains[0])",
    ],
    // servers
    [
      "a host name as address",
      withServer(`{ address: mail1.corp.example, ${pin} }`),
      "9: error: routes.internal.servers[0].address: must be an IP literal: no DNS is asked, put the name under `name`",
    ],
    [
      "port 0 of a server",
      withServer(`{ address: 10.1.0.10, port: 0, ${pin} }`),
      "9: error: routes.internal.servers[0].port: must be a whole number from 1 to 65535",
    ],
    [
      "a server that nothing is known by",
      withServer("{ address: 10.1.0.10 }"),
      "9: error: routes.internal.servers[0]: must have pin or tls",
    ],
    [
      "tls that says nothing",
      withServer("{ address: 10.1.0.10, tls: {} }"),
      "9: error: routes.internal.servers[0].tls: says nothing by which the server is known",
    ],
    [
      "mode required alone",
      withServer("{ address: 10.1.0.10, tls: { mode: required } }"),
      "9: error: routes.internal.servers[0].tls: says nothing by which the server is known",
    ],
    [
      "opportunistic TLS",
      withServer(`{ address: 10.1.0.10, tls: { mode: opportunistic, ${pin} } }`),
      "9: error: routes.internal.servers[0].tls.mode: must be required or none",
    ],
    [
      "pin beside tls",
      withServer(`{ address: 10.1.0.10, ${pin}, tls: { ${pin} } }`),
      "9: error: routes.internal.servers[0].tls: cannot stand beside `pin`",
    ],
    [
      "pin and trust anchor",
      withServer(`{ address: 10.1.0.10, name: a.b, tls: { ${pin}, trust-anchor: ca.pem } }`),
      "9: error: routes.internal.servers[0].tls.trust-anchor: cannot stand beside `pin`",
    ],
    [
      "a pin with mode none",
      withServer(`{ address: 127.0.0.1, tls: { mode: none, ${pin} } }`),
      "9: error: routes.internal.servers[0].tls.pin: means nothing with `mode: none`",
    ],
    [
      "implicit with mode none",
      withServer("{ address: 127.0.0.1, tls: { mode: none, implicit: false } }"),
      "9: error: routes.internal.servers[0].tls.implicit: means nothing with `mode: none`",
    ],
    [
      "a trust anchor without a name",
      withServer("{ address: 10.1.0.10, tls: { trust-anchor: ca.pem } }"),
      "9: error: routes.internal.servers[0].tls.trust-anchor: needs `name` beside `address`",
    ],
    [
      "a pin that is none",
      withServer("{ address: 10.1.0.10, pin: sha256/BASE64 }"),
      "9: error: routes.internal.servers[0].pin: must be sha256/",
    ],
    [
      "no pin in a list",
      withServer("{ address: 10.1.0.10, pin: [] }"),
      "9: error: routes.internal.servers[0].pin: must not be empty",
    ],
    [
      "a pin that is none in a list",
      withServer(`{ address: 10.1.0.10, tls: { pin: ["${digests[0]}", x] } }`),
      "9: error: routes.internal.servers[0].tls.pin[1]: must be sha256/",
    ],
    // what belongs together
    ["an empty schedule", relayYaml("retry: { schedule: [] }"), "10: error: retry.schedule: must not be empty"],
    [
      "a number in the schedule",
      relayYaml("retry:\n  schedule:\n    - 1m\n    - 5\n"),
      "13: error: retry.schedule[1]: must be a duration with its unit",
    ],
    [
      "no wait at all",
      relayYaml("retry: { schedule: [0s] }"),
      "10: error: retry.schedule[0]: must be a duration with its unit",
    ],
    [
      "no time to expire",
      relayYaml("retry: { expire: 0d }"),
      "10: error: retry.expire: must be a duration with its unit",
    ],
    [
      "a size without unit",
      relayYaml("limits: { message-size: 25M }"),
      "10: error: limits.message-size: must be a size above zero",
    ],
    [
      "a limit of none",
      relayYaml("limits: { connections: 0 }"),
      "10: error: limits.connections: must be a whole number from 1",
    ],
    [
      "a postmaster elsewhere",
      relayYaml("postmaster: admin@other.example"),
      "10: error: postmaster: must be in a domain that has a route here, or reports are lost",
    ],
    ["a postmaster without domain", relayYaml("postmaster: postmaster"), "10: error: postmaster: must be user@domain"],
    [
      "a postmaster outside ASCII",
      relayYaml("postmaster: j\u00f6rg@corp.example"),
      "10: error: postmaster: must be user@domain: characters outside ASCII",
    ],
  ])("%s", async (_name, text, expected) => {
    const problems = await problemsOf({ "relay.yaml": text, "ca.pem": authority.pem });
    expect(problems[0]).toContain(`relay.yaml:${expected}`);
    expect(problems).toHaveLength(1);
  });
});

describe("the server's certificate is refused where it", () => {
  const { pem, keyPem } = mint({});
  const der = Buffer.from(server.certificate.raw);
  it.each<[string, string | Uint8Array | undefined, string]>([
    [
      "is missing",
      undefined,
      "server.pem does not exist: `pinrelay ca init` and `pinrelay ca issue HOSTNAME --out certs/server` make one to try",
    ],
    ["is empty", "", "server.pem is empty"],
    ["is a private key", keyPem, "server.pem is a private key: name the certificate here, and the key under `tls.key`"],
    [
      "has a private key beside it",
      `${pem}${keyPem}`,
      "server.pem holds a private key beside the certificate: move the key",
    ],
    ["is DER", der, "server.pem is DER, not PEM: convert it with `openssl x509 -inform DER"],
    [
      "is a request",
      "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
      "server.pem is a certificate request: have it signed",
    ],
    [
      "is a public key",
      "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
      "server.pem holds no certificate but PUBLIC KEY",
    ],
    ["is text", "hello", "server.pem is no PEM file"],
    ["is cut off", pem.slice(0, 200), "server.pem is broken: copy the file again"],
    ["has lost a line", pem.replace(/\n.{64}\n/, "\n"), "server.pem is broken: copy the file again"],
    [
      "has a broken intermediate",
      `${pem}${authority.pem.replace(/\n.{64}\n/, "\n")}`,
      "server.pem certificate 2 of 2 is broken",
    ],
    ["is huge", Buffer.alloc(1024 * 1024 + 1, "x"), "server.pem is larger than 1 MiB"],
  ])("%s", async (_name, content, expected) => {
    const problems = await problemsOf(
      content === undefined
        ? { "relay.yaml": changed("certificate: server.pem", "certificate: gone/server.pem") }
        : { "server.pem": content },
    );
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain("relay.yaml:4: error: tls.certificate: ");
    expect(problems[0]).toContain(expected);
    expect(problems[0]).not.toMatch(/\n|asn1|routines/);
  });
});

describe("a trust anchor is refused where it", () => {
  const text = withServer("{ address: 10.1.0.10, name: mail1.corp.example, tls: { trust-anchor: ca.pem } }");
  it.each([
    ["is missing", undefined, "ca.pem does not exist"],
    ["is a server's certificate", server.pem, "ca.pem holds no CA certificate: use `pin`"],
    ["is a key", authority.keyPem, "ca.pem is a private key"],
  ])("%s", async (_name, content, expected) => {
    const problems = await problemsOf({ "relay.yaml": text, ...(content === undefined ? {} : { "ca.pem": content }) });
    expect(problems).toEqual([
      expect.stringContaining(`relay.yaml:9: error: routes.internal.servers[0].tls.trust-anchor: ${expected}`),
    ]);
  });
});

describe("relay.yaml is taken with a warning for", () => {
  it.each([
    [
      "plain text to another host",
      withServer("{ address: 10.1.0.10, tls: { mode: none } }"),
      "9: warning: routes.internal.servers[0].tls.mode: mail to 10.1.0.10 goes in plain text",
    ],
    [
      "a warning that comes too late",
      relayYaml("retry: { expire: 4h }"),
      "10: warning: retry.warn-after: is not before `expire`",
    ],
  ])("%s", async (_name, text, expected) => {
    const { warnings } = await loaded({ "relay.yaml": text });
    expect(warnings).toEqual([expect.stringContaining(`relay.yaml:${expected}`)]);
  });
});

describe("relay.yaml is taken", () => {
  it.each([
    ["with plain text to this machine", withServer("{ address: 127.0.0.1, tls: { mode: none } }")],
    ["with a chain of certificates", relayYaml()],
    ["with CRLF", relayYaml().replaceAll("\n", "\r\n")],
    ["with a byte order mark", `\u{feff}${relayYaml()}`],
    ["with two listeners on port 0", changed("[{", "[{ address: 127.0.0.1, port: 0 }, {")],
    ["with a hostname that is a domain of ours", changed("mx.corp.example", "corp.example")],
    ["with several pins", withServer(`{ address: 10.1.0.10, tls: { pin: ["${digests[0]}", "${digests[2]}"] } }`)],
  ])("%s", async (_name, text) => {
    const { warnings } = await loaded({ "relay.yaml": text, "server.pem": `${server.pem}${authority.pem}` });
    expect(warnings).toEqual([]);
  });

  it("with the postmaster of the first domain, where none is named", async () => {
    const { config } = await loaded({ "relay.yaml": changed("[corp.example]", "[B\u00fccher.example, corp.example]") });
    expect(config.postmaster.address).toBe("postmaster@xn--bcher-kva.example");
  });
});
