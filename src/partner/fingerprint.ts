/**
 * Fingerprints as people pass them on: read out over the telephone, typed from paper, scanned. Three forms of one digest:
 * base64 as in the partner's file, hexadecimal digits in groups, and 24 words with a checksum (BIP 39, English), which
 * survive a bad line best. The one importer of `@scure/bip39`. Pure.
 *
 * Promises: what is read back is exactly one digest or a fault in one line that says what to look at; a word that was
 * misheard never yields another digest without being noticed, but for one time in 256.
 */
import { entropyToMnemonic, mnemonicToEntropy } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { digestHex, parseDigest, type Digest } from "./pin.ts";

export interface FingerprintForms {
  /** As it stands in the partner's file. */
  readonly base64: string;
  /** 16 groups of 4 upper-case hexadecimal digits, with a space between them. */
  readonly hexGroups: string;
  /** 24 words, with a space between them. */
  readonly words: string;
}

export type ParsedFingerprint =
  | { readonly kind: "ok"; readonly digest: Digest }
  /** In one line, for whoever typed it. */
  | { readonly kind: "fault"; readonly fault: string };

const wordCount = 24;
/** No two words of the list have their first four letters in common. */
const abbreviationLength = 4;
const suggestionsMax = 3;
/** Far more than the longest form needs. */
const charactersMax = 1000;

export function fingerprintForms(digest: Digest): FingerprintForms {
  const bytes = Buffer.from(digest.slice("sha256/".length), "base64");
  return {
    base64: digest,
    hexGroups: digestHex(digest)
      .replaceAll(":", "")
      .replaceAll(/(.{4})(?=.)/g, "$1 "),
    words: entropyToMnemonic(bytes, wordlist),
  };
}

/**
 * Reads a fingerprint in any of its forms: what {@link parseDigest} takes, hexadecimal digits or base64 in groups, and the
 * 24 words in any case, with commas, numbers ("1. word") and line ends between them, each word whole or cut after its
 * first four letters or later.
 */
export function parseFingerprint(text: string): ParsedFingerprint {
  if (text.length > charactersMax) return fault("this is too long for a fingerprint");
  const digest = parseDigest(text) ?? parseDigest(text.replaceAll(/[\s:.,;-]/g, ""));
  if (digest !== undefined) return { kind: "ok", digest };
  const words = text
    .toLowerCase()
    .split(/[\s,;"']+|\d+[.):]?/)
    .filter((word) => word !== "");
  const whole = words.map(wholeWord);
  // Digits with letters among them fall into pieces too, some of which may be words.
  const isWords = whole.filter((word) => word !== undefined).length * 2 >= Math.max(words.length, 2);
  return isWords ? parseWords(words, whole) : fault(digestFault(text.trim()));
}

/** The word of the list that is meant; undefined if there is none. */
function wholeWord(word: string): string | undefined {
  return wordlist.find((known) => known === word || (word.length >= abbreviationLength && known.startsWith(word)));
}

function parseWords(words: readonly string[], whole: ReadonlyArray<string | undefined>): ParsedFingerprint {
  const unknown = whole.indexOf(undefined);
  if (unknown >= 0) return fault(wordFault(unknown + 1, words[unknown] ?? ""));
  if (whole.length !== wordCount) return fault(`these are ${whole.length} words, and a fingerprint has ${wordCount}`);
  try {
    const bytes = mnemonicToEntropy(whole.join(" "), wordlist);
    return { kind: "ok", digest: `sha256/${Buffer.from(bytes).toString("base64")}` };
  } catch {
    return fault("the words do not fit together: one was misheard, or two have changed places");
  }
}

function wordFault(position: number, word: string): string {
  if (!/^[a-z]{1,20}$/.test(word)) return `word ${position} is not in the list: words have English letters only`;
  const near = nearWords(word);
  return `word ${position}, '${word}', is not in the list${near.length === 0 ? "" : `: ${near.join(" or ")}?`}`;
}

/** The words of the list that it may have been: those that are the least different, if they are like it at all. */
function nearWords(word: string): string[] {
  const distances = wordlist.map((known) => ({ known, distance: editDistance(word, known) }));
  const least = Math.min(...distances.map(({ distance }) => distance));
  if (least > 2 || least >= word.length - 1) return [];
  const near = distances.filter(({ distance }) => distance === least);
  return near.slice(0, suggestionsMax).map(({ known }) => known);
}

/** How many letters must be put in, taken out or replaced to make one of the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, letter] of Array.from(a).entries()) {
    const next = [i + 1];
    for (const [j, other] of Array.from(b).entries()) {
      const replaced = (row[j] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

function digestFault(text: string): string {
  const base64 = /^sha256\/\/?(.*)$/is.exec(text)?.[1];
  if (base64 !== undefined) {
    const { length } = base64.replaceAll(/\s/g, "");
    return length === 44
      ? "the base64 behind sha256/ is none of a digest: one character is wrong"
      : `behind sha256/ there must be 44 characters of base64, and these are ${length}`;
  }
  const digits = text.replaceAll(/[\s:.,;-]/g, "");
  if (/^[0-9a-f]{16,}$/i.test(digits)) {
    return `a fingerprint has 64 hexadecimal digits, and these are ${digits.length}`;
  }
  return "this is no fingerprint: it is sha256/ and base64, or 64 hexadecimal digits, or 24 words";
}

function fault(text: string): ParsedFingerprint {
  return { kind: "fault", fault: text };
}
