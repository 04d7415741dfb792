/**
 * Lists and maps in the text of a YAML file, to the character: where their items stand, and what must be put in or taken
 * out of the text so that one comes or goes and all else stays as it is. Pure.
 *
 * Promises: whole lines come and go where items have lines of their own; comments go with the item in whose lines they
 * stand, and with no other. Undefined where it cannot be done without touching more than that.
 */
import type { CST } from "yaml";

/** A stretch of the text, and what comes in its place. */
export interface Splice {
  readonly from: number;
  readonly to: number;
  readonly text: string;
}

export function splice(text: string, splices: readonly Splice[]): string {
  return splices
    .toSorted((a, b) => b.from - a.from)
    .reduce((edited, { from, to, text: put }) => edited.slice(0, from) + put + edited.slice(to), text);
}

/** From the first character of what it says to behind the last one: without the spaces and comments around it. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export type Collection = { readonly items: readonly CST.CollectionItem[]; readonly spans: readonly Span[] } & (
  { readonly style: "block" } | { readonly style: "flow"; readonly commas: readonly number[]; readonly close: number }
);

export function collectionOf(text: string, token: CST.Token | undefined): Collection | undefined {
  if (token?.type !== "block-map" && token?.type !== "block-seq" && token?.type !== "flow-collection") return undefined;
  const all: readonly CST.CollectionItem[] = token.items;
  // Comments behind the last item, and a comma there, are items to the parser.
  const items = all.filter((item) => spanOf(text, item) !== undefined);
  const spans = items.flatMap((item) => spanOf(text, item) ?? []);
  if (token.type !== "flow-collection") return { style: "block", items, spans };
  const close = token.end.find(({ type }) => type === "flow-map-end" || type === "flow-seq-end")?.offset;
  if (close === undefined) return undefined;
  const commas = all.flatMap(({ start }) => start.filter(({ type }) => type === "comma").map(({ offset }) => offset));
  return { style: "flow", items, spans, commas, close };
}

/** Puts an item behind the last one. `entry` is what it says, in one line where the style is flow. */
export function insertItem(
  text: string,
  collection: Collection,
  entry: (style: Collection["style"]) => string,
  comment?: string,
): readonly Splice[] | undefined {
  const last = collection.spans.at(-1);
  if (last === undefined) return undefined;
  const tail = comment === undefined ? "" : ` # ${comment}`;
  if (collection.style === "block") {
    const column = " ".repeat(last.from - lineAround(text, last.from).from);
    const end = lineAround(text, behindItsComments(text, last.to, column.length));
    const [first = "", ...further] = entry("block").split("\n");
    const eol = end.eol || lineAround(text, 0).eol || "\n";
    const lines = [`${column}${first}${tail}`, ...further.map((line) => `${column}${line}`)].join(eol);
    // A last line without an end stays one.
    return [{ from: end.to, to: end.to, text: end.eol === "" ? `${eol}${lines}` : `${lines}${eol}` }];
  }
  const end = lineAround(text, last.to);
  const indent = text.slice(lineAround(text, last.from).from, last.from);
  const comma = collection.commas.find((at) => at >= last.to);
  const hasOwnLine = isBlank(indent) && collection.close >= end.to && (comma === undefined || comma < end.to);
  if (!hasOwnLine || !isBlank(text.slice(lineAround(text, collection.close).from, collection.close))) {
    return [{ from: last.to, to: last.to, text: `, ${entry("flow")}` }];
  }
  return [
    ...(comma === undefined ? [{ from: last.to, to: last.to, text: "," }] : []),
    { from: end.to, to: end.to, text: `${indent}${entry("flow")}${comma === undefined ? "" : ","}${tail}${end.eol}` },
  ];
}

