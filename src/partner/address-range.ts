/**
 * IP addresses and ranges of them (`203.0.113.0/28`, `2001:db8::/64`, a single address, or `any`).
 * IPv4-mapped IPv6 addresses, which a dual-stack socket reports for IPv4 peers, are IPv4 addresses here. Pure.
 */
import { isIPv4, isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

/** `any`, or a network: the first `prefixBits` bits of `bytes` (4 or 16 of them; the bits behind are zero). */
export type AddressRange =
  | { readonly kind: "any"; readonly text: "any" }
  | { readonly kind: "network"; readonly text: string; readonly bytes: readonly number[]; readonly prefixBits: number };

/** Parses a range as an operator writes it, or says in a few words what is wrong with it. */
export function parseAddressRange(text: string): AddressRange | { readonly kind: "fault"; readonly fault: string } {
  if (text === "any") return { kind: "any", text };
  const [addressText = "", bitsText, ...rest] = text.split("/");
  const bytes = addressBytes(addressText);
  // An interface (`fe80::1%eth0`) is no part of an address of somebody else's network.
  if (bytes === undefined || rest.length > 0 || addressText.includes("%")) {
    return { kind: "fault", fault: "not an IP address, a network or 'any'" };
  }
  const bitsMax = bytes.length * 8;
  if (bitsMax === 32 && addressText.includes(":")) {
    return { kind: "fault", fault: `IPv4 in the form of IPv6: write ${bytesText(bytes)}` };
  }
  if (bitsText !== undefined && !/^(?:0|[1-9]\d{0,2})$/.test(bitsText)) {
    return { kind: "fault", fault: "bad prefix length" };
  }
  const prefixBits = bitsText === undefined ? bitsMax : Number(bitsText);
  if (prefixBits > bitsMax) return { kind: "fault", fault: `prefix length above ${bitsMax}` };
  const network = maskBytes(bytes, prefixBits);
  if (network.some((byte, index) => byte !== bytes[index])) {
    return { kind: "fault", fault: `has host bits set: the network is ${bytesText(network)}/${prefixBits}` };
  }
  return { kind: "network", text, bytes: network, prefixBits };
}

/** The bytes of an address, 4 for IPv4 and IPv4-mapped IPv6, 16 for IPv6; undefined if it is none. */
export function addressBytes(address: string): number[] | undefined {
  // The library also reads 0x7f.1, 010.0.0.1 and ::ffff:0x7f.0.0.1; an address shall have one meaning. It takes the
  // long deprecated ::192.0.2.1 (RFC 4291 §2.5.5.1) for 192.0.2.1, which it is not.
  if ((!isIPv4(address) && !isIPv6(address)) || /^::\d+\./.test(address)) return undefined;
  const plain = address.replace(/%.*$/, ""); // a link-local peer is reported with its interface
  return ipaddr.process(plain).toByteArray();
}

/** The first `prefixBits` bits of an address, the others zero. */
export function maskBytes(bytes: readonly number[], prefixBits: number): number[] {
  return bytes.map((byte, index) => {
    const bitsHere = Math.min(8, Math.max(0, prefixBits - index * 8));
    return byte & (0xff00 >> bitsHere) & 0xff;
  });
}

/** Does the range hold the address? */
export function rangeHolds(range: AddressRange, address: string): boolean {
  if (range.kind === "any") return true;
  const bytes = addressBytes(address);
  if (bytes === undefined || bytes.length !== range.bytes.length) return false;
  const network = maskBytes(bytes, range.prefixBits);
  return network.every((byte, index) => byte === range.bytes[index]);
}

function bytesText(bytes: readonly number[]): string {
  return ipaddr.fromByteArray([...bytes]).toString();
}
