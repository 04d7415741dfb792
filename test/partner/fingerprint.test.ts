/** Fingerprints: each form that is read out is read back as the same digest, and what was misheard is noticed. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fingerprintForms, parseFingerprint } from "../../src/partner/fingerprint.ts";
import { digestHex, digestOf, type Digest } from "../../src/partner/pin.ts";

/** SHA-256 of nothing. */
const digest = digestOf(new Uint8Array());
const hex = "E3B0 C442 98FC 1C14 9AFB F4C8 996F B924 27AE 41E4 649B 934C A495 991B 7852 B855";
const { words } = fingerprintForms(digest);
const list = words.split(" ");
const ok = { kind: "ok", digest };

function faultOf(text: string): string {
  const parsed = parseFingerprint(text);
  return parsed.kind === "fault" ? parsed.fault : `read as ${parsed.digest}`;
}

describe("fingerprintForms", () => {
  it("gives base64, groups of digits and words", () => {
    expect(fingerprintForms(digest)).toEqual({
      base64: "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
      hexGroups: hex,
      words,
    });
    expect(list).toHaveLength(24);
  });

  it("gives the words of BIP 39", () => {
    // Test vectors of BIP 39: 32 octets each.
    const wordsOf = (octet: number): string =>
      fingerprintForms(`sha256/${Buffer.alloc(32, octet).toString("base64")}`).words;
    expect(wordsOf(0x00)).toBe(`${"abandon ".repeat(23)}art`);
    expect(wordsOf(0xff)).toBe(`${"zoo ".repeat(23)}vote`);
  });
});

describe("parseFingerprint", () => {
  it.each<[string, string]>([
    ["base64 as in the file", digest],
    ["base64 alone", digest.slice("sha256/".length)],
    ["base64 in two lines", `${digest.slice(0, 30)}\n  ${digest.slice(30)}\n`],
    ["groups", hex],
    ["groups in lines", hex.replaceAll(/((?:\S{4} ){4})/g, "$1\n")],
    ["groups with other marks", hex.toLowerCase().replaceAll(" ", " - ")],
    ["digits with colons", digestHex(digest)],
    ["a line of openssl", `sha256 Fingerprint=${digestHex(digest)}`],
    ["words", words],
    ["words in capitals", words.toUpperCase()],
    ["words with commas", list.join(", ")],
    ["words in lines", list.join("\r\n")],
    ["numbered words", list.map((word, index) => `${index + 1}. ${word}`).join("\n")],
    ["numbered words in columns", list.map((word, index) => `${String(index + 1).padStart(2)} ${word}`).join("  ")],
    ["words cut after four letters", list.map((word) => word.slice(0, 4)).join(" ")],
    ["words cut later", list.map((word) => word.slice(0, 5)).join(" ")],
  ])("reads %s", (_name, text) => {
    expect(parseFingerprint(text)).toEqual(ok);
  });

  it("reads back every form of every digest", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.constantFrom(4, 5, 9), (bytes, cut) => {
        const any: Digest = `sha256/${Buffer.from(bytes).toString("base64")}`;
        const forms = fingerprintForms(any);
        const short = forms.words.split(" ").map((word) => word.slice(0, cut));
        for (const text of [forms.base64, forms.hexGroups, forms.words, short.join(",")]) {
          expect(parseFingerprint(text)).toEqual({ kind: "ok", digest: any });
        }
      }),
    );
  });

  it("notices most words that were misheard, and never takes one for the same digest", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.nat({ max: 23 }),
        fc.nat({ max: 23 }),
        (bytes, from, to) => {
          const any: Digest = `sha256/${Buffer.from(bytes).toString("base64")}`;
          const heard = fingerprintForms(any).words.split(" ");
          const [a, b] = [heard[from] ?? "", heard[to] ?? ""];
          fc.pre(a !== b);
          expect(parseFingerprint(heard.with(from, b).with(to, a).join(" "))).not.toEqual({ kind: "ok", digest: any });
        },
      ),
    );
    // Of 2047 other words in one place, one in 256 fits by chance.
    const others = ["zoo", "abandon", "ability", "able", "about", "above", "absent", "absorb"];
    const noticed = others.filter((word) => parseFingerprint(list.with(3, word).join(" ")).kind === "fault");
    expect(noticed.length).toBeGreaterThanOrEqual(7);
  });

  it.each<[string, string, string]>([
    ["a misheard word", list.with(0, "zoo").join(" "), "the words do not fit together: one was misheard"],
    [
      "two words in each other's place",
      list
        .with(0, list[1] ?? "")
        .with(1, list[0] ?? "")
        .join(" "),
      "do not fit together",
    ],
    ["a word too few", list.slice(1).join(" "), "these are 23 words, and a fingerprint has 24"],
    ["a word too many", [...list, "zoo"].join(" "), "these are 25 words"],
    ["a mistyped word", list.with(2, "abandom").join(" "), "word 3, 'abandom', is not in the list: abandon?"],
    ["a word that may be several", list.with(23, "wite").join(" "), "word 24, 'wite', is not in the list: "],
    ["a word that is like none", list.with(2, "pinrelay").join(" "), "word 3, 'pinrelay', is not in the list"],
    ["a word cut after three letters", list.with(2, "aba").join(" "), "word 3, 'aba', is not in the list"],
    ["a word with foreign letters", list.with(2, "\u001b[2J").join(" "), "word 3 is not in the list"],
    [
      "a word with an accent",
      list.with(2, "abandôn").join(" "),
      "word 3 is not in the list: words have English letters",
    ],
    ["a digit too few", hex.slice(1), "a fingerprint has 64 hexadecimal digits, and these are 63"],
    ["SHA-1", hex.slice(0, 49), "these are 40"],
    ["base64 that is cut", digest.slice(0, -2), "44 characters of base64, and these are 42"],
    ["base64 with a character that cannot be", digest.replace("FU=", "FV="), "one character is wrong"],
    ["nothing", "", "this is no fingerprint"],
    ["a path", "certs/acme.pem", "this is no fingerprint"],
    ["a sentence", "yes I am sure", "this is no fingerprint"],
    ["a certificate", `-----BEGIN CERTIFICATE-----\n${"MIIB".repeat(300)}`, "this is too long for a fingerprint"],
  ])("refuses %s", (_name, text, expected) => {
    expect(faultOf(text)).toContain(expected);
  });

  it("never fails otherwise, and its faults are one clean line", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: "binary" }),
          fc.array(fc.constantFrom(...list, "zzz", "7.", "\n")).map((all) => all.join(" ")),
        ),
        (text) => {
          expect(faultOf(text)).not.toMatch(/[\p{Cc}\p{Cf}]/u);
        },
      ),
    );
  });
});
