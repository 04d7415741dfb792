/** Address ranges: one meaning for each spelling, and nothing is read generously. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addressBytes, maskBytes, parseAddressRange, rangeHolds } from "../../src/partner/address-range.ts";

function holds(rangeText: string, address: string): boolean {
  const range = parseAddressRange(rangeText);
  if (range.kind === "fault") throw new Error(range.fault);
  return rangeHolds(range, address);
}

describe("a range holds an address", () => {
  test.each([
    ["203.0.113.5", "203.0.113.5"],
    ["203.0.113.5", "::ffff:203.0.113.5"], // as a dual-stack socket reports it
    ["203.0.113.5", "::ffff:cb00:7105"],
    ["203.0.113.0/28", "203.0.113.0"],
    ["203.0.113.0/28", "203.0.113.15"],
    ["203.0.112.0/23", "203.0.113.255"],
    ["0.0.0.0/0", "255.255.255.255"],
    ["2001:db8:1::/64", "2001:DB8:1:0:ffff::1"],
    ["2001:db8::/33", "2001:db8:7fff::1"],
    ["2001:db8::1", "2001:0db8:0:0:0:0:0:1"],
    ["fe80::/10", "fe80::1%eth0"], // as the socket reports a link-local peer
    ["::/0", "2001:db8::1"],
    ["any", "203.0.113.5"],
    ["any", "2001:db8::1"],
  ])("%s: %s", (range, address) => {
    expect(holds(range, address)).toBe(true);
  });
});

describe("a range does not hold an address", () => {
  test.each([
    ["203.0.113.5", "203.0.113.6"],
    ["203.0.113.0/28", "203.0.113.16"],
    ["203.0.113.0/28", "203.0.112.255"],
    ["0.0.0.0/0", "2001:db8::1"], // every IPv4 address is no IPv6 address
    ["::/0", "203.0.113.5"],
    ["::/0", "::ffff:203.0.113.5"],
    ["203.0.113.5", "::203.0.113.5"], // deprecated, and another address
    ["2001:db8:1::/64", "2001:db8:1:1::1"],
    ["203.0.113.0/28", "203.0.113.5 "],
    ["203.0.113.0/28", "203.0.113.5.example"],
    ["203.0.113.0/28", ""],
    ["203.0.113.0/28", "undefined"],
  ])("%s: %j", (range, address) => {
    expect(holds(range, address)).toBe(false);
  });
});

describe("refuses what is no range", () => {
  test.each([
    ["", "not an IP address"],
    ["Any", "not an IP address"],
    ["any/0", "not an IP address"],
    ["*", "not an IP address"],
    ["mx.acme.example", "not an IP address"],
    [" 203.0.113.5", "not an IP address"],
    ["203.0.113.5\n", "not an IP address"],
    ["203.0.113", "not an IP address"],
    ["203.0.113.256", "not an IP address"],
    ["203.0.113.05", "not an IP address"], // octal to some
    ["0xcb.0.113.5", "not an IP address"],
    ["3405803781", "not an IP address"],
    ["::ffff:0xcb.0.113.5", "not an IP address"],
    ["::ffff:203.0.113.05", "not an IP address"],
    ["203.0.113.0/28/1", "not an IP address"],
    ["203.0.113.5%eth0", "not an IP address"],
    ["203.0.113.0%junk/28", "not an IP address"],
    ["fe80::%eth0/10", "not an IP address"],
    ["[2001:db8::1]", "not an IP address"],
    ["2001:db8::1::", "not an IP address"],
    ["203.0.113.0/", "bad prefix length"],
    ["203.0.113.0/x", "bad prefix length"],
    ["203.0.113.0/-1", "bad prefix length"],
    ["203.0.113.0/08", "bad prefix length"],
    ["203.0.113.0/255.255.255.0", "bad prefix length"],
    ["203.0.113.0/33", "prefix length above 32"],
    ["2001:db8::/129", "prefix length above 128"],
    ["203.0.113.5/28", "has host bits set: the network is 203.0.113.0/28"],
    ["2001:db8::1/64", "has host bits set: the network is 2001:db8::/64"],
    ["::ffff:203.0.113.0/124", "write 203.0.113.0"],
    ["::ffff:0:0/96", "write 0.0.0.0"],
  ])("%j: %s", (text, fault) => {
    expect(parseAddressRange(text)).toMatchObject({ kind: "fault", fault: expect.stringContaining(fault) });
  });
});

test("a network holds exactly the addresses that share its first bits", () => {
  const octets = fc.array(fc.nat(255), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(octets, octets, fc.nat(32), (one, other, bits) => {
      const network = maskBytes(one, bits);
      const isSame = maskBytes(other, bits).join(".") === network.join(".");
      expect(holds(`${network.join(".")}/${bits}`, other.join("."))).toBe(isSame);
      expect(holds(`${network.join(".")}/${bits}`, one.join("."))).toBe(true);
    }),
  );
});

test("an IPv4 address has the same bytes in its IPv6 form", () => {
  fc.assert(
    fc.property(fc.ipV4(), (address) => {
      expect(addressBytes(`::ffff:${address}`)).toEqual(addressBytes(address));
      expect(addressBytes(address)).toHaveLength(4);
    }),
  );
});

test("an IPv6 address has the same bytes in any case of letters", () => {
  fc.assert(
    fc.property(fc.ipV6(), (address) => {
      expect(addressBytes(address.toUpperCase())).toEqual(addressBytes(address.toLowerCase()));
    }),
  );
});
