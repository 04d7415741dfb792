/**
 * Finds the end of data (RFC 5321 §4.1.1.4) in the octets that follow 354, and nothing but it: only CRLF . CRLF ends a
 * message. Bare CR, bare LF and NUL do not end it, and neither do they end the session's senses: they are noted, the
 * message is read to its true end, and then it is refused (what another server might take for an end can smuggle no
 * second message past us).
 *
 * The content is passed on in wire form, dots doubled as they came. Works in pieces of any size, split anywhere; costs
 * two native searches per line, however the lines are made. Never fails.
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
    const carriageReturns = new NextOctet(piece, carriageReturn);
    let at = 0;
    while (at < piece.length) {
      const octet = piece[at];
      switch (this.#position) {
        case "inLine":
          at = this.#skipLine(piece, at, carriageReturns);
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
    this.#pass(content, piece.subarray(0, piece.length - (held - this.#carried)));
    this.#carried = held;
    return { content, rest: undefined };
  }

  /** The dot at the start of the line was a doubled one: it is passed on and not counted. */
  #notTheEnd(content: Buffer[]): void {
    this.#pass(content, Buffer.from(".\r".slice(0, this.#carried)));
    this.#carried = 0;
    this.sizeBytes -= 1;
    this.#position = "inLine";
  }

  /** From inside a line to behind its LF, or to the end of the piece. */
  #skipLine(piece: Buffer, at: number, carriageReturns: NextOctet): number {
    const feed = piece.indexOf(lineFeed, at);
    const end = feed < 0 ? piece.length : feed;
    const cr = carriageReturns.from(at);
    if (cr < end - 1) this.malformed = true; // CR inside the line
    const endsWithCr = end > at && piece[end - 1] === carriageReturn;
    if (feed < 0) {
      if (endsWithCr) this.#position = "afterCr";
      return end;
    }
    if (!endsWithCr)
      this.malformed = true; // bare LF: not the end of a line
    else this.#position = "lineStart";
    return feed + 1;
  }

  #pass(content: Buffer[], piece: Buffer): void {
    if (piece.length === 0) return;
    this.sizeBytes += piece.length;
    this.malformed ||= piece.includes(0);
    this.eightBit ||= !isAscii(piece);
    content.push(piece);
  }
}

/** The next place of an octet, remembered, so that a piece is searched once however often is asked. */
class NextOctet {
  readonly #piece: Buffer;
  readonly #octet: number;
  #found = -1;

  constructor(piece: Buffer, octet: number) {
    this.#piece = piece;
    this.#octet = octet;
  }

  /** The first place at or behind `at`; Infinity if there is none. */
  from(at: number): number {
    if (this.#found < at) {
      const found = this.#piece.indexOf(this.#octet, at);
      this.#found = found < 0 ? Infinity : found;
    }
    return this.#found;
  }
}
