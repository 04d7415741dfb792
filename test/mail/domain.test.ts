/** Domain names: one canonical form for each, whatever the spelling, and none for what is no domain name. */
import { describe, expect, test } from "vitest";
import { canonicalDomain, isSubdomain } from "../../src/mail/domain.ts";

describe("gives one form to every spelling of a domain", () => {
  test.each([
    ["mx.corp.example", "mx.corp.example"],
    ["MX.Corp.EXAMPLE", "mx.corp.example"],
    ["mx.corp.example.", "mx.corp.example"],
    ["localhost", "localhost"],
    ["1and1.example", "1and1.example"],
    ["a--b.example", "a--b.example"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["BÜCHER.example", "xn--bcher-kva.example"],
    ["bu\u0308cher.example", "xn--bcher-kva.example"],
    ["xn--bcher-kva.example", "xn--bcher-kva.example"],
    ["XN--BCHER-KVA.example.", "xn--bcher-kva.example"],
    ["faß.example", "xn--fa-hia.example"], // not transitional: ß is itself
    ["ｃｏｒｐ。example", "corp.example"], // full width letters, ideographic full stop
    [`${"a".repeat(63)}.example`, `${"a".repeat(63)}.example`],
  ])("%j", (written, canonical) => {
    expect(canonicalDomain(written)).toBe(canonical);
  });
});

describe("refuses what is no domain name", () => {
  test.each([
    [""],
    ["."],
    [".."],
    [".example"],
    ["a..example"],
    ["corp.example.."],
    [" corp.example"],
    ["corp.example "],
    ["corp example"],
    ["corp\texample"],
    ["corp.example\r\n"],
    ["corp.example\0"],
    ["-corp.example"],
    ["corp-.example"],
    ["under_score.example"],
    ["*.example"],
    ["@corp.example"],
    ["corp.example:25"],
    ["corp.example/x"],
    ["[203.0.113.5]"],
    ["[IPv6:2001:db8::1]"],
    ["203.0.113.5"],
    ["corp.123"],
    [`${"a".repeat(64)}.example`],
    [`${"a.".repeat(127)}example`],
    ["ü".repeat(300)],
    ["xn--a.example"], // no Punycode
    ["xn--bücher.example"],
    ["a\u2060_.example"],
    ["\ud800.example"],
  ])("%j", (written) => {
    expect(canonicalDomain(written)).toBeUndefined();
  });
});

describe("knows what is below a domain", () => {
  test.each([
    ["a.corp.example", "corp.example", true],
    ["a.b.corp.example", "corp.example", true],
    ["corp.example", "corp.example", false], // not below itself
    ["evilcorp.example", "corp.example", false],
    ["example", "corp.example", false],
    ["corp.example.evil.example", "corp.example", false],
  ])("%s below %s: %s", (domain, parent, isBelow) => {
    expect(isSubdomain(domain, parent)).toBe(isBelow);
  });
});
