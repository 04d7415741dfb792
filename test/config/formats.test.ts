import { describe, expect, it } from "vitest";
import * as format from "../../src/config/formats.ts";
import type { ConfigScalar } from "../../src/config/source.ts";
import { digests } from "./support.ts";

const hex = Buffer.from(digests[0].slice(7), "base64").toString("hex");

describe("values that are taken", () => {
  it.each<[format.Format<unknown>, ConfigScalar, unknown]>([
    [format.duration, "30s", 30_000],
    [format.duration, "5m", 300_000],
    [format.duration, "4h", 14_400_000],
    [format.duration, "5d", 432_000_000],
    [format.duration, "20d", 1_728_000_000],
    [format.period, "14d", 1_209_600_000],
    [format.period, "3650d", 315_360_000_000],
    [format.size, 512, 512],
    [format.size, "512", 512],
    [format.size, "10KiB", 10_240],
    [format.size, "25MiB", 26_214_400],
    [format.size, "10GiB", 10_737_418_240],
    [format.flag, true, true],
    [format.flag, false, false],
    [format.count, 1, 1],
    [format.port, 65_535, 65_535],
    [format.listenPort, 0, 0],
    [format.oneOf("a", "b"), "b", "b"],
    [format.domainName, "Corp.Example.", "corp.example"],
    [format.domainName, "b\u00fccher.example", "xn--bcher-kva.example"],
    [format.ipLiteral, "::", "::"],
    [format.ipLiteral, "0.0.0.0", "0.0.0.0"],
    [format.hopAddress, "fe80::1%eth0", "fe80::1%eth0"],
    [format.path, "../a b/c.pem", "../a b/c.pem"],
    [format.consoleAddress, "127.0.0.1:8025", "127.0.0.1:8025"],
    [format.consoleAddress, "[::1]:8025", "[::1]:8025"],
    [format.consoleAddress, "../run/console.sock", "../run/console.sock"],
    [format.digest, digests[0], digests[0]],
    [format.digest, digests[0].replace("/", "//"), digests[0]],
    [format.digest, digests[0].slice(7), digests[0]],
    [format.digest, hex, digests[0]],
    [format.digest, hex.toUpperCase().replaceAll(/(..)(?=.)/g, "$1:"), digests[0]],
    [format.endDate, "2027-01-31", Date.parse("2027-01-31T23:59:59.999Z")],
    [format.endDate, "2028-02-29", Date.parse("2028-02-29T23:59:59.999Z")],
    [format.endDate, "2027-01-31T12:00:00Z", Date.parse("2027-01-31T12:00:00Z")],
    [format.text, "", ""],
    [format.text, "M\u00fcller & S\u00f6hne", "M\u00fcller & S\u00f6hne"],
  ])("$name: %j", (of, written, expected) => {
    expect(of.parse(written)).toEqual(expected);
  });

  it.each([
    ["orders@corp.example", "mailbox"],
    ["Orders@Corp.Example", "mailbox"],
    ['"a b"@corp.example', "mailbox"],
    ["j\u00f6rg@corp.example", "mailbox"],
    ["@corp.example", "domain"],
    ["@*.corp.example", "subdomains"],
    ["@b\u00fccher.example", "domain"],
  ])("rules: %s is a %s", (written, kind) => {
    for (const of of [format.reversePathRule, format.forwardPathRule]) {
      expect(of.parse(written)).toMatchObject({ kind, text: written });
    }
  });
});

