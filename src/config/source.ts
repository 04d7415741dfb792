/**
 * YAML files as trees that know their lines. The one reader of YAML; but for `partner-edit-text.ts`, which edits it, the
 * one importer of `yaml`.
 *
 * Promises: what comes out is plain (text, numbers, booleans, null, lists, maps with text keys), at most
 * {@link depthMax} levels deep, and small even where aliases multiply it; keys are unique; nothing is constructed, no
 * tag is obeyed. Whatever is wrong becomes problems, all those that the parser sees, and then there is no tree.
 */
import { isUtf8 } from "node:buffer";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { isAlias, isMap, isScalar, isSeq, Lexer, LineCounter, parseDocument, type Pair } from "yaml";
import type { ConfigProblem } from "./relay-config.ts";
import { keyPathText, systemFault, type Path } from "./text.ts";

export type ConfigScalar = string | number | boolean | null;

export type ConfigNode =
  | { readonly kind: "scalar"; readonly line: number; readonly value: ConfigScalar }
  | { readonly kind: "list"; readonly line: number; readonly items: readonly ConfigNode[] }
  | { readonly kind: "map"; readonly line: number; readonly entries: readonly ConfigEntry[] };

export interface ConfigEntry {
  readonly key: string;
  /** 1-based, of the key. */
  readonly line: number;
  readonly value: ConfigNode;
}

/** The largest file that is read: a partner's file has some 20 lines, and this holds some 20 000. */
export const fileBytesMax = 1024 * 1024;
const depthMax = 32;
const aliasesMax = 100;
/** Values after aliases are followed; a file of the largest size cannot hold as many without them. */
const valuesMax = 600_000;
const parserErrorsMax = 20;

/** Reads a file of at most {@link fileBytesMax}, or says in words why not. Never blocks on a pipe or a device. */
export async function readBounded(file: string): Promise<Buffer | { readonly fault: string }> {
  try {
    const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (stat.isDirectory()) return { fault: "is a folder" };
      if (!stat.isFile()) return { fault: "is not a regular file" };
      if (stat.size > fileBytesMax) return { fault: "is larger than 1 MiB: split it or remove what is not needed" };
      const bytes = Buffer.allocUnsafe(stat.size);
      let length = 0;
      while (length < bytes.length) {
        const { bytesRead } = await handle.read(bytes, length, bytes.length - length, length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      return bytes.subarray(0, length);
    } finally {
      await handle.close();
    }
  } catch (error) {
    return { fault: systemFault(error) };
  }
}

/**
 * Makes a tree of a file's bytes. What is wrong is added to `problems`; there is a tree as long as the rest of the file
 * can be judged without guessing (a key given twice does not hide the other errors).
 */
export function parseSource(file: string, bytes: Uint8Array, problems: ConfigProblem[]): ConfigNode | undefined {
  const lines = new LineCounter();
  const complain: Complain = (message, line, path = []) => {
    problems.push({ severity: "error", file, line, keyPath: keyPathText(path), message });
  };
  if (bytes.length > fileBytesMax) {
    complain("is larger than 1 MiB: split it or remove what is not needed", undefined);
    return undefined;
  }
  const text = decode(bytes);
  if (typeof text === "number") {
    complain("is not UTF-8: save it as UTF-8", text);
    return undefined;
  }
  if (isTooDeep(text)) {
    complain(`is nested more than ${depthMax} levels deep: no key here needs that`, undefined);
    return undefined;
  }
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false, version: "1.2" });
  const errors = [...document.errors, ...document.warnings];
  for (const { code, message, pos } of errors.slice(0, parserErrorsMax)) {
    complain(`is not valid YAML: ${parserMessage(code, message)}`, lineOf(lines, pos[0]));
  }
  if (errors.length > 0) return undefined;
  if (document.directives.yaml.version !== "1.2") {
    complain("asks for another version of YAML: remove the line with %YAML", 1);
    return undefined;
  }
  if (document.contents === null) {
    complain("is empty: it must hold at least the keys that have no default", undefined);
    return undefined;
  }
  return new TreeBuilder(lines, complain).build(document.contents);
}

