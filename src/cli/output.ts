/**
 * What commands write and how they end.
 *
 * Promises: exit status 0 when it is done, 1 when the answer is no (refused, not found, the system would not), 2 for
 * wrong usage or an invalid configuration; text out of files, from partners or not, cannot steer the terminal; a table
 * fits its width. A command fails with {@link CliError}; whatever else is thrown and not expected goes through.
 */
import { CommanderError, type Command } from "commander";
import { CertificateFault, WrongPlan } from "../certs/fault.ts";
import { plain } from "../config/text.ts";

/** Where a command writes; tests collect it. The texts end their own lines. */
export interface Output {
  /** The answer. */
  readonly out: (text: string) => void;
  /** Everything else: faults, warnings. */
  readonly err: (text: string) => void;
}

export type ExitCode = 0 | 1 | 2;

/** Ends a command; the message says what to do. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: 1 | 2;

  constructor(exitCode: 1 | 2, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** The real one. */
export const processOutput: Output = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
};

/**
 * Parses the arguments, runs what they ask for, and says how it ended.
 * @param args without the interpreter and the script.
 */
export async function runCommand(command: Command, args: readonly string[], output: Output): Promise<ExitCode> {
  try {
    await command.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // it has written its message itself
    const exitCode = exitCodeOf(error);
    if (exitCode === undefined || !(error instanceof Error)) throw error;
    output.err(
      error.message
        .split("\n")
        .map((line) => `pinrelay: ${printable(line)}\n`)
        .join(""),
    );
    return exitCode;
  }
}

/** Undefined for what is a fault of ours, and must show its stack. */
function exitCodeOf(error: unknown): 1 | 2 | undefined {
  if (error instanceof CliError) return error.exitCode;
  if (error instanceof WrongPlan) return 2;
  if (error instanceof CertificateFault) return 1;
  return error instanceof Error && "syscall" in error ? 1 : undefined;
}

/** Text with its control characters, and those that turn the direction of writing, made visible as `\u{1b}`. */
export function printable(text: string): string {
  return plain(text.toWellFormed());
}

/** JSON for programs, which people read too: control characters stand in it as escapes, whatever peers have put into names. */
export function jsonText(value: unknown, indent: 0 | 2 = 2): string {
  const json = JSON.stringify(value, undefined, indent).replaceAll(/[^\P{Cc}\n]|[\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split("") // by UTF-16 code units, as JSON has it
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join(""),
  );
  return `${json}\n`;
}

const gap = "  ";
const cellColumnsMin = 8;

/**
 * A table with one line a row, so that `grep` finds whole rows. What does not fit is cut at the widest columns and ends
 * in an ellipsis: the whole is for `--json`.
 */
export function formatTable(
  rows: ReadonlyArray<readonly string[]>,
  header: readonly string[],
  columnsMax = 100,
): string {
  const table = [header, ...rows].map((row) => header.map((_, index) => printable(row[index] ?? "")));
  const widths = fitWidths(
    header.map((_, index) => Math.max(...table.map((row) => columnsOf(row[index] ?? "")))),
    columnsMax,
  );
  return table
    .map((row) => row.map((cell, index) => pad(cut(cell, widths[index] ?? 0), widths[index] ?? 0)).join(gap))
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
}

function fitWidths(natural: readonly number[], columnsMax: number): number[] {
  const widths = [...natural];
  const room = columnsMax - gap.length * (widths.length - 1);
  for (let over = sum(widths) - room; over > 0; over--) {
    const widest = widths.indexOf(Math.max(...widths));
    if ((widths[widest] ?? 0) <= cellColumnsMin) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
  return widths;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, next) => total + next, 0);
}

const segmenter = new Intl.Segmenter();
/** What terminals show two columns wide: the scripts of East Asia and emoji. */
const wide =
  /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}\uff01-\uff60]/u;

const oneColumnEach = /^[ -~]*$/;

function columnsOf(text: string): number {
  if (oneColumnEach.test(text)) return text.length; // a hundred times as fast, for long tables
  return sum(Array.from(segmenter.segment(text), ({ segment }) => (wide.test(segment) ? 2 : 1)));
}

/** Text of exactly so many columns: cut with an ellipsis, or filled up with blanks. */
export function fitText(text: string, columns: number): string {
  const plainText = printable(text);
  return pad(cut(plainText, columns), columns);
}

function cut(text: string, columns: number): string {
  if (columnsOf(text) <= columns) return text;
  let kept = "";
  let used = 1; // the ellipsis
  for (const { segment } of segmenter.segment(text)) {
    used += columnsOf(segment);
    if (used > columns) break;
    kept += segment;
  }
  return `${kept}…`;
}

function pad(text: string, columns: number): string {
  return text + " ".repeat(Math.max(0, columns - columnsOf(text)));
}
