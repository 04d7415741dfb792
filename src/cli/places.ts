/**
 * Where a rule stands, in file and line, for a person and for programs. Files are looked at once; one that has changed
 * since, or is gone, has no line. Never fails.
 */
import { locate } from "../config/load.ts";
import { shownPath } from "../config/text.ts";
import type { Ground, Place } from "../receiver/grounds.ts";

/** A ground as JSON has it. */
export interface FoundGround {
  readonly text: string;
  readonly file?: string;
  readonly line?: number;
}

export class Places {
  readonly #found = new Map<string, Promise<number | undefined>>();

  async find({ text, place }: Ground): Promise<FoundGround> {
    if (place === undefined) return { text };
    const line = await this.#lineOf(place);
    return { text, file: place.file, ...(line === undefined ? {} : { line }) };
  }

  #lineOf(place: Place): Promise<number | undefined> | number {
    if (place.kind === "line") return place.line;
    const name = `${place.file}\0${place.path.join("\0")}`;
    const known = this.#found.get(name) ?? locate(place.file, place.path).then(({ line }) => line);
    this.#found.set(name, known);
    return known;
  }
}

/** `allow.to orders@corp.example (config/partners/acme.yaml:9)`. */
export function groundText({ text, file, line }: FoundGround): string {
  if (file === undefined) return text;
  return `${text} (${shownPath(file, process.cwd())}${line === undefined ? "" : `:${line}`})`;
}