/** An offset in the last line of an item that ends at `offset`: lines of comments that are indented deeper are its own. */
function behindItsComments(text: string, offset: number, column: number): number {
  let [last, next] = [offset, lineAround(text, offset).to];
  while (next < text.length) {
    const line = lineAround(text, next);
    const indent = /^ *(?=#)/.exec(text.slice(line.from, line.to))?.[0].length ?? 0;
    if (indent <= column) break;
    [last, next] = [line.from, line.to];
    if (line.eol === "") break;
  }
  return last;
}

/** Takes an item out. It must not be the only one. */
export function removeItem(text: string, collection: Collection, index: number): readonly Splice[] | undefined {
  const span = collection.spans[index];
  if (span === undefined || collection.spans.length < 2) return undefined;
  const [from, to] =
    collection.style === "block"
      ? (blockStretch(text, collection.spans, index) ?? [])
      : flowStretch(text, collection, span, index);
  return from === undefined || to === undefined ? undefined : [{ from, to, text: "" }];
}

function blockStretch(text: string, spans: readonly Span[], index: number): readonly [number, number] | undefined {
  const [span, next] = [spans[index], spans[index + 1]];
  if (span === undefined) return undefined;
  const [first, last] = [lineAround(text, span.from), lineAround(text, span.to)];
  const before = text.slice(first.from, span.from);
  if (isBlank(before)) {
    // Where the last line has no end, the one that becomes the last has none either.
    const dangling = last.eol === "" && first.from > 0 ? lineAround(text, first.from - 1).eol.length : 0;
    return [first.from - dangling, last.to];
  }
  // It stands behind the dash of a list, or in another place from which it cannot go with its line.
  if (next === undefined || before.trim() !== "-") return undefined;
  if (isBlank(text.slice(last.to, next.from))) return [span.from, next.from];
  return [first.from + before.trimEnd().length, last.to - last.eol.length]; // the dash stays, the rest stands below it
}

function flowStretch(
  text: string,
  { commas, spans }: Collection & { style: "flow" },
  span: Span,
  index: number,
): readonly [number, number] {
  const [previous, next] = [spans[index - 1], spans[index + 1]];
  const comma = commas.find((at) => at >= span.to && at < (next?.from ?? Number.POSITIVE_INFINITY));
  const end = comma === undefined ? span.to : comma + 1;
  const [first, last] = [lineAround(text, span.from), lineAround(text, end)];
  const isAlone = isBlank(text.slice(first.from, span.from)) && /^[ \t]*(?:#.*)?\r?\n$/.test(text.slice(end, last.to));
  if (isAlone) return [first.from, last.to]; // a comma before it may stay: YAML takes one behind the last item
  if (next === undefined && previous !== undefined && /^[\s,]*$/.test(text.slice(previous.to, span.from))) {
    return [previous.to, span.to];
  }
  const blanks = /^[ \t]*/.exec(text.slice(end))?.[0].length ?? 0;
  return [span.from, text[end + blanks] === "#" ? end : end + blanks]; // a comment needs the space before it
}

/** The line that `offset` is in: from its first character to behind its line end. */
export function lineAround(text: string, offset: number): Span & { readonly eol: "" | "\n" | "\r\n" } {
  const from = offset === 0 ? 0 : text.lastIndexOf("\n", offset - 1) + 1;
  const end = text.indexOf("\n", offset);
  if (end < 0) return { from, to: text.length, eol: "" };
  return { from, to: end + 1, eol: text[end - 1] === "\r" ? "\r\n" : "\n" };
}

/** What an item of a list or map says; undefined if it says nothing. */
export function spanOf(text: string, item: Partial<CST.CollectionItem>): Span | undefined {
  const leaves = leavesOf(item).filter(({ type }) => !["space", "newline", "comment", "comma"].includes(type));
  const first = leaves[0];
  if (first === undefined) return undefined;
  // The parser counts empty lines behind a block of text among it.
  const ends = leaves.map(({ type, from, to }) =>
    type === "block-scalar" ? from + text.slice(from, to).trimEnd().length : to,
  );
  return { from: first.from, to: Math.max(...ends) };
}

interface Leaf extends Span {
  readonly type: CST.Token["type"];
}

/** The tokens of an item that have no others in them, in order. */
export function leavesOf(item: Partial<CST.CollectionItem>): Leaf[] {
  return [...(item.start ?? []), item.key, ...(item.sep ?? []), item.value].flatMap((token) =>
    token === undefined || token === null ? [] : leavesOfToken(token),
  );
}

function leavesOfToken(token: CST.Token): Leaf[] {
  const leaf: Leaf = {
    type: token.type,
    from: token.offset,
    to: token.offset + ("source" in token ? token.source.length : 0),
  };
  if ("props" in token) {
    const props = token.props.flatMap(leavesOfToken);
    const from = props.at(-1)?.to ?? token.offset;
    return [...props, { ...leaf, from, to: from + token.source.length }];
  }
  return [
    ...("start" in token ? [token.start].flat() : []).flatMap(leavesOfToken),
    ...("items" in token ? token.items.flatMap((item) => leavesOf(item)) : []),
    ...("source" in token ? [leaf] : []),
    ...("end" in token ? (token.end ?? []) : []).flatMap(leavesOfToken),
  ];
}

function isBlank(text: string): boolean {
  return /^[ \t]*$/.test(text);
}
