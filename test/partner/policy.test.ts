/** Policy: the default is no, no rule opens a relay, and observing is not enforcing. */
import { describe, expect, test } from "vitest";
import { parseForwardPath, parseReversePath, type ForwardPath, type ReversePath } from "../../src/mail/address.ts";
import type { ReplyName } from "../../src/mail/reply.ts";
import type { PeerJudgement } from "../../src/partner/identity.ts";
import { covers, identityRefusal, judgeRecipient, judgeSender, RouteTable } from "../../src/partner/policy.ts";
import { mailbox, partner, route, rule } from "./partners.ts";
import { spkiPin } from "./pins.ts";

function from(text: string): ReversePath {
  const parsed = parseReversePath(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed.value;
}

function to(text: string): ForwardPath {
  const parsed = parseForwardPath(text, true);
  if (parsed.kind === "fault") throw new Error(`${text}: ${parsed.fault}`);
  return parsed.value;
}

const bolt = partner("bolt", { deliver: route("bolt", "partner", ["bolt.example"]) });
const routes = new RouteTable([route("internal", "internal", ["corp.example", "bücher.example"])], [bolt]);

describe("a rule covers a mailbox", () => {
  test.each([
    ["orders@corp.example", "orders@corp.example"],
    ["orders@corp.example", "orders@CORP.example."],
    ["orders@corp.example", '"orders"@corp.example'],
    ["@corp.example", "anything+at-all@corp.example"],
    ["@bücher.example", "a@xn--bcher-kva.example"],
    ["@*.corp.example", "a@edi.corp.example"],
    ["@*.corp.example", "a@b.edi.corp.example"],
  ])("%s: %s", (text, address) => {
    expect(covers(rule(text), mailbox(address))).toBe(true);
  });

  test.each([
    ["orders@corp.example", "Orders@corp.example"], // RFC 5321 §2.4
    ["orders@corp.example", "orders2@corp.example"],
    ["orders@corp.example", "orders@edi.corp.example"],
    ["orders@corp.example", '"orders "@corp.example'],
    ["@corp.example", "a@edi.corp.example"],
    ["@corp.example", "a@evilcorp.example"],
    ["@corp.example", "a@corp.example.evil.example"],
    ["@corp.example", "a@c\u043erp.example"], // a Cyrillic o
    ["@*.corp.example", "a@corp.example"],
    ["@*.corp.example", "a@evilcorp.example"],
  ])("%s does not cover %s", (text, address) => {
    expect(covers(rule(text), mailbox(address))).toBe(false);
  });
});

describe("a sender is judged by the partner's rules", () => {
  const acme = partner("acme", { allow: { from: [rule("@acme.example"), rule("@*.acme.example")], to: [] } });

  test.each(["bob@acme.example", "bob@a.acme.example", "BOB@ACME.EXAMPLE"])(
    "accepts %s, and names the rule",
    (text) => {
      expect(judgeSender(acme, from(text))).toMatchObject({ kind: "accept", because: { kind: expect.any(String) } });
    },
  );

  test("accepts the null reverse-path whatever the rules are", () => {
    const closed = partner("closed", { allow: { from: [], to: [] } });
    expect(judgeSender(closed, from(""))).toMatchObject({ kind: "accept" });
  });

  test.each([
    "ceo@corp.example",
    "bob@acme.example.evil.example",
    "bob@evilacme.example",
    '"bob@acme.example"@evil.example',
  ])("refuses %s", (text) => {
    expect(judgeSender(acme, from(text))).toEqual({ kind: "refuse", reply: "senderNotAllowed" });
  });

  test("refuses everybody where there are no rules", () => {
    const closed = partner("closed", { allow: { from: [], to: [] } });
    expect(judgeSender(closed, from("bob@acme.example"))).toEqual({ kind: "refuse", reply: "senderNotAllowed" });
  });
});

describe("a recipient is judged by domain first, then by the partner's rules", () => {
  const acme = partner("acme", {
    allow: { from: [], to: [rule("orders@corp.example"), rule("@bolt.example"), rule("@evil.example")] },
  });

  test.each([
    ["orders@corp.example"],
    ["orders@CORP.EXAMPLE."],
    ["postmaster"],
    ["Postmaster@corp.example"],
    ["postmaster@bücher.example"],
  ])("accepts %s", (text) => {
    expect(judgeRecipient(acme, routes, to(text))).toMatchObject({ kind: "accept" });
  });

  test.each<[string, ReplyName]>([
    ["Orders@corp.example", "recipientNotAllowed"],
    ["ceo@corp.example", "recipientNotAllowed"],
    ["orders@bücher.example", "recipientNotAllowed"],
    ["orders@edi.corp.example", "relayingDenied"], // not a domain of ours, though below one
    ["a@evil.example", "relayingDenied"], // the rule that allows it opens nothing
    ["a@bolt.example", "relayingDenied"], // one partner cannot write to another through us
    ["postmaster@evil.example", "relayingDenied"],
    ["orders@corp.example.evil.example", "relayingDenied"],
  ])("refuses %s: %s", (text, reply) => {
    expect(judgeRecipient(acme, routes, to(text))).toEqual({ kind: "refuse", reply });
  });
});

describe("the probe of a relay", () => {
  const acme = partner("acme", { allow: { from: [], to: [] } });
  const probed = new RouteTable([route("internal", "internal", ["corp.example"])], [], "mx.corp.example");

  test.each(["probe@mx.corp.example", "PROBE@MX.corp.example.", '"probe"@mx.corp.example'])(
    "is accepted of every partner, though its domain is none of a route: %s",
    (text) => {
      expect(judgeRecipient(acme, probed, to(text))).toMatchObject({ kind: "accept" });
    },
  );

  test.each<[string, ReplyName]>([
    ["probe@corp.example", "recipientNotAllowed"],
    ["probe@in.mx.corp.example", "relayingDenied"],
    ["probe2@mx.corp.example", "relayingDenied"],
    ["postmaster@mx.corp.example", "relayingDenied"],
    ["probe@mx.corp.example.evil.example", "relayingDenied"],
  ])("is nothing that is called alike: %s", (text, reply) => {
    expect(judgeRecipient(acme, probed, to(text))).toEqual({ kind: "refuse", reply });
  });

  test("is not there where no name was given", () => {
    expect(judgeRecipient(acme, routes, to("probe@mx.corp.example"))).toMatchObject({ kind: "refuse" });
  });
});

describe("a partner in mode observe", () => {
  const observed = partner("acme", { mode: "observe", allow: { from: [], to: [] } });

  test("passes what the rules would refuse, and says so", () => {
    expect(judgeSender(observed, from("ceo@corp.example"))).toEqual({ kind: "observed", reply: "senderNotAllowed" });
    expect(judgeRecipient(observed, routes, to("ceo@corp.example"))).toEqual({
      kind: "observed",
      reply: "recipientNotAllowed",
    });
  });

  test("cannot relay", () => {
    expect(judgeRecipient(observed, routes, to("a@evil.example"))).toEqual({ kind: "refuse", reply: "relayingDenied" });
  });
});

describe("a peer that is not identified gets its reply at MAIL", () => {
  const acme = partner("acme");
  const pin = spkiPin("sha256/x");
  test.each<[string, PeerJudgement, ReplyName | undefined]>([
    ["a partner: none", { kind: "partner", identity: { partner: acme, pin } }, undefined],
    ["no certificate", { kind: "noCertificate", addressOf: [acme] }, "certificateMissing"],
    ["no certificate, from anywhere", { kind: "noCertificate", addressOf: [] }, "certificateMissingAnywhere"],
    ["an unknown certificate", { kind: "unknownCertificate", addressOf: [acme] }, "certificateUnknown"],
    ["an unknown one, from anywhere", { kind: "unknownCertificate", addressOf: [] }, "certificateUnknownAnywhere"],
    ["the wrong address", { kind: "wrongAddress", partner: acme, pin }, "addressNotOfPartner"],
    ["an expired certificate", { kind: "expired", partner: acme, pin, since: new Date() }, "certificateExpired"],
    ["one of the future", { kind: "notYetValid", partner: acme, pin, from: new Date() }, "certificateNotYetValid"],
    ["a pin that waits", { kind: "pending", partner: acme, pin }, "certificatePending"],
    ["a revoked pin", { kind: "revoked", partner: acme, pin, by: "operator" }, "certificateRevoked"],
    ["a retired pin", { kind: "retired", partner: acme, pin, since: new Date() }, "certificateRetired"],
    ["an unknown address", { kind: "unknownAddress" }, "addressUnknown"],
  ])("%s", (_, judgement, reply) => {
    expect(identityRefusal(judgement)).toBe(reply);
  });
});

describe("routes", () => {
  test("in and out never mix", () => {
    expect(routes.internal("corp.example")?.name).toBe("internal");
    expect(routes.internal("bolt.example")).toBeUndefined();
    expect(routes.toPartner("bolt.example")?.name).toBe("bolt");
    expect(routes.toPartner("corp.example")).toBeUndefined();
  });

  test("a domain is not routed because one above it is", () => {
    expect(routes.internal("edi.corp.example")).toBeUndefined();
  });

  test("a partner that takes no mail has none", () => {
    expect(new RouteTable([], [partner("acme")]).toPartner("acme.example")).toBeUndefined();
  });
});