describe("values that are refused", () => {
  const noDuration = "must be a duration with its unit";
  const noSize = "must be a size above zero";
  const noRule = "must be user@domain, @domain or @*.domain";
  it.each<[format.Format<unknown>, ConfigScalar, string]>([
    [format.duration, 30, noDuration],
    [format.duration, "30", noDuration],
    [format.duration, "0s", noDuration],
    [format.duration, "-5m", noDuration],
    [format.duration, "1.5h", noDuration],
    [format.duration, "5 m", noDuration],
    [format.duration, "5M", noDuration],
    [format.duration, "5ms", noDuration],
    [format.duration, "1h30m", noDuration],
    [format.duration, "", noDuration],
    [format.duration, null, "it is empty"],
    [format.duration, true, noDuration],
    [format.duration, "21d", "must be at most 20d"],
    [format.duration, "999999999d", "must be at most 20d"],
    [format.period, "3651d", "must be at most 3650d"],
    [format.period, 14, noDuration],
    [format.size, 0, noSize],
    [format.size, -1, noSize],
    [format.size, 1.5, noSize],
    [format.size, Number.NaN, noSize],
    [format.size, Number.POSITIVE_INFINITY, noSize],
    [format.size, 1e21, noSize],
    [format.size, true, noSize],
    [format.size, null, noSize],
    [format.size, "10MB", noSize],
    [format.size, "10M", noSize],
    [format.size, "10 MiB", noSize],
    [format.size, "1.5GiB", noSize],
    [format.size, "0x10", noSize],
    [format.size, "999999999999999TiB", "is larger than any disk"],
    [format.flag, "true", "must be true or false, without quotes"],
    [format.flag, "yes", "must be true or false, without quotes"],
    [format.flag, 1, "must be true or false, without quotes"],
    [format.flag, null, "must be true or false, without quotes"],
    [format.count, 0, "must be a whole number from 1"],
    [format.count, "5", "without quotes"],
    [format.count, 1.5, "must be a whole number"],
    [format.count, 1_000_001, "to 1000000"],
    [format.port, 0, "must be a whole number from 1 to 65535; it is 0"],
    [format.port, 65_536, "must be a whole number from 1 to 65535"],
    [format.listenPort, -1, "must be a whole number from 0 to 65535"],
    [format.oneOf("enforce", "observe"), "Enforce", 'must be enforce or observe; it is "Enforce"'],
    [format.oneOf("enforce", "observe"), null, "it is empty"],
    [format.oneOf("a", "b", "c"), "constructor", "must be a, b or c"],
    [format.domainName, "192.0.2.1", "must be a domain name"],
    [format.domainName, "*.corp.example", "must be a domain name"],
    [format.domainName, "@corp.example", "must be a domain name"],
    [format.domainName, "corp..example", "must be a domain name"],
    [format.domainName, "mail_1.corp.example", "must be a domain name"],
    [format.domainName, 5, 'must be text: put it in quotes, as "5"'],
    [format.ipLiteral, "localhost", "must be an IP literal"],
    [format.ipLiteral, "010.0.0.1", "must be an IP literal"],
    [format.ipLiteral, "127.1", "must be an IP literal"],
    [format.ipLiteral, "*", "must be an IP literal"],
    [format.ipLiteral, "10.0.0.0/8", "must be an IP literal"],
    [format.ipLiteral, "[::1]", "must be an IP literal"],
    [format.hopAddress, "mail1.corp.example", "no DNS is asked, put the name under `name`"],
    [format.hopAddress, "0.0.0.0", "is an address to listen on"],
    [format.hopAddress, "::", "is an address to listen on"],
    [format.hopAddress, 10, "must be an IP literal"],
    [format.addressRange, "10.0.0.1/8", "(has host bits set: the network is 10.0.0.0/8)"],
    [format.addressRange, "10.0.0.0/33", "(prefix length above 32)"],
    [format.addressRange, "mx.acme.example", "must be an address, a network as 192.0.2.0/28, or any"],
    [format.addressRange, "*", "must be an address"],
    [format.addressRange, 10.1, 'put it in quotes, as "10.1"'],
    [format.path, "", "must be the path"],
    [format.path, "~/certs/server.pem", "~ has no meaning here"],
    [format.path, "a\u0000b", "without control characters"],
    [format.consoleAddress, "0.0.0.0:8025", "must be a loopback address and a port"],
    [format.consoleAddress, "192.0.2.1:80", "must be a loopback address and a port"],
    [format.consoleAddress, "localhost:8025", "must be a loopback address and a port"],
    [format.consoleAddress, "127.0.0.1", "must be a loopback address and a port"],
    [format.consoleAddress, "127.0.0.1:65536", "must be a loopback address and a port"],
    [format.consoleAddress, 8025, "must be text"],
    [format.digest, "sha256/BASE64", "must be sha256/ and 44 characters of base64"],
    [format.digest, `sha1/${digests[0].slice(7)}`, "must be sha256/"],
    [format.digest, digests[0].slice(0, -1), "must be sha256/"],
    [format.digest, `${hex}00`, "must be sha256/"],
    [format.digest, "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "is the digest of no input"],
    [format.digest, null, "must be text; it is empty"],
    [format.endDate, "2027-02-30", "must be a date"],
    [format.endDate, "2027-13-01", "must be a date"],
    [format.endDate, "2027-02-29", "must be a date"],
    [format.endDate, "31.1.2027", "must be a date"],
    [format.endDate, "2027-01-31T12:00:00+02:00", "must be a date"],
    [format.endDate, "2027-01-31T25:00:00Z", "must be a date"],
    [format.endDate, 2027, "must be a date"],
    [format.text, 2026, 'must be text: put it in quotes, as "2026"'],
    [format.text, true, "must be text; it is true"],
    [format.text, "a\nb", "must be one line"],
    [format.text, "\u001b[31mred", "without control characters"],
    [format.text, "\ud800", "without control characters"],
    [format.text, "x".repeat(1001), "must be at most 1000 characters"],
    [format.forwardPathRule, "orders", noRule],
    [format.forwardPathRule, "postmaster", noRule],
    [format.forwardPathRule, "*", noRule],
    [format.forwardPathRule, "@*", noRule],
    [format.forwardPathRule, "@", noRule],
    [format.forwardPathRule, "@*.", noRule],
    [format.forwardPathRule, "@*corp.example", noRule],
    [format.forwardPathRule, "*@corp.example", "every address of a domain is @domain"],
    [format.forwardPathRule, "a@b@corp.example", "this is no mailbox"],
    [format.forwardPathRule, "a@[192.0.2.1]", "mail goes by domain here"],
    [format.forwardPathRule, "a%b@corp.example", "is always refused, so the rule could never match"],
    [format.forwardPathRule, `${"a".repeat(65)}@corp.example`, "this is too long for SMTP"],
    [format.reversePathRule, "", noRule],
    [format.reversePathRule, "<>", noRule],
    [format.reversePathRule, "a@corp_1.example", "its domain is no domain name"],
    [format.reversePathRule, 5, 'put it in quotes, as "5"'],
  ])("$name: %j", (of, written, expected) => {
    const refused = of.parse(written);
    expect(refused).toBeInstanceOf(format.Refused);
    expect(refused instanceof format.Refused && refused.message).toContain(expected);
  });

  it("cuts long values in messages, and shows what cannot be seen", () => {
    const refused = format.flag.parse(`\u202e${"x".repeat(500)}`);
    expect(refused instanceof format.Refused && refused.message).toMatch(/^.{1,160}$/);
    expect(refused instanceof format.Refused && refused.message).toContain("\\u{202e}");
  });
});
