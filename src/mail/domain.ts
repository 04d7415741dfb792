/**
 * Domain names in the one form in which they may be compared: lower-case A-labels without a trailing dot.
 *
 * Promises that two spellings of one domain (case, U-labels or A-labels, a trailing dot) have one canonical form, and
 * that what is not a domain name has none. Pure; it never looks anything up.
 */
import { toASCII } from "tr46";

/** A domain name as {@link canonicalDomain} returns it. */
export type CanonicalDomain = string;

const domainOctetsMax = 255; // RFC 5321 §4.5.3.1.2
const plainLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const asciiOnly = /^[\x21-\x7e]*$/;

/**
 * The canonical form of a domain name, or undefined for anything that is not one: address literals, empty labels,
 * labels over 63 octets, characters outside letters, digits and hyphen (RFC 5321 §2.3.5, RFC 5890 §2.3.2.1).
 */
export function canonicalDomain(written: string): CanonicalDomain | undefined {
  const name = written.endsWith(".") ? written.slice(0, -1) : written;
  if (name.length === 0 || name.length > domainOctetsMax) return undefined;
  const lower = asciiOnly.test(name) ? name.toLowerCase() : undefined;
  // Only what may hold internationalised labels pays for the full mapping of UTS #46.
  const ascii =
    lower !== undefined && !lower.includes("xn--")
      ? lower
      : toASCII(name, {
          checkBidi: true,
          checkHyphens: false,
          checkJoiners: true,
          useSTD3ASCIIRules: true,
          verifyDNSLength: true,
        });
  if (ascii === null || ascii.length > domainOctetsMax) return undefined;
  const labels = ascii.split(".");
  if (!labels.every((label) => plainLabel.test(label))) return undefined;
  // A name whose last label is a number would be read as an address by half of the world's software (RFC 3696 §2).
  return /^\d+$/.test(labels.at(-1) ?? "") ? undefined : ascii;
}

/** Is `domain` below `parent`? A domain is not below itself. */
export function isSubdomain(domain: CanonicalDomain, parent: CanonicalDomain): boolean {
  return domain.length > parent.length + 1 && domain.endsWith(`.${parent}`);
}
