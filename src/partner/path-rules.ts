/**
 * What a certificate says about the paths it may stand in (RFC 5280 §4.2 and §6.1) and node:crypto does not tell: names
 * as bytes, how its signature was made, path length, name constraints, what its key may sign, and critical extensions
 * that nobody here understands.
 *
 * Promises: bytes that a peer chose are read within their bounds and in one pass; what is no DER gives undefined, and
 * whoever asks must then refuse. Pure; a certificate is read once.
 */
import type { X509Certificate } from "node:crypto";

export interface PathRules {
  /** The names in DER: equal bytes are equal names. */
  readonly subject: Buffer;
  readonly issuer: Buffer;
  /** Was it signed over a hash of the SHA-2 or SHA-3 family, or by a scheme that brings its own? */
  readonly isSignedStrongly: boolean;
  /** How many intermediates may stand between this CA and the leaf; undefined: any number. */
  readonly pathLengthMax: number | undefined;
  /** May its key sign revocation lists? Without the extension it may. */
  readonly maySignLists: boolean;
  /** Of the subjectAltName, in lower case. */
  readonly dnsNames: readonly string[];
  /** DNS subtrees: undefined permits every name. */
  readonly permittedNames: readonly string[] | undefined;
  readonly excludedNames: readonly string[];
  /** Critical extensions that are not understood here: hexadecimal OIDs. */
  readonly foreignCritical: readonly string[];
}

const known = new WeakMap<X509Certificate, PathRules | "unreadable">();

/** The rules of a certificate; undefined where they cannot be read. */
export function pathRules(certificate: X509Certificate): PathRules | undefined {
  const rules = known.get(certificate) ?? readRules(certificate.raw) ?? "unreadable";
  known.set(certificate, rules);
  return rules === "unreadable" ? undefined : rules;
}

/** May a CA with these rules vouch for the DNS name (RFC 5280 §4.2.1.10)? */
export function mayVouchFor(rules: PathRules, name: string): boolean {
  const within = (subtree: string): boolean => isWithin(name, subtree);
  return (rules.permittedNames === undefined || rules.permittedNames.some(within)) && !rules.excludedNames.some(within);
}

/** A subtree holds its own name and all below it; with a leading dot, as many write it, those below it only. */
function isWithin(name: string, subtree: string): boolean {
  const lower = subtree.toLowerCase();
  if (lower === "") return true;
  return lower.startsWith(".") ? name.endsWith(lower) : name === lower || name.endsWith(`.${lower}`);
}

interface Tlv {
  readonly tag: number;
  readonly content: Buffer;
  readonly whole: Buffer;
}

class Malformed extends Error {
  override readonly name = "Malformed";
}

const tags = { boolean: 0x01, integer: 0x02, bitString: 0x03, oid: 0x06, sequence: 0x30, extensions: 0xa3 } as const;

// The object identifiers as they stand in DER.
const basicConstraints = "551d13";
const keyUsage = "551d0f";
const nameConstraints = "551d1e";
const subjectAltName = "551d11";
/** Those that are looked at, here or by node:crypto, and those of policies, which nobody is asked for here. */
const understood = new Set([
  basicConstraints,
  keyUsage,
  nameConstraints,
  subjectAltName,
  "551d25", // extKeyUsage
  "551d20", // certificatePolicies
  "551d21", // policyMappings
  "551d24", // policyConstraints
  "551d36", // inhibitAnyPolicy
]);

