/**
 * Finds the end of data (RFC 5321 §4.1.1.4) in the octets that follow 354, and nothing but it: only CRLF . CRLF ends a
 * message. Bare CR, bare LF and NUL do not end it, and neither do they end the session's senses: they are noted, the
 * message is read to its true end, and then it is refused (what another server might take for an end can smuggle no
 * second message past us).
 *
 * The content is passed on in wire form, dots doubled as they came. Works in pieces of any size, split anywhere. Every
 * octet is looked at once and costs the same, whatever it is: native searches would be faster on long lines, and twenty
 * times slower on a flood of empty ones. Never fails.
 */
import { isAscii } from "node:buffer";

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const dot = 0x2e;

/** Where the next octet stands. The dot and CR before `afterDot` and `afterDotCr` are held back: they may be the end. */
type Position = "lineStart" | "inLine" | "afterCr" | "afterDot" | "afterDotCr";

const heldOctets: Record<Position, number> = { lineStart: 0, inLine: 0, afterCr: 0, afterDot: 1, afterDotCr: 2 };

/** `content` is all message. At the end, `rest` is what the client sent behind it; undefined: more is to come. */
export interface ScanResult {
  readonly content: readonly Buffer[];
  readonly rest: Buffer | undefined;
}

export class ContentScanner {
  /** Octets as RFC 1870 counts them: without the doubled dots and without the end. */
  sizeBytes = 0;
  /** Was there a bare CR, a bare LF or a NUL? */
  malformed = false;
  /** Was there an octet above 127? */
  eightBit = false;
  #position: Position = "lineStart";
  /** How many of the octets that are held back stand in earlier pieces. */
  #carried = 0;

  scan(piece: Buffer): ScanResult {
    const content: Buffer[] = [];
    const { length } = piece;
    let at = 0;
    while (at < length) {
      const octet = piece[at];
      switch (this.#position) {
        case "inLine":
          at = this.#skipLine(piece, at);
          break;
        case "lineStart":
          if (octet === dot) at += 1;
          this.#position = octet === dot ? "afterDot" : "inLine";
          break;
        case "afterCr":
          if (octet === lineFeed) at += 1;
          else this.malformed = true;
          this.#position = octet === lineFeed ? "lineStart" : "inLine";
          break;
        case "afterDot":
          if (octet === carriageReturn) {
            at += 1;
            this.#position = "afterDotCr";
          } else {
            this.#notTheEnd(content);
          }
          break;
        case "afterDotCr":
          if (octet === lineFeed) {
            this.#pass(content, piece.subarray(0, at - (heldOctets.afterDotCr - this.#carried)));
            return { content, rest: piece.subarray(at + 1) };
          }
          this.malformed = true; // a bare CR behind the dot
          this.#notTheEnd(content);
          break;
      }
    }
    const held = heldOctets[this.#position];
    this.#pass(content, piece.subarray(0, length - (held - this.#carried)));
    this.#carried = held;
    return { content, rest: undefined };
  }

  /** The dot at the start of the line was a doubled one: it is passed on and not counted. */
  #notTheEnd(content: Buffer[]): void {
    if (this.#carried > 0) this.#pass(content, Buffer.from(".\r".slice(0, this.#carried)));
    this.#carried = 0;
    this.sizeBytes -= 1;
    this.#position = "inLine";
  }

  /** From inside a line to behind the CR that may end it, or to the end of the piece. */
  #skipLine(piece: Buffer, from: number): number {
    const { length } = piece;
    for (let at = from; at < length; at += 1) {
      const octet = piece[at] ?? 0;
      if (octet > carriageReturn) continue; // nearly all are
      if (octet === carriageReturn) {
        this.#position = "afterCr";
        return at + 1;
      }
      if (octet === lineFeed || octet === 0) this.malformed = true;
    }
    return length;
  }

  #pass(content: Buffer[], piece: Buffer): void {
    if (piece.length === 0) return;
    this.sizeBytes += piece.length;
    this.eightBit ||= !isAscii(piece);
    content.push(piece);
  }
}
