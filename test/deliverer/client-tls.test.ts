/** Who the next hop is: no message byte leaves before the right server is at the other end of a secured connection. */
import { afterEach, describe, expect, test } from "vitest";
import { connectToHop, type HopConnection } from "../../src/deliverer/client.ts";
import type { HopFault } from "../../src/deliverer/outcome.ts";
import type { HopTls } from "../../src/partner/partner.ts";
import { startScriptedHop, type Answer, type ScriptedHop, type ScriptedHopOptions } from "../tools/scripted-hop.ts";
import {
  addressed,
  anchored,
  claimedMessage,
  makeCertificates,
  nextHop,
  patientLimits,
  pinned,
  plaintext,
  shortLimits,
  type ServerCertificate,
} from "./support.ts";

const certificates = await makeCertificates();
const { anchor, strangersAnchor, server, other, expired } = certificates;
const hops: ScriptedHop[] = [];
const connections: HopConnection[] = [];

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.end();
  await Promise.all(hops.splice(0).map((hop) => hop.close()));
});

async function hopWith(options: Partial<ScriptedHopOptions> = {}): Promise<ScriptedHop> {
  const hop = await startScriptedHop({ ...server, ...options });
  hops.push(hop);
  return hop;
}

/** Sends a message; gives the fault, if it came to nothing. */
async function attempt(
  hop: ScriptedHop,
  tls: HopTls,
  {
    name = "mail1.corp.example",
    limits = patientLimits,
  }: { name?: string | undefined; limits?: typeof patientLimits } = {},
): Promise<HopFault | undefined> {
  try {
    const connection = await connectToHop(nextHop(hop, tls, name), { hostname: "mx.corp.example", limits });
    connections.push(connection);
    const message = claimedMessage();
    return (await connection.deliver(message, addressed(message))).fault;
  } catch (error) {
    return error as HopFault;
  }
}

const implicit = (tls: HopTls): HopTls => (tls.mode === "required" ? { ...tls, implicit: true } : tls);
const plainCommands = (hop: ScriptedHop) => hop.said.filter(({ secure }) => !secure).map(({ line }) => line);

interface Case {
  readonly what: string;
  readonly presents: ServerCertificate;
  readonly tls: HopTls;
  readonly name?: string;
  /** What the fault says; undefined: the message is delivered. */
  readonly fault?: RegExp;
}

