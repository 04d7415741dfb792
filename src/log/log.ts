/**
 * The log: pino, one JSON line an event. The one importer of `pino`.
 *
 * What a peer sent goes into a field of its own (`client`, `remote`), never into a key or the message text, so that no
 * peer can forge a field; JSON keeps it from forging a line, and from driving the terminal of whoever reads it. No message
 * content and no key material is ever handed to it.
 */
import { destination, pino, stdTimeFunctions, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/**
 * @param process name of the compartment, for instance "receiver".
 * @param output where lines go; standard output unless told otherwise.
 */
export function createLog(process: string, output?: DestinationStream): Log {
  return pino(
    {
      level: "info",
      base: { process, pid: globalThis.process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
      hooks: { streamWrite: escapeUnseen },
    },
    output ?? destination({ dest: 1, sync: false }),
  );
}

/**
 * What JSON lets pass though a terminal or an editor obeys it: DEL and the C1 controls (U+009B begins an escape sequence
 * as ESC [ does), line and paragraph separators, and what turns the direction of text around.
 */
// eslint-disable-next-line no-control-regex -- it is about control characters
const unseen = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The same JSON, with those characters as JSON escapes: whoever parses it reads what was written. */
function escapeUnseen(line: string): string {
  return line.replaceAll(unseen, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
