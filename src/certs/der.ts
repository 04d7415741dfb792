/**
 * ASN.1 in its distinguished encoding (DER, X.690 §8 and §10): what builds certificates, and what takes signing requests,
 * revocation lists and our own certificates apart. The one importer of node-forge, of which it uses the `asn1` module alone.
 *
 * Promises: {@link encode} gives DER; {@link parseDer} takes DER only (no indefinite or padded lengths, nothing behind
 * the end), so that encoding a parsed part again gives exactly the bytes it was made of, and a signature over them can
 * be checked. Readers fail with {@link DerError}. Never given bytes that a peer sent over the network.
 */
import { isUtf8 } from "node:buffer";
import forge from "node-forge";

const { asn1 } = forge;
const { Class, Type } = asn1;

/** One tag-length-value; made and read by the functions of this file only. */
export type DerNode = forge.asn1.Asn1;

/** Bytes that are not DER, or not the structure that was looked for. */
export class DerError extends Error {
  override readonly name = "DerError";
}

// Building

export function sequence(...items: ReadonlyArray<DerNode | undefined>): DerNode {
  return asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, present(items));
}

export function set(...items: readonly DerNode[]): DerNode {
  return asn1.create(Class.UNIVERSAL, Type.SET, true, [...items]);
}

/** A non-negative INTEGER out of big-endian bytes: shortest form, with the zero octet that keeps it positive. */
export function integer(bytes: Uint8Array): DerNode {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? [0] : [...bytes.subarray(first)];
  const positive = (digits[0] ?? 0) >= 0x80 ? [0, ...digits] : digits;
  return primitive(Type.INTEGER, Uint8Array.from(positive));
}

/** An ENUMERATED out of its content octets. */
export function enumerated(bytes: Uint8Array): DerNode {
  return primitive(Type.ENUMERATED, bytes);
}

export function booleanTrue(): DerNode {
  return primitive(Type.BOOLEAN, Uint8Array.of(0xff));
}

export function nullValue(): DerNode {
  return primitive(Type.NULL, new Uint8Array());
}

/** @param dotted for instance "2.5.29.17" */
export function objectIdentifier(dotted: string): DerNode {
  return asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(dotted).getBytes());
}

/** @param unusedBits how many of the last octet's low bits do not count. */
export function bitString(bytes: Uint8Array, unusedBits = 0): DerNode {
  return primitive(Type.BITSTRING, Uint8Array.from([unusedBits, ...bytes]));
}

export function octetString(bytes: Uint8Array): DerNode {
  return primitive(Type.OCTETSTRING, bytes);
}

export function utf8String(text: string): DerNode {
  return primitive(Type.UTF8, Buffer.from(text, "utf8"));
}

/** A point in time, to the second: UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5). */
export function time(date: Date): DerNode {
  const year = date.getUTCFullYear();
  if (!(year >= 1950 && year <= 9999)) throw new RangeError("a certificate cannot carry this date");
  const digits = `${date.toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`;
  return year < 2050
    ? primitive(Type.UTCTIME, Buffer.from(digits.slice(2), "latin1"))
    : primitive(Type.GENERALIZEDTIME, Buffer.from(digits, "latin1"));
}

/** `[tag] IMPLICIT` of something primitive. */
export function contextPrimitive(tag: number, bytes: Uint8Array): DerNode {
  // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- any number is a tag, the library's type has universal ones
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, false, binary(bytes));
}

/** `[tag] EXPLICIT`, or `[tag] IMPLICIT` of something constructed. */
export function contextConstructed(tag: number, ...items: readonly DerNode[]): DerNode {
  // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- as above
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, true, [...items]);
}

export function encode(node: DerNode): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), "latin1");
}

// Reading

/** Parses exactly one DER value; whatever is longer, shorter or merely BER is refused. */
export function parseDer(bytes: Uint8Array): DerNode {
  let node: DerNode;
  try {
    node = asn1.fromDer(binary(bytes), true);
  } catch (cause) {
    throw new DerError("the bytes are not ASN.1 in DER", { cause });
  }
  // The library reads BER as well. What it would have written differently is not DER.
  if (!encode(node).equals(bytes)) throw new DerError("the bytes are ASN.1, but not in DER");
  return node;
}

/** The items of a SEQUENCE. */
export function sequenceItems(node: DerNode | undefined): DerNode[] {
  return constructedItems(node, Class.UNIVERSAL, Type.SEQUENCE, "SEQUENCE");
}

/** The items of a SET. */
export function setItems(node: DerNode | undefined): DerNode[] {
  return constructedItems(node, Class.UNIVERSAL, Type.SET, "SET");
}

/** The items within a constructed `[tag]`. */
export function contextItems(node: DerNode | undefined, tag: number): DerNode[] {
  return constructedItems(node, Class.CONTEXT_SPECIFIC, tag, `[${tag}]`);
}

/** The number of a context-specific tag; undefined for every other tag. */
export function contextTag(node: DerNode | undefined): number | undefined {
  return node !== undefined && node.tagClass === Class.CONTEXT_SPECIFIC ? node.type : undefined;
}

