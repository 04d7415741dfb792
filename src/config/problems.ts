/**
 * Problems of the configuration, collected instead of thrown: a postmaster sees all that is wrong at once, and each
 * thing with its file, its line and its key path.
 *
 * Promises: messages are one line each and hold no control characters, whatever stands in the files; a file reports at
 * most {@link problemsPerFileMax} problems and says so when there are more.
 */
import { dirname, relative } from "node:path";
import type { SourceRef } from "../partner/partner.ts";
import type { ConfigProblem } from "./relay-config.ts";
import { isSet, lineAt, lineOfKey, type ConfigNode } from "./source.ts";
import { keyPathText, plain, type Path } from "./text.ts";

export { formatProblem } from "./text.ts";

const problemsPerFileMax = 100;

/** Where something stands, for messages that point from one file to another. */
export interface Place extends SourceRef {
  readonly keyPath: string;
}

/** Collects the problems of one file. */
export class FileReport {
  readonly file: string;
  readonly #root: ConfigNode | undefined;
  readonly #problems: ConfigProblem[];
  #errors = 0;
  #reported = 0;

  /** @param problems where they go: several files may share it. */
  constructor(file: string, root: ConfigNode | undefined, problems: ConfigProblem[]) {
    this.file = file;
    this.#root = root;
    this.#problems = problems;
  }

  /** How many errors this file has so far: whoever makes a value out of parts compares before and after. */
  get errors(): number {
    return this.#errors;
  }

  error(path: Path, message: string): void {
    this.#add("error", path, this.line(path), message);
  }

  /** An error about the key itself, not about its value. */
  errorAtKey(path: Path, message: string): void {
    this.#add("error", path, this.#root === undefined ? undefined : lineOfKey(this.#root, path), message);
  }

  warning(path: Path, message: string): void {
    this.#add("warning", path, this.line(path), message);
  }

  /** Is the key there, whether or not its value is valid? */
  isSet(path: Path): boolean {
    return this.#root !== undefined && isSet(this.#root, path);
  }

  line(path: Path): number | undefined {
    return this.#root === undefined ? undefined : lineAt(this.#root, path);
  }

  source(path: Path): SourceRef {
    return { file: this.file, line: this.line(path) ?? 1 };
  }

  place(path: Path): Place {
    return { ...this.source(path), keyPath: keyPathText(path) };
  }

  #add(severity: ConfigProblem["severity"], path: Path, line: number | undefined, message: string): void {
    if (severity === "error") this.#errors += 1;
    this.#reported += 1;
    if (this.#reported > problemsPerFileMax + 1) return;
    if (this.#reported > problemsPerFileMax) {
      this.#problems.push({
        severity,
        file: this.file,
        line: undefined,
        keyPath: "",
        message: `has more than ${problemsPerFileMax} problems: the rest is not shown`,
      });
      return;
    }
    this.#problems.push({ severity, file: this.file, line, keyPath: keyPathText(path), message: plain(message) });
  }
}

/** What may be there once only (a domain's route, a pin), over all files. */
export class Claims {
  readonly #places = new Map<string, Place>();

  /** Claims `key` for `place`, unless it is taken: then returns the place that has it. */
  claim(key: string, place: Place): Place | undefined {
    const earlier = this.#places.get(key);
    if (earlier === undefined) this.#places.set(key, place);
    return earlier;
  }
}

/** `partners/acme.yaml:12 (pins[0].spki)`, the file as seen from the folder of `from`. */
export function placeText(place: Place, from: string): string {
  return `${plain(relative(dirname(from), place.file))}:${place.line} (${place.keyPath})`;
}
