/**
 * Reads a tree by its description. The one importer of `convict`.
 *
 * Promises: every key that is not described, every value that is not of its format and every required key that is
 * missing is reported at its line, all of them; what is returned holds valid values only. Convict holds each group: it
 * fills in the defaults, turns text into values, and refuses what the walk over the tree has let through by mistake.
 *
 * Convict alone would not do: it stops at keys with dots in them, takes any text for a boolean, looks into no list, and
 * has one message, without lines, for all that is wrong.
 */
import convict from "convict";
import { Refused, orList, type Format } from "./formats.ts";
import type { FileReport } from "./problems.ts";
import type { Draft, Entry, Group, Keys, List, Names, Scalar } from "./schema.ts";
import { valueOf, type ConfigNode } from "./source.ts";
import { quote, type Path } from "./text.ts";

/** Reads a whole file; undefined if its top is no map of keys. */
export function readFileAs<K extends Keys>(described: Group<K>, root: ConfigNode, report: FileReport) {
  // The one place where the description becomes a type: readGroup puts under each key what readEntry read for it.
  return readGroup(described, root, [], report) as Draft<K> | undefined;
}

function readEntry(entry: Entry, node: ConfigNode, path: Path, report: FileReport): unknown {
  switch (entry.shape) {
    case "scalar":
      return readScalar(entry.format, node, path, report);
    case "list":
      return readList(entry, node, path, report);
    case "group":
      return readGroup(entry, node, path, report);
    case "names":
      return readNames(entry, node, path, report);
    case "unavailable":
      report.errorAtKey(path, `${path.at(-1)} is not available in this version: remove it`);
      return undefined;
  }
}

function readScalar<T>(format: Format<T>, node: ConfigNode, path: Path, report: FileReport): T | undefined {
  if (node.kind !== "scalar") {
    report.error(path, `must be a single value, not a ${node.kind === "list" ? "list" : "map of keys"}`);
    return undefined;
  }
  const value = format.parse(node.value);
  if (!(value instanceof Refused)) return value;
  report.error(path, value.message);
  return undefined;
}

function readList(entry: List, node: ConfigNode, path: Path, report: FileReport): readonly unknown[] | undefined {
  const items = node.kind === "list" ? node.items : entry.orOne && node.kind === "scalar" ? [node] : undefined;
  if (items === undefined) {
    report.error(path, `must be a list, as [a, b]${entry.orOne ? ", or a single value" : ""}${emptyText(node)}`);
    return undefined;
  }
  if (items.length < entry.itemsMin) report.error(path, `must not be empty. ${entry.doc}`);
  const isList = node.kind === "list";
  return items.map((item, index) => readEntry(entry.of, item, isList ? [...path, index] : path, report));
}

function readNames(entry: Names, node: ConfigNode, path: Path, report: FileReport): unknown {
  if (node.kind !== "map") {
    report.error(path, `must be a map of names${emptyText(node)}`);
    return undefined;
  }
  if (node.entries.length === 0) report.error(path, `must not be empty. ${entry.doc}`);
  // Pairs, not an object: the names are the operator's, `__proto__` among them.
  return node.entries.map(({ key, value }) => {
    const name = entry.nameFormat.parse(key);
    if (name instanceof Refused) report.errorAtKey([...path, key], name.message);
    return [key, readGroup(entry.of, value, [...path, key], report)] as const;
  });
}

