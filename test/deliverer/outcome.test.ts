/** What a reply, and a broken connection, mean. */
import { describe, expect, test } from "vitest";
import {
  boundedText,
  closingFault,
  HopFault,
  hopFault,
  isRefusal,
  isReply,
  refusalOutcome,
  serverText,
} from "../../src/deliverer/outcome.ts";
import { nextHop, plaintext } from "./support.ts";

describe("refusalOutcome: only 5xx is for good", () => {
  test.each([
    ["550 5.1.1 no such user", "failed", "5.1.1"],
    ["550-5.1.1 no such user\n550 5.1.1 really", "failed", "5.1.1"],
    ["552 too large", "failed", "5.0.0"],
    ["550 4.1.1 in two minds", "failed", "5.0.0"],
    ["550 5.1.1x", "failed", "5.0.0"],
    ["550", "failed", "5.0.0"],
    ["451 4.7.1 later", "temporary", "4.7.1"],
    ["450 5.7.1 in two minds", "temporary", "4.0.0"],
    ["451", "temporary", "4.0.0"],
    ["354 go on", "temporary", "4.0.0"],
    ["250 2.0.0 ok", "temporary", "4.0.0"],
    ["", "temporary", "4.0.0"],
  ])("%j is %s, %s", (reply, kind, status) => {
    expect(refusalOutcome(reply)).toMatchObject({ kind, status, text: reply, remote: true });
  });
});

describe("isReply", () => {
  test.each([
    "220 hop.example ESMTP",
    "250",
    "250 ",
    "250-a\n250-b\n250 c",
    "250-\n250",
    "354 go ahead",
    "421 4.3.2 bye",
    "599 unheard of",
  ])("%j is one", (text) => {
    expect(isReply(text)).toBe(true);
  });

  test.each([
    "",
    "25",
    "2500",
    "150 x",
    "650 x",
    "250x",
    "hello",
    "250-a\n550 b",
    "250-a\n250-b",
    "250-a\nb\n250 c",
    "250 a\n250 b",
    " 250 a",
    "HTTP/1.1 400 Bad Request",
  ])("%j is none", (text) => {
    expect(isReply(text)).toBe(false);
  });
});

test("isRefusal: 4xx and 5xx, but for 421", () => {
  expect(["450 x", "550 x", "421 x", "250 x", "354 x", "x", "5"].map(isRefusal)).toEqual([
    true,
    true,
    false,
    false,
    false,
    false,
    false,
  ]);
});

describe("hopFault: why a server could not be used", () => {
  const coded = (message: string, more: Record<string, unknown>) => Object.assign(new Error(message), more);

  test.each([
    [coded("connect ECONNREFUSED", { code: "ESOCKET", originalCode: "ECONNREFUSED" }), "connecting", "4.4.1"],
    [coded("connect ECONNREFUSED", { code: "ECONNREFUSED" }), "connecting", "4.4.1"],
    [coded("read ECONNRESET", { code: "ESOCKET", originalCode: "ECONNRESET" }), "envelope", "4.4.2"],
    [coded("closed", { code: "ECONNECTION" }), "content", "4.4.2"],
    [coded("certificate has expired", { code: "ESOCKET", originalCode: "CERT_HAS_EXPIRED" }), "connecting", "4.7.5"],
    [coded("x", { code: "ESOCKET", originalCode: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" }), "connecting", "4.7.5"],
    [coded("x", { code: "ESOCKET", originalCode: "DEPTH_ZERO_SELF_SIGNED_CERT" }), "connecting", "4.7.5"],
    [coded("x", { code: "ESOCKET", originalCode: "ERR_SSL_WRONG_VERSION_NUMBER" }), "connecting", "4.7.5"],
    [coded("x", { code: "ETLS" }), "connecting", "4.7.5"],
    [new Error("something"), "connecting", "4.4.1"],
    ["a string", "envelope", "4.4.2"],
  ] as const)("%s while %s: %s", (error, phase, status) => {
    expect(hopFault(error, phase)).toMatchObject({ name: "HopFault", status, remote: false, afterData: false });
  });

  test.each([
    ["554 5.7.1 not you", "4.7.1"],
    ["554 go away", "4.3.2"],
    ["421 4.7.0 too many", "4.7.0"],
    ["220 2.0.0 what", "4.3.2"],
  ])("the remote's words are kept, and are temporary: %s", (response, status) => {
    const fault = hopFault(coded("Invalid greeting", { code: "EPROTOCOL", response }), "connecting");
    expect(fault).toMatchObject({ status, message: response, remote: true });
  });

  test("after the final dot the message may have been taken", () => {
    expect(hopFault(new Error("closed"), "end").afterData).toBe(true);
    expect(hopFault(new Error("closed"), "content").afterData).toBe(false);
    // A goodbye in place of an acceptance is a refusal.
    expect(closingFault("421 4.3.2 bye")).toMatchObject({ afterData: false, status: "4.3.2", remote: true });
  });

  test("a fault stays what it is", () => {
    const fault = new HopFault("4.5.0", "x", { afterData: true });
    expect(hopFault(fault, "connecting")).toBe(fault);
  });
});

test("boundedText keeps line breaks, and nothing else that moves a cursor", () => {
  expect(boundedText("a\nb\r\tc\u0000\u001b[2J\u2028\ud800é😀")).toBe(
    "a\nb\ufffd\ufffdc\ufffd\ufffd[2J\ufffd\ufffdé😀",
  );
  expect(boundedText("x".repeat(1_000))).toBe("x".repeat(1_000));
  expect(boundedText("x".repeat(1_001))).toBe(`${"x".repeat(1_000)} [...]`);
  // The cut may fall into a pair of surrogates.
  expect(boundedText(`${"x".repeat(999)}😀`).isWellFormed()).toBe(true);
});

test("serverText names a server for people", () => {
  expect(serverText(nextHop({ address: "10.1.0.10", port: 25 }, plaintext))).toBe("mail1.corp.example 10.1.0.10:25");
  const unnamed = { ...nextHop({ address: "2001:db8::1", port: 25 }, plaintext), name: undefined };
  expect(serverText(unnamed)).toBe("[2001:db8::1]:25");
});
