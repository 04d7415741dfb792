/**
 * How things out of files are put into messages. Promises: one line, no control or invisible characters, never longer
 * than a line can be read. Pure.
 */
import { isAbsolute, relative } from "node:path";
import type { ConfigProblem } from "./relay-config.ts";

/** The way from the top of a file to a value: keys of maps, and positions in lists. */
export type Path = ReadonlyArray<string | number>;

const quotedCharactersMax = 60;

/** `routes.internal.servers[0].address`; keys that are not plain words are quoted: `routes["a.b"].domains`. */
export function keyPathText(path: Path): string {
  return path
    .map((step, index) => {
      if (typeof step === "number") return `[${step}]`;
      if (!/^[\w-]{1,64}$/.test(step)) return `[${quote(step)}]`;
      return index === 0 ? step : `.${step}`;
    })
    .join("");
}

/** Text out of a file, for a message: quoted, cut, without control or invisible characters. */
export function quote(text: string): string {
  const cut = text.length > quotedCharactersMax ? `${text.slice(0, quotedCharactersMax)}…` : text;
  return plain(JSON.stringify(cut.toWellFormed()));
}

/** A problem, or something like it of another severity. */
export type ShownProblem = Omit<ConfigProblem, "severity"> & { readonly severity: string };

/**
 * One line for people: `config/partners/acme.yaml:12: error: pins[0].spki: must be …`.
 * @param cwd files below it are shown relative to it.
 */
export function formatProblem(problem: ShownProblem, cwd: string = process.cwd()): string {
  const place = problem.line === undefined ? "" : `:${problem.line}`;
  const key = problem.keyPath === "" ? "" : `${problem.keyPath}: `;
  return `${shownPath(problem.file, cwd)}${place}: ${problem.severity}: ${key}${plain(problem.message)}`;
}

/** A path for people: relative to `cwd` if it is below it. */
export function shownPath(file: string, cwd: string): string {
  const below = relative(cwd, file);
  return plain(below === "" || below.startsWith("..") || isAbsolute(below) ? file : below);
}

/** Errors of the system in plain words. */
export function systemFault(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "ENOENT":
      return "does not exist";
    case "EACCES":
    case "EPERM":
      return "may not be read by this user";
    case "EISDIR":
      return "is a folder";
    case "ENOTDIR":
      return "is not in a folder";
    case "ELOOP":
      return "is a loop of symbolic links";
    case "ENAMETOOLONG":
      return "has a name that is too long";
    // oxlint-disable-next-line no-fallthrough -- no union: the system has a hundred of them
    default:
      return `cannot be read (${error instanceof Error ? plain(error.message) : "unknown error"})`;
  }
}

/** Control, format and line-separating characters could forge lines or colours on the operator's terminal. */
export function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
}