export function oidText(node: DerNode | undefined): string {
  const text: unknown = asn1.derToOid(binary(universalContent(node, Type.OID, "OBJECT IDENTIFIER")));
  if (typeof text !== "string") throw new DerError("an OBJECT IDENTIFIER is cut short");
  return text;
}

/** The octets of a BIT STRING that fills whole octets. */
export function bitStringOctets(node: DerNode | undefined): Buffer {
  const bytes = universalContent(node, Type.BITSTRING, "BIT STRING");
  if (bytes[0] !== 0) throw new DerError("a BIT STRING does not fill whole octets");
  return bytes.subarray(1);
}

export function octetStringOctets(node: DerNode | undefined): Buffer {
  return universalContent(node, Type.OCTETSTRING, "OCTET STRING");
}

/** The content octets of an INTEGER. */
export function integerOctets(node: DerNode | undefined): Buffer {
  return universalContent(node, Type.INTEGER, "INTEGER");
}

export function isInteger(node: DerNode | undefined): boolean {
  return node?.tagClass === Class.UNIVERSAL && node.type === Type.INTEGER;
}

/** Is it the BOOLEAN TRUE (X.690 §11.1: FF, and nothing else, in DER)? */
export function isTrue(node: DerNode | undefined): boolean {
  return universalContent(node, Type.BOOLEAN, "BOOLEAN")[0] !== 0;
}

/** The date of a UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 writes them; undefined for anything else. */
export function timeOf(node: DerNode): Date | undefined {
  const tag: number = node.type;
  if (node.tagClass !== Class.UNIVERSAL || node.constructed || (tag !== utcTimeTag && tag !== generalizedTimeTag)) {
    return undefined;
  }
  const text = contentOf(node).toString("latin1");
  const [, years = "", rest] = (tag === utcTimeTag ? /^(\d\d)(\d{10})Z$/ : /^(\d{4})(\d{10})Z$/).exec(text) ?? [];
  if (rest === undefined) throw new DerError("a time is not written as certificates write it");
  const year = tag === generalizedTimeTag ? years : `${Number(years) < 50 ? "20" : "19"}${years}`;
  const iso = `${year}-${rest.replace(/(..)(..)(..)(..)(..)/, "$1-$2T$3:$4:$5")}.000Z`;
  const date = new Date(iso);
  // `Date` takes the 30th of February for the second of March.
  if (Number.isNaN(date.getTime()) || date.toISOString() !== iso) throw new DerError("a time does not exist");
  return date;
}

export function isNull(node: DerNode): boolean {
  return node.tagClass === Class.UNIVERSAL && node.type === Type.NULL && contentOf(node).length === 0;
}

/** The text of any of the string types that names are written in. */
export function stringText(node: DerNode | undefined): string {
  if (node?.tagClass !== Class.UNIVERSAL || node.constructed) throw new DerError("a string was expected");
  const bytes = contentOf(node);
  const tag: number = node.type;
  switch (tag) {
    case utf8Tag:
      if (!isUtf8(bytes)) throw new DerError("a UTF8String is not UTF-8");
      return bytes.toString("utf8");
    case bmpStringTag:
      return Buffer.from(bytes).swap16().toString("utf16le");
    case printableStringTag:
    case teletexStringTag:
    case ia5StringTag:
      return bytes.toString("latin1");
    default:
      throw new DerError("a string is of a type that names are not written in");
  }
}

/** The octets behind tag and length. */
export function contentOf(node: DerNode): Buffer {
  const bytes = encode(node);
  const lengthOctet = bytes[1] ?? 0;
  return bytes.subarray(lengthOctet < 0x80 ? 2 : 2 + (lengthOctet & 0x7f));
}

// X.680 §8.6
const utcTimeTag = 23;
const generalizedTimeTag = 24;
const utf8Tag = 12;
const printableStringTag = 19;
const teletexStringTag = 20;
const ia5StringTag = 22;
const bmpStringTag = 30;

function primitive(type: forge.asn1.Type, bytes: Uint8Array): DerNode {
  return asn1.create(Class.UNIVERSAL, type, false, binary(bytes));
}

function universalContent(node: DerNode | undefined, type: forge.asn1.Type, what: string): Buffer {
  // A BIT STRING that happens to hold ASN.1 is "composed" to the library, not constructed.
  if (node?.tagClass !== Class.UNIVERSAL || node.type !== type || node.constructed) {
    throw new DerError(`${what} expected`);
  }
  return contentOf(node);
}

function constructedItems(
  node: DerNode | undefined,
  tagClass: forge.asn1.Class,
  type: number,
  what: string,
): DerNode[] {
  const tag: number | undefined = node?.type;
  if (node?.tagClass !== tagClass || tag !== type || !node.constructed || !Array.isArray(node.value)) {
    throw new DerError(`${what} expected`);
  }
  return node.value;
}

function present(items: ReadonlyArray<DerNode | undefined>): DerNode[] {
  return items.filter((item) => item !== undefined);
}

/** Bytes as the library holds them: one character an octet. */
function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
