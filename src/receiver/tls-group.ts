/**
 * The key exchange of a TLS session, on the server's side: Node tells it to clients only. It stands in OpenSSL's own form
 * of the session, as the field `kex_group` (tag 19 of SSL_SESSION), which is all that is read of it: the secrets in the
 * session are wiped before they can lie around.
 *
 * Promises: never fails; undefined where the library's form is not the known one.
 */
import type { TLSSocket } from "node:tls";

/** The groups by their numbers (IANA, TLS Supported Groups): those that OpenSSL has. */
const groupNames: Readonly<Record<number, string>> = {
  0x0017: "secp256r1",
  0x0018: "secp384r1",
  0x0019: "secp521r1",
  0x001a: "brainpoolP256r1",
  0x001b: "brainpoolP384r1",
  0x001c: "brainpoolP512r1",
  0x001d: "x25519",
  0x001e: "x448",
  0x0100: "ffdhe2048",
  0x0101: "ffdhe3072",
  0x0102: "ffdhe4096",
  0x0200: "MLKEM512",
  0x0201: "MLKEM768",
  0x0202: "MLKEM1024",
  0x11eb: "SecP256r1MLKEM768",
  0x11ec: "X25519MLKEM768",
  0x11ed: "SecP384r1MLKEM1024",
};

/** The group's name, or its number as `0x11ec` where it has none here. */
export function keyExchangeGroup(socket: TLSSocket): string | undefined {
  const session = socket.getSession();
  if (session === undefined) return undefined;
  const group = groupNumber(session);
  session.fill(0);
  return group === undefined ? undefined : (groupNames[group] ?? `0x${group.toString(16).padStart(4, "0")}`);
}

const sequenceTag = 0x30;
const integerTag = 0x02;
/** `[19]`, constructed and context-specific: the INTEGER is within. */
const groupTag = 0xb3;

/** `kex_group` of a DER SSL_SESSION. */
export function groupNumber(session: Uint8Array): number | undefined {
  const [outer] = elements(session, 0);
  if (outer?.tag !== sequenceTag) return undefined;
  const field = elements(outer.content, 0).find(({ tag }) => tag === groupTag);
  const [value] = field === undefined ? [] : elements(field.content, 0);
  if (value?.tag !== integerTag || value.content.length === 0 || value.content.length > 4) return undefined;
  return value.content.reduce((number, octet) => number * 256 + octet, 0);
}

interface Element {
  readonly tag: number;
  readonly content: Uint8Array;
}

/** The elements from an offset on, as far as they are whole; tags and lengths as SSL_SESSION has them: DER, small tags. */
function elements(der: Uint8Array, from: number): Element[] {
  const found: Element[] = [];
  let offset = from;
  while (offset + 2 <= der.length) {
    const tag = der[offset] ?? 0;
    const first = der[offset + 1] ?? 0;
    const lengthOctets = first < 0x80 ? 0 : first - 0x80;
    if (lengthOctets > 3) break;
    const begin = offset + 2 + lengthOctets;
    const length =
      lengthOctets === 0 ? first : der.subarray(offset + 2, begin).reduce((number, octet) => number * 256 + octet, 0);
    if (begin + length > der.length) break;
    found.push({ tag, content: der.subarray(begin, begin + length) });
    offset = begin + length;
  }
  return found;
}
