/**
 * Reads what a client sends: command lines, and between DATA and the end of data the content of a message.
 *
 * Promises: only CRLF ends a command line (RFC 5321 §2.3.8). A line with a bare LF, or one that is too long, ends the
 * session, because what stands behind it cannot be told for certain; a line that has no end is never executed. Commands
 * are read one by one, as the session is ready for them, and a piece full of them leaves others their turn. Works in
 * pieces of any size, split anywhere. Fails only as its listener fails.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Intake } from "./intake.ts";

/** How a session takes what is read. A promise asks the reader to wait for it; undefined lets it go on. */
export interface WireListener {
  /** A line without its CRLF. */
  onCommand(line: Buffer): Promise<void> | undefined;
  /** The message is complete; what follows is read as commands when the promise has resolved. */
  onEndOfData(): Promise<void>;
  /** Nothing more is read. */
  onFault(fault: WireFault): void;
}

export type WireFault = "bareLineFeed" | "lineTooLong";

const lineEndBytes = 2;
const commandsPerTurn = 100;
/** Of content that costs no waiting: the system would read two megabytes from one connection before it looks at the next. */
const octetsPerTurn = 64 * 1024;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const nothing = Buffer.alloc(0);

export class WireReader {
  readonly #listener: WireListener;
  readonly #lineBytesMax: () => number;
  /** The beginning of a line whose end has not come. */
  #held: Buffer = nothing;
  #intake: Intake | undefined;
  #commandsRead = 0;
  #octetsTaken = 0;

  /** @param lineBytesMax of a command line with its CRLF; asked for at each line. */
  constructor(listener: WireListener, lineBytesMax: () => number) {
    this.#listener = listener;
    this.#lineBytesMax = lineBytesMax;
  }

  /** What follows is content, up to its end. */
  receiveContent(intake: Intake): void {
    this.#intake = intake;
  }

  /** Resolves when the next piece may come. Stops between two commands when `isClosed`. */
  async read(piece: Buffer, isClosed: () => boolean): Promise<void> {
    let rest = piece;
    while (rest.length > 0 && !isClosed()) {
      if (this.#intake !== undefined) {
        const taken = this.#intake.take(rest);
        this.#octetsTaken += rest.length;
        if (taken.ready !== undefined) await taken.ready;
        else if (this.#octetsTaken >= octetsPerTurn) await nextTurn();
        this.#octetsTaken %= octetsPerTurn;
        if (taken.rest === undefined) return;
        this.#intake = undefined;
        await this.#listener.onEndOfData();
        rest = taken.rest;
        continue;
      }
      const feed = rest.indexOf(lineFeed);
      const fault = this.#hold(feed < 0 ? rest : rest.subarray(0, feed + 1));
      if (fault !== undefined) {
        this.#listener.onFault(fault);
        return;
      }
      if (feed < 0) return;
      const line = this.#held.subarray(0, -lineEndBytes);
      this.#held = nothing;
      rest = rest.subarray(feed + 1);
      // Replies to commands that need not be waited for are made in one turn, and so leave together.
      const pending = this.#listener.onCommand(line);
      if (pending !== undefined) await pending;
      this.#commandsRead += 1;
      if (this.#commandsRead % commandsPerTurn === 0) await nextTurn();
    }
  }

  /** Adds a part of a line, which may end it. It is copied: what it was cut from is large. */
  #hold(part: Buffer): WireFault | undefined {
    if (this.#held.length + part.length > this.#lineBytesMax()) return "lineTooLong";
    this.#held = Buffer.concat([this.#held, part]);
    return this.#held.at(-1) === lineFeed && this.#held.at(-2) !== carriageReturn ? "bareLineFeed" : undefined;
  }
}
