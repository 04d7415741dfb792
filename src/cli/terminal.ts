/**
 * What a command asks of the person who runs it. Promises: where nobody sits at a terminal nobody is asked; what is read
 * is bounded. Tests pass their own.
 */
import { createInterface } from "node:readline/promises";
import { CliError } from "./output.ts";

export interface Terminal {
  /** Does a person see the output: may it hold pictures? */
  readonly shows: boolean;
  /** Asks and gives the answer; undefined: nobody is there to answer. */
  readonly ask: (question: string) => Promise<string | undefined>;
  /** Everything on the standard input, as a scanner types it: up to the end of the first line on a terminal. */
  readonly read: () => Promise<string>;
}

const inputCharactersMax = 10_000;

/** The real one. */
export const processTerminal: Terminal = {
  get shows() {
    return process.stdout.isTTY;
  },
  async ask(question) {
    if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined;
    return readLine(question);
  },
  async read() {
    // A scanner ends with Enter and does not know Ctrl-D.
    if (process.stdin.isTTY) return (await readLine("Fingerprint: ")) ?? "";
    let text = "";
    for await (const chunk of process.stdin.setEncoding("utf8")) {
      text += String(chunk);
      if (text.length > inputCharactersMax) throw new CliError(2, "the standard input is too long for a fingerprint");
    }
    return text;
  },
};

/** Undefined at the end of the input. */
async function readLine(question: string): Promise<string | undefined> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await Promise.race([
      lines.question(question),
      new Promise<undefined>((resolve) => void lines.once("close", () => resolve(undefined))),
    ]);
  } finally {
    lines.close();
  }
}