const cases: readonly Case[] = [
  { what: "the pinned key", presents: server, tls: pinned(server.pin) },
  { what: "the pinned key in a certificate that has expired", presents: expired, tls: pinned(expired.pin) },
  { what: "the pinned key under another name", presents: server, tls: pinned(server.pin), name: "else.example" },
  { what: "the second of two pinned keys", presents: other, tls: pinned(server.pin, other.pin) },
  { what: "another key than the pinned one", presents: other, tls: pinned(server.pin), fault: /^the server's key is / },
  { what: "a key that is none of two", presents: expired, tls: pinned(server.pin, other.pin), fault: / or sha256/ },
  { what: "a certificate of the anchor with the name", presents: server, tls: anchored(anchor) },
  { what: "a certificate of one of two anchors", presents: server, tls: anchored(strangersAnchor, anchor) },
  {
    what: "a certificate of the anchor with another name",
    presents: other,
    tls: anchored(anchor),
    fault: /does not carry the name mail1\.corp\.example/,
  },
  {
    what: "a certificate of another CA",
    presents: server,
    tls: anchored(strangersAnchor),
    fault: /unable to (?:get local issuer|verify)/,
  },
  {
    what: "a certificate of the anchor that has expired",
    presents: expired,
    tls: anchored(anchor),
    fault: /expired/,
  },
];

describe.each(["STARTTLS", "implicit TLS"] as const)("over %s", (way) => {
  test.each(cases)("$what", async ({ presents, tls, name, fault: wanted }) => {
    const hop = await hopWith({ ...presents, implicitTls: way === "implicit TLS" });
    const fault = await attempt(hop, way === "implicit TLS" ? implicit(tls) : tls, { name });
    if (wanted === undefined) {
      expect(fault).toBeUndefined();
      expect(hop.contents.length).toBe(1);
    } else {
      expect(fault).toMatchObject({ name: "HopFault", status: "4.7.5", remote: false, afterData: false });
      expect(fault?.message).toMatch(wanted);
      await hop.until(() => hop.open() === 0);
      // Not a word to a server that is not the right one.
      expect(hop.said.filter(({ secure }) => secure)).toEqual([]);
    }
    expect(plainCommands(hop)).toEqual(way === "implicit TLS" ? [] : ["EHLO mx.corp.example", "STARTTLS"]);
  });
});

test("an anchor without a configured name vouches for nobody", async () => {
  const hop = await hopWith();
  const unnamed = { ...nextHop(hop, anchored(anchor)), name: undefined };
  await expect(connectToHop(unnamed, { hostname: "mx.corp.example" })).rejects.toMatchObject({ status: "4.7.5" });
  expect(hop.said.filter(({ secure }) => secure)).toEqual([]);
});

test("a server without a name is known by its pin", async () => {
  const hop = await hopWith();
  const unnamed = { ...nextHop(hop, pinned(server.pin)), name: undefined };
  const connection = await connectToHop(unnamed, { hostname: "mx.corp.example" });
  connections.push(connection);
  expect(connection.facts.tls).toMatchObject({ version: "TLSv1.3", spki: server.pin });
});

test("`mode: none` says no STARTTLS, even where it is offered", async () => {
  const hop = await hopWith();
  expect(await attempt(hop, plaintext)).toBeUndefined();
  expect(hop.lines).not.toContain("STARTTLS");
  expect(hop.contents.length).toBe(1);
});

describe("TLS is never given up for plaintext", () => {
  const withoutStarttls = "250-hop.example\r\n250-PIPELINING\r\n250 8BITMIME";
  const ways: ReadonlyArray<readonly [string, Partial<Record<string, Answer>>]> = [
    ["not offered, and refused", { EHLO: withoutStarttls, STARTTLS: "502 5.5.1 not implemented" }],
    ["not offered, and no reply", { EHLO: withoutStarttls, STARTTLS: { silent: true } }],
    ["offered, and refused for now", { STARTTLS: "454 4.7.0 TLS not available" }],
    ["offered, and refused for good", { STARTTLS: "554 5.7.3 no" }],
    ["offered, and answered by 421", { STARTTLS: "421 4.3.2 bye" }],
    ["offered, and answered by garbage", { STARTTLS: "hello there" }],
    ["offered, and the connection is closed", { STARTTLS: { close: true } }],
    ["EHLO refused: HELO knows no STARTTLS", { EHLO: "502 5.5.1 what?" }],
    ["EHLO refused for now", { EHLO: "451 4.3.0 later" }],
    ["no handshake, and no reply", { STARTTLS: { raw: "220 go ahead\r\n" } }],
  ];

  test.each(ways)("%s", async (what, script) => {
    const hop = await hopWith({ script: (verb) => script[verb] });
    const limits = what.endsWith("no reply") ? shortLimits : patientLimits;
    const fault = await attempt(hop, pinned(server.pin), { limits });
    expect(fault).toMatchObject({ name: "HopFault", afterData: false });
    expect(fault?.status).toMatch(/^4\./);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.join("\n")).not.toMatch(/MAIL|RCPT|DATA/);
  });

  test("a handshake of garbage", async () => {
    const hop = await hopWith({
      script: (verb) => {
        if (verb !== "STARTTLS") return undefined;
        const [socket] = hop.sockets();
        socket?.once("data", () => socket.write("250 never mind\r\n250 hop.example\r\n"));
        return { raw: "220 go ahead\r\n" };
      },
    });
    const fault = await attempt(hop, pinned(server.pin));
    expect(fault).toMatchObject({ name: "HopFault", status: "4.7.5", afterData: false });
    expect(hop.lines.join("\n")).not.toMatch(/MAIL|RCPT|DATA/);
  });

  test("a plain server where TLS is to be from the first octet", async () => {
    const hop = await hopWith();
    const fault = await attempt(hop, implicit(pinned(server.pin)));
    expect(fault).toMatchObject({ name: "HopFault", status: "4.7.5", afterData: false });
    expect(hop.lines.join("")).not.toContain("MAIL");
  });
});

test("replies injected before the handshake are forgotten (RFC 3207 §4.2)", async () => {
  for (const injected of ["250-evil.example\r\n250 8BITMIME\r\n", "250 8BITMIME", "250-"]) {
    let secured = false;
    const hop = await hopWith({
      script: (verb) => {
        if (verb === "STARTTLS") {
          secured = true;
          return { raw: `220 go ahead\r\n${injected}`, positive: true };
        }
        return verb === "EHLO" && secured ? "250 hop.example" : undefined;
      },
    });
    const connection = await connectToHop(nextHop(hop, pinned(server.pin)), { hostname: "mx.corp.example" });
    connections.push(connection);
    const message = claimedMessage({ content: "Subject: x\r\n\r\nH\u00e4llo\r\n" });
    const { outcomes } = await connection.deliver(message, addressed(message));
    // Had the injected reply been heard, 8-bit content would have left.
    expect(outcomes.get(0)).toMatchObject({ kind: "failed", status: "5.6.3" });
    expect(plainCommands(hop)).toEqual(["EHLO mx.corp.example", "STARTTLS"]);
    expect(hop.lines.slice(2)).toEqual(["EHLO mx.corp.example"]);
  }
});