/** The line of the value at `path`; of its key if it is a list or map; of what is nearest where nothing is there. */
export function lineAt(root: ConfigNode, path: Path): number {
  const { entry, node, found } = follow(root, path);
  if (path.length === 0 || (entry === undefined && node === root)) return 1;
  return entry === undefined || (found && node.kind === "scalar" && node.value !== null) ? node.line : entry.line;
}

/** The line of the last key of `path`. */
export function lineOfKey(root: ConfigNode, path: Path): number {
  const { entry, node } = follow(root, path);
  return entry === undefined ? node.line : entry.line;
}

/** Is there something at `path`? */
export function isSet(root: ConfigNode, path: Path): boolean {
  return follow(root, path).found;
}

/** The value of a key, if the map has it. */
export function valueOf(node: ConfigNode, key: string): ConfigNode | undefined {
  return node.kind === "map" ? node.entries.find((entry) => entry.key === key)?.value : undefined;
}

/** Goes as far as the path leads. `entry` is the map entry of `node`, if it is in a map. */
function follow(root: ConfigNode, path: Path): { node: ConfigNode; entry: ConfigEntry | undefined; found: boolean } {
  let node = root;
  let entry: ConfigEntry | undefined;
  for (const step of path) {
    if (typeof step === "number") {
      const item = node.kind === "list" ? node.items[step] : undefined;
      if (item === undefined) return { node, entry, found: false };
      [node, entry] = [item, undefined];
    } else {
      const next: ConfigEntry | undefined =
        node.kind === "map" ? node.entries.find((candidate) => candidate.key === step) : undefined;
      if (next === undefined) return { node, entry, found: false };
      [node, entry] = [next.value, next];
    }
  }
  return { node, entry, found: true };
}

/** Text, or the first line that is not UTF-8. A byte order mark, as some editors write it, is dropped. */
function decode(bytes: Uint8Array): string | number {
  if (isUtf8(bytes)) return new TextDecoder("utf-8").decode(bytes);
  const lineFeed = 0x0a; // in UTF-8 never part of another character
  let line = 1;
  for (let from = 0; from < bytes.length; line += 1) {
    const at = bytes.indexOf(lineFeed, from);
    const end = at < 0 ? bytes.length : at;
    if (!isUtf8(bytes.subarray(from, end))) return line;
    from = end + 1;
  }
  return line;
}

/** The parser takes seconds for a megabyte of opening brackets; its lexer does not, and finds them. */
function isTooDeep(text: string): boolean {
  let flow = 0;
  let dashes = 0;
  for (const token of new Lexer().lex(text)) {
    if (token === "[" || token === "{") flow += 1;
    else if (token === "]" || token === "}") flow -= 1;
    else if (token === "-" || token === "?") dashes += 1;
    else if (token === "\n" || token === "\r\n") dashes = 0;
    if (flow > depthMax || dashes > depthMax) return true;
  }
  return false;
}

function parserMessage(code: string, message: string): string {
  switch (code) {
    case "BAD_SCALAR_START":
      return `${message}: put it in quotes, as "@example.com"`;
    case "TAB_AS_INDENT":
      return `${message}: use spaces`;
    case "MULTIPLE_DOCS":
      return "several documents in one file: remove what is behind ---";
    case "TAG_RESOLVE_FAILED":
      return `${message}: remove it, values have no tags here`;
    case "BLOCK_AS_IMPLICIT_KEY":
      return `${message}: check the indentation, and put text with a colon in quotes`;
    case "RESOURCE_EXHAUSTION":
      return "nested too deeply";
    // oxlint-disable-next-line no-fallthrough -- no union: the parser's own words do for the others
    default:
      return message;
  }
}

type Complain = (message: string, line: number | undefined, path?: Path) => void;

/** Turns the parser's document into our tree. Nodes behind aliases are shared, never copied. */
class TreeBuilder {
  readonly #lines: LineCounter;
  readonly #complain: Complain;
  readonly #anchors = new Map<string, ConfigNode | "open">();
  /** How many values a node stands for, aliases followed. */
  readonly #sizes = new WeakMap<ConfigNode, number>();
  #aliases = 0;
  #failed = false;

  constructor(lines: LineCounter, complain: Complain) {
    this.#lines = lines;
    this.#complain = complain;
  }