function readRules(der: Buffer): PathRules | undefined {
  try {
    const [certificate] = items(der);
    const [signed, algorithm] = items(contentOf(certificate, tags.sequence));
    const parts = items(contentOf(signed, tags.sequence));
    const first = parts[0]?.tag === 0xa0 ? 1 : 0; // the version, absent in v1
    const [issuer, subject] = [parts[first + 2], parts[first + 4]];
    if (issuer === undefined || subject === undefined) throw new Malformed();
    const extensions = readExtensions(parts.find(({ tag }) => tag === tags.extensions));
    const value = (oid: string): Buffer | undefined => extensions.find((extension) => extension.oid === oid)?.value;
    return {
      subject: subject.whole,
      issuer: issuer.whole,
      isSignedStrongly: isStrong(algorithm),
      pathLengthMax: readPathLength(value(basicConstraints)),
      maySignLists: readMaySignLists(value(keyUsage)),
      dnsNames: readDnsNames(value(subjectAltName)),
      ...readNameConstraints(value(nameConstraints)),
      foreignCritical: extensions.filter(({ oid, critical }) => critical && !understood.has(oid)).map(({ oid }) => oid),
    };
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Buffer;
}

function readExtensions(wrapped: Tlv | undefined): Extension[] {
  if (wrapped === undefined) return [];
  const [list] = items(wrapped.content);
  const extensions = items(contentOf(list, tags.sequence)).map((extension) => {
    const [oid, ...rest] = items(contentOf(extension, tags.sequence));
    const value = rest.at(-1);
    if (value === undefined) throw new Malformed();
    const critical = rest.length === 2 && rest[0]?.tag === tags.boolean && rest[0].content[0] !== 0;
    return { oid: contentOf(oid, tags.oid).toString("hex"), critical, value: value.content };
  });
  // RFC 5280 §4.2: none twice; which of two would count is not for a peer to choose.
  if (new Set(extensions.map(({ oid }) => oid)).size < extensions.length) throw new Malformed();
  return extensions;
}

function readPathLength(value: Buffer | undefined): number | undefined {
  if (value === undefined) return undefined;
  const [constraints] = items(value);
  const length = items(contentOf(constraints, tags.sequence)).find(({ tag }) => tag === tags.integer)?.content;
  if (length === undefined) return undefined;
  if (length.length === 0 || (length[0] ?? 0) >= 0x80) throw new Malformed();
  return length.length > 4 ? Number.MAX_SAFE_INTEGER : length.readUIntBE(0, length.length);
}

/** cRLSign is bit 6 (RFC 5280 §4.2.1.3), counted from the top of the first octet. */
function readMaySignLists(value: Buffer | undefined): boolean {
  if (value === undefined) return true;
  const [usage] = items(value);
  return ((contentOf(usage, tags.bitString)[1] ?? 0) & 0x02) !== 0;
}

function readNameConstraints(value: Buffer | undefined): Pick<PathRules, "permittedNames" | "excludedNames"> {
  const [constraints] = value === undefined ? [] : items(value);
  const subtrees = constraints === undefined ? [] : items(contentOf(constraints, tags.sequence));
  const permitted = dnsNames(subtrees.find(({ tag }) => tag === 0xa0));
  return {
    // Where only names of other kinds are limited, DNS names are free.
    permittedNames: permitted.length === 0 ? undefined : permitted,
    excludedNames: dnsNames(subtrees.find(({ tag }) => tag === 0xa1)),
  };
}

function readDnsNames(value: Buffer | undefined): string[] {
  const [names] = value === undefined ? [] : items(value);
  if (names === undefined) return [];
  return items(contentOf(names, tags.sequence)).flatMap(({ tag, content }) =>
    tag === 0x82 ? content.toString("latin1").toLowerCase() : [],
  );
}

function dnsNames(subtrees: Tlv | undefined): string[] {
  return (subtrees === undefined ? [] : items(subtrees.content)).flatMap((subtree) => {
    const [base] = items(contentOf(subtree, tags.sequence));
    return base?.tag === 0x82 ? base.content.toString("latin1") : [];
  });
}

/** MD2, MD5 and SHA-1 with RSA, DSA and ECDSA. */
const weakSignatures = new Set([
  "2a864886f70d010102",
  "2a864886f70d010104",
  "2a864886f70d010105",
  "2b0e03021d",
  "2a8648ce380403",
  "2a8648ce3d0401",
]);
const rsassaPss = "2a864886f70d01010a";

function isStrong(algorithm: Tlv | undefined): boolean {
  const [oid, parameters] = items(contentOf(algorithm, tags.sequence));
  const name = contentOf(oid, tags.oid).toString("hex");
  if (name !== rsassaPss) return !weakSignatures.has(name);
  // RFC 4055 §3.1: the hash stands first, and is SHA-1 where nothing stands.
  const hash = parameters === undefined ? undefined : items(parameters.content).find(({ tag }) => tag === 0xa0);
  return hash?.content.includes(Buffer.from("6086480165030402", "hex")) ?? false;
}

function contentOf(tlv: Tlv | undefined, tag: number): Buffer {
  if (tlv?.tag !== tag) throw new Malformed();
  return tlv.content;
}

/** The values that lie side by side in the bytes, which they must fill. Tags and lengths as certificates have them. */
function items(bytes: Buffer): Tlv[] {
  const found: Tlv[] = [];
  for (let at = 0; at < bytes.length;) {
    const tag = bytes[at] ?? 0;
    const lengthOctet = bytes[at + 1];
    if (lengthOctet === undefined || (tag & 0x1f) === 0x1f) throw new Malformed();
    const lengthOctets = lengthOctet < 0x80 ? 0 : lengthOctet & 0x7f;
    const begin = at + 2 + lengthOctets;
    if ((lengthOctet >= 0x80 && (lengthOctets < 1 || lengthOctets > 3)) || begin > bytes.length) throw new Malformed();
    const end = begin + (lengthOctets === 0 ? lengthOctet : bytes.readUIntBE(at + 2, lengthOctets));
    if (end > bytes.length) throw new Malformed();
    found.push({ tag, content: bytes.subarray(begin, end), whole: bytes.subarray(at, end) });
    at = end;
  }
  return found;
}