function readGroup(described: Group, node: ConfigNode, path: Path, report: FileReport): unknown {
  if (node.kind !== "map") {
    const keys = Object.keys(described.keys).join(", ");
    report.error(path, `must be a map of keys${emptyText(node)}; its keys are ${keys}`);
    return undefined;
  }
  const errorsBefore = report.errors;
  for (const { key } of node.entries) {
    if (!Object.hasOwn(described.keys, key)) {
      report.errorAtKey([...path, key], `is no key: the keys here are ${Object.keys(described.keys).join(", ")}`);
    }
  }
  const held: Record<string, unknown> = {};
  const nested: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(described.keys)) {
    const child = valueOf(node, key);
    const value = child === undefined ? undefined : readEntry(entry, child, [...path, key], report);
    if (child === undefined && entry.default === null) report.error([...path, key], `is missing: add it. ${entry.doc}`);
    if (entry.shape === "scalar") {
      // Convict gets the text as it is in the file and makes the value out of it itself.
      if (value !== undefined && child?.kind === "scalar") held[key] = child.value;
    } else if (entry.shape === "list") {
      if (value !== undefined) held[key] = value;
    } else if (
      value === undefined &&
      entry.shape === "group" &&
      entry.default !== null &&
      entry.default !== undefined
    ) {
      nested[key] = readGroup(entry, { kind: "map", line: node.line, entries: [] }, [...path, key], report);
    } else {
      nested[key] = value;
    }
  }
  checkExactlyOne(described, node, path, report);
  return { ...fillIn(described, held, report.errors === errorsBefore), ...nested };
}

function checkExactlyOne({ doc, exactlyOne }: Group, node: ConfigNode, path: Path, report: FileReport): void {
  if (exactlyOne === undefined) return;
  const given = exactlyOne.filter((key) => valueOf(node, key) !== undefined);
  if (given.length === 0) report.error(path, `must have ${orList(exactlyOne)}. ${doc}`);
  const second = given[1];
  if (second !== undefined)
    report.errorAtKey([...path, second], `cannot stand beside \`${given[0]}\`: remove one of them`);
}

function emptyText(node: ConfigNode): string {
  return node.kind === "scalar" && node.value === null ? "; it is empty: give it a value or remove the key" : "";
}

/** @param sound is nothing wrong with the group: then convict must agree. */
function fillIn(described: Group, held: Record<string, unknown>, sound: boolean): Record<string, unknown> {
  // No environment and no arguments: the files are all that counts.
  const config = convict<Record<string, unknown>>(convictSchema(described), { env: {}, args: [] });
  config.load(held);
  if (sound) config.validate({ allowed: "strict" });
  return Object.fromEntries(
    Object.entries(config.getProperties()).map(([key, value]) => [key, value === null ? undefined : value]),
  );
}

const schemas = new WeakMap<Group, convict.Schema<Record<string, unknown>>>();

/** The part of a group that convict can hold: single values, and lists as a whole. */
function convictSchema(described: Group): convict.Schema<Record<string, unknown>> {
  const known = schemas.get(described);
  if (known !== undefined) return known;
  const schema: Record<string, convict.SchemaObj> = {};
  for (const [key, entry] of Object.entries(described.keys)) {
    if (entry.shape === "scalar") {
      schema[key] = { doc: entry.doc, default: entry.default, format: convictFormat(entry) };
    } else if (entry.shape === "list") {
      schema[key] = { doc: entry.doc, default: parsedDefault(entry), format: "parsed-list" };
    }
  }
  schemas.set(described, schema);
  return schema;
}

const formatsAdded = new Set<string>();

function convictFormat({ format }: Scalar<unknown>): string | string[] {
  if (format.words !== undefined) return [...format.words];
  if (!formatsAdded.has(format.name)) {
    formatsAdded.add(format.name);
    convict.addFormat({
      name: format.name,
      coerce: (written: string) => accept(format, written),
      validate(value: unknown) {
        // What was text has been through `coerce`; what is missing is null.
        if (value === null || typeof value === "object") throw new Error("is missing");
      },
    });
  }
  return format.name;
}

convict.addFormat({
  name: "parsed-list",
  validate(value: unknown) {
    if (!Array.isArray(value)) throw new Error("is missing");
  },
});

/** A list's default is written as in a file. */
function parsedDefault(entry: List): unknown {
  const { default: written, of } = entry;
  return Array.isArray(written) && of.shape === "scalar" ? written.map((item) => accept(of.format, item)) : written;
}

function accept<T>(format: Format<T>, written: string): T {
  const value = format.parse(written);
  if (value instanceof Refused) throw new Error(`${quote(written)} ${value.message}`);
  return value;
}
