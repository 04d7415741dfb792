/** The encoding itself: what DER asks for beyond what certificates already show. */
import { array, assert, constant, oneof, property, uint8Array } from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DerError,
  encode,
  integer,
  integerOctets,
  objectIdentifier,
  octetString,
  oidText,
  parseDer,
  sequence,
  sequenceItems,
  stringText,
  utf8String,
} from "../../src/certs/der.ts";
import { decodePem, encodePem } from "../../src/certs/pem.ts";

const hex = (text: string): Buffer => Buffer.from(text, "hex");

describe("an INTEGER", () => {
  it.each([
    { bytes: "", der: "020100" },
    { bytes: "00", der: "020100" },
    { bytes: "7f", der: "02017f" },
    { bytes: "80", der: "02020080" },
    { bytes: "0000ff", der: "020200ff" },
    { bytes: "0102", der: "02020102" },
  ])("of octets '$bytes' is the shortest positive one", ({ bytes, der }) => {
    expect(encode(integer(hex(bytes))).toString("hex")).toBe(der);
  });
});

describe("parsing", () => {
  it.each([
    { what: "nothing", der: "" },
    { what: "a tag alone", der: "30" },
    { what: "a length beyond the end", der: "300502" },
    { what: "a padded INTEGER", der: "0202007f" },
    { what: "a padded length", der: "04810100" },
    { what: "an indefinite length", der: "30800201000000" },
    { what: "something behind the end", der: "05000500" },
    { what: "a length of more octets than there are", der: "3089ffffffffffffffffff" },
    { what: "BMPString of an odd length", der: "1e03414243" },
  ])("refuses $what", ({ der }) => {
    expect(() => parseDer(hex(der))).toThrow(DerError);
  });

  it("refuses what is nested without end, and does not run out of stack", () => {
    const deep = Array.from({ length: 20_000 }).reduce<Buffer>((inner) => wrap(inner), Buffer.alloc(0));
    expect(() => parseDer(deep)).toThrow(DerError);
  });

  it("gives back what was encoded, bit for bit", () => {
    const leaf = oneof(
      uint8Array({ maxLength: 300 }).map((bytes) => octetString(bytes)),
      uint8Array({ maxLength: 20 }).map((bytes) => integer(bytes)),
      constant(utf8String("Bücher")),
      constant(objectIdentifier("2.5.29.17")),
    );
    assert(
      property(array(array(leaf, { maxLength: 5 }), { maxLength: 5 }), (lists) => {
        const der = encode(sequence(...lists.map((items) => sequence(...items))));
        expect(encode(parseDer(der))).toEqual(der);
      }),
    );
  });

  it("tells strings of every kind that names are written in", () => {
    expect(stringText(parseDer(hex("0c0342c3bc")))).toBe("Bü");
    expect(stringText(parseDer(hex("13024142")))).toBe("AB");
    expect(stringText(parseDer(hex("1e0400420064")))).toBe("Bd");
    expect(() => stringText(parseDer(hex("0c01ff")))).toThrow("not UTF-8");
    expect(() => stringText(parseDer(hex("040141")))).toThrow(DerError);
  });

  it("does not take one type for another", () => {
    expect(() => integerOctets(parseDer(hex("040101")))).toThrow("INTEGER expected");
    expect(() => sequenceItems(parseDer(hex("3100")))).toThrow("SEQUENCE expected");
    expect(() => oidText(parseDer(hex("0600")))).toThrow("cut short");
    expect(() => sequenceItems(undefined)).toThrow(DerError);
  });
});

describe("PEM", () => {
  it("decodes to what was encoded, whatever it is", () => {
    assert(
      property(uint8Array({ minLength: 1, maxLength: 500 }), (der) => {
        const text = encodePem("CERTIFICATE", der);
        expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(64);
        expect(decodePem(text)).toEqual([{ label: "CERTIFICATE", der: Buffer.from(der), line: 1 }]);
      }),
    );
  });

  it("of very many blocks is read in time that grows with their number only", () => {
    const text = "-----BEGIN X-----\nAAAA\n-----END X-----\n".repeat(100_000);
    expect(decodePem(text)).toHaveLength(100_000); // with the square of it, the test would run out of time
  });
});

function wrap(inner: Buffer): Buffer {
  const length =
    inner.length < 0x80
      ? Buffer.of(inner.length)
      : Buffer.from([0x83, inner.length >> 16, (inner.length >> 8) & 0xff, inner.length & 0xff]);
  return Buffer.concat([Buffer.of(0x30), length, inner]);
}