  build(contents: unknown): ConfigNode | undefined {
    const root = this.#node(contents, 1, []);
    if (root === undefined || this.#failed) return undefined;
    if ((this.#sizes.get(root) ?? 1) > valuesMax) {
      return this.#fail("its aliases multiply it beyond any use: write out what is meant", undefined);
    }
    return root;
  }

  /** @param near the line to name where the node has no place of its own. */
  #node(node: unknown, near: number, path: Path): ConfigNode | undefined {
    if (node === null || node === undefined) return { kind: "scalar", line: near, value: null };
    const line = this.#line(node);
    if (isAlias(node)) return this.#followAlias(node.source, line, path);
    if (!isScalar(node) && !isSeq(node) && !isMap(node)) return this.#fail("is no value", line, path);
    if (path.length > depthMax) return this.#fail(`is nested more than ${depthMax} levels deep`, line, path);
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, "open");
    const made = isScalar(node)
      ? this.#scalar(node.value, node.source === "" ? near : line, path)
      : isSeq(node)
        ? this.#list(node.items, line, path)
        : this.#map(node.items, line, path);
    if (node.anchor !== undefined && made !== undefined) this.#anchors.set(node.anchor, made);
    return made;
  }

  #scalar(value: unknown, line: number, path: Path): ConfigNode | undefined {
    if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      return { kind: "scalar", line, value };
    }
    return this.#fail("is no plain value", line, path);
  }

  #list(nodes: readonly unknown[], line: number, path: Path): ConfigNode {
    const items = nodes.flatMap((item, index) => this.#node(item, line, [...path, index]) ?? []);
    return this.#sized({ kind: "list", line, items }, items);
  }

  #map(pairs: readonly Pair[], line: number, path: Path): ConfigNode {
    const seen = new Map<string, number>();
    const entries: ConfigEntry[] = [];
    for (const pair of pairs) {
      const keyLine = this.#line(pair.key);
      const key = keyText(pair.key);
      if (key === undefined) {
        this.#fail("holds a key that is not plain text", keyLine, path);
        continue;
      }
      const earlier = seen.get(key);
      if (earlier !== undefined) {
        this.#complain(`is given twice, first in line ${earlier}: remove one of them`, keyLine, [...path, key]);
        continue;
      }
      seen.set(key, keyLine);
      const value = this.#node(pair.value, keyLine, [...path, key]);
      if (value !== undefined) entries.push({ key, line: keyLine, value });
    }
    return this.#sized(
      { kind: "map", line, entries },
      entries.map(({ value }) => value),
    );
  }

  #followAlias(name: string, line: number, path: Path): ConfigNode | undefined {
    this.#aliases += 1;
    if (this.#aliases > aliasesMax) {
      // Once is enough to say it.
      if (this.#aliases === aliasesMax + 1) this.#fail(`is one of more than ${aliasesMax} aliases`, line, path);
      return undefined;
    }
    const target = this.#anchors.get(name);
    if (target === undefined) return this.#fail(`is an alias, *${name}, without an anchor before it`, line, path);
    if (target === "open") return this.#fail(`is an alias, *${name}, that stands within itself`, line, path);
    return target;
  }

  /** What makes the rest of the tree unfit to be judged. */
  #fail(message: string, line: number | undefined, path: Path = []): undefined {
    this.#failed = true;
    this.#complain(message, line, path);
  }

  #sized(node: ConfigNode, children: readonly ConfigNode[]): ConfigNode {
    const size = children.reduce((sum, child) => sum + (this.#sizes.get(child) ?? 1), 1);
    this.#sizes.set(node, size);
    return node;
  }

  #line(node: unknown): number {
    return lineOf(this.#lines, offsetOf(node));
  }
}

function lineOf(lines: LineCounter, offset: number): number {
  return Math.max(1, lines.linePos(offset).line);
}

function offsetOf(node: unknown): number {
  return isScalar(node) || isMap(node) || isSeq(node) || isAlias(node) ? (node.range?.[0] ?? 0) : 0;
}

/** Keys such as `2024` or `true` are text here, as they are written. */
function keyText(key: unknown): string | undefined {
  if (!isScalar(key) || key.value === null) return undefined;
  return typeof key.value === "string" ? key.value : key.source;
}
