/**
 * Edits the text of a partner's file. Pure.
 *
 * Promises: whatever is not about the change stays as it is, to the character: comments, order, quotes, line ends. What
 * the text means changes by exactly the edit: this is compared after each step. Fails with an {@link EditRefusal} where
 * the text is written in a way that leaves no place for the change, as with anchors and aliases in that place.
 */
import { isDeepStrictEqual } from "node:util";
import { isAlias, isMap, isNode, isScalar, isSeq, parseDocument, type CST, type YAMLMap } from "yaml";
import type { PartnerEdit, PinLifeKey } from "./partner-edit.ts";
import { entryText, flow, pinEntries } from "./partner-file.ts";
import {
  collectionOf,
  insertItem,
  leavesOf,
  removeItem,
  spanOf,
  splice,
  type Collection,
  type Splice,
} from "./partner-edit-tokens.ts";
import { plain } from "./text.ts";

/** What stands in the way, in one line that begins with where. */
export class EditRefusal extends Error {
  override readonly name = "EditRefusal";
}

/** Edits in the smallest steps. */
type Step =
  | Exclude<PartnerEdit, { kind: "setPinKeys" }>
  | {
      readonly kind: "setPinKey";
      readonly index: number;
      readonly key: PinLifeKey;
      readonly value: string | undefined;
    };

type PinAdded = Extract<PartnerEdit, { kind: "addPin" }>;

/** @param text of a file that is valid YAML. */
export function editPartnerText(text: string, edits: readonly PartnerEdit[]): string {
  const mark = text.startsWith("\uFEFF") ? "\uFEFF" : "";
  return mark + stepsOf(edits).reduce(takeStep, text.slice(mark.length));
}

/** In an order in which no step moves the pins that a later one counts. */
function stepsOf(edits: readonly PartnerEdit[]): Step[] {
  const of = <K extends PartnerEdit["kind"]>(kind: K) =>
    edits.filter((edit) => edit.kind === kind) as Array<Extract<PartnerEdit, { kind: K }>>;
  const single = of("setPinKeys").flatMap(({ index, keys }) =>
    (Object.entries(keys) as Array<[PinLifeKey, string | undefined]>).map(
      ([key, value]) => ({ kind: "setPinKey", index, key, value }) as const,
    ),
  );
  const removals = new Map(of("removePin").map((edit) => [edit.index, edit]));
  return [...of("setKey"), ...single, ...of("addPin"), ...[...removals.values()].toSorted((a, b) => b.index - a.index)];
}

function takeStep(text: string, step: Step): string {
  const wanted = outcome(meaningOf(text), step);
  if (isDeepStrictEqual(meaningOf(text), wanted)) return text;
  const edited = splice(text, splicesFor(text, step));
  if (!isDeepStrictEqual(meaningOf(edited), wanted)) throw unfit(placeOf(step));
  return edited;
}

const parseOptions = { prettyErrors: false, uniqueKeys: false, version: "1.2", keepSourceTokens: true } as const;

function meaningOf(text: string): unknown {
  const document = parseDocument(text, parseOptions);
  return document.errors.length > 0 ? undefined : document.toJS();
}

/** What the file shall mean after the step. */
function outcome(meaning: unknown, step: Step): unknown {
  const root: unknown = structuredClone(meaning);
  if (!isRecord(root)) throw new EditRefusal("the file holds no map of keys");
  if (step.kind === "setKey") return { ...root, [step.key]: step.value };
  const pins: unknown = root["pins"];
  if (!Array.isArray(pins)) throw new EditRefusal("pins: is no list");
  switch (step.kind) {
    case "addPin":
      return { ...root, pins: [...pins, Object.fromEntries(pinEntries(step.pin))] };
    case "removePin":
      if (step.index >= pins.length) throw new EditRefusal(`${placeOf(step)}: is not there`);
      if (pins.length === 1) throw new EditRefusal(`${placeOf(step)}: is the last pin: a partner without one is none`);
      return { ...root, pins: pins.toSpliced(step.index, 1) };
    case "setPinKey": {
      const pin: unknown = pins[step.index];
      if (!isRecord(pin)) throw new EditRefusal(`${placeOf(step)}: is not there`);
      const { [step.key]: _old, ...rest } = pin;
      const changed = step.value === undefined ? rest : { ...rest, [step.key]: step.value };
      return { ...root, pins: pins.with(step.index, changed) };
    }
  }
}

function splicesFor(text: string, step: Step): readonly Splice[] {
  const { contents } = parseDocument(text, parseOptions);
  const place = placeOf(step);
  if (!isMap(contents)) throw unfit(place);
  refuseAnchors(contents, "the file");
  if (step.kind === "setKey") return splicesForKey(text, contents, step.key, step.value, place);
  const pins = contents.items.find(({ key }) => isScalar(key) && key.value === "pins")?.value;
  refuseAnchors(pins, "pins");
  const list = isSeq(pins) ? collectionOf(text, pins.srcToken) : undefined;
  if (!isSeq(pins) || list === undefined || list.items.length !== pins.items.length) throw unfit("pins");
  switch (step.kind) {
    case "addPin":
      return found(insertPin(text, list, pins.items.at(-1), step), place);
    case "removePin":
      refuseAnchorsWithin(list.items[step.index], place);
      return found(removeItem(text, list, step.index), place);
    case "setPinKey": {
      const pin = pins.items[step.index];
      refuseAnchors(pin, `pins[${step.index}]`);
      if (!isMap(pin)) throw unfit(place);
      return splicesForKey(text, pin, step.key, step.value, place);
    }
  }
}

function insertPin(
  text: string,
  list: Collection,
  last: unknown,
  { pin, comment }: PinAdded,
): readonly Splice[] | undefined {
  const entries = pinEntries(pin);
  // As the pin before it is written: a key a line, or all in one.
  const isTall = isMap(last) && last.srcToken?.type === "block-map";
  const tall = `- ${entries.map(([key, value]) => `${key}: ${entryText(key, value)}`).join("\n  ")}`;
  const entry = (style: "block" | "flow") => (style === "flow" ? flow(entries) : isTall ? tall : `- ${flow(entries)}`);
  return insertItem(text, list, entry, comment === undefined ? undefined : plain(comment));
}

/** What sets a key of a map, adds it, or, without a value, removes it. */
function splicesForKey(
  text: string,
  map: YAMLMap,
  key: string,
  value: string | undefined,
  place: string,
): readonly Splice[] {
  const collection = collectionOf(text, map.srcToken);
  if (collection === undefined || collection.items.length !== map.items.length) throw unfit(place);
  const indexOf = (name: string) => map.items.findIndex((pair) => isScalar(pair.key) && pair.key.value === name);
  const item = collection.items[indexOf(key)];
  if (item === undefined) {
    if (value === undefined) return [];
    // In the file, behind the pins: it is about them.
    const neighbours = { ...collection, spans: collection.spans.slice(0, indexOf("pins") + 1 || undefined) };
    return found(
      insertItem(text, neighbours, () => `${key}: ${entryText(key, value)}`),
      place,
    );
  }
  refuseAnchorsWithin(item, place);
  return found(
    value === undefined ? removeItem(text, collection, indexOf(key)) : replaceValue(text, item, value),
    place,
  );
}

/** Puts a value in the place of another one, in quotes of the same kind. */
function replaceValue(text: string, item: CST.CollectionItem, value: string): readonly Splice[] | undefined {
  const colon = item.sep?.find(({ type }) => type === "map-value-ind");
  if (colon === undefined) return undefined;
  const span = spanOf(text, { start: [], ...(item.value === undefined ? {} : { value: item.value }) });
  if (span === undefined) return [{ from: colon.offset + 1, to: colon.offset + 1, text: ` ${JSON.stringify(value)}` }];
  return [{ ...span, text: scalarText(value, item.value?.type) }];
}

function scalarText(value: string, type: CST.Token["type"] | undefined): string {
  if (type === "single-quoted-scalar" && !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(value))
    return `'${value.replaceAll("'", "''")}'`;
  // Words and dates: of all that needs no quotes, what is known to need none.
  const isPlain =
    type === "scalar" && /^(?:[A-Za-z][\w-]*(?: [\w-]+)*|\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\dZ)?)$/.test(value);
  return isPlain && !/^(?:true|false|null|yes|no|on|off|y|n)$/i.test(value) ? value : JSON.stringify(value);
}

function placeOf(step: Step): string {
  switch (step.kind) {
    case "setKey":
      return step.key;
    case "addPin":
      return "pins";
    case "removePin":
      return `pins[${step.index}]`;
    case "setPinKey":
      return `pins[${step.index}].${step.key}`;
  }
}

/** A node that others share cannot be changed for itself. */
function refuseAnchors(node: unknown, place: string): void {
  if (isAlias(node) || (isNode(node) && "anchor" in node && node.anchor !== undefined)) throw shared(place);
}

function refuseAnchorsWithin(item: CST.CollectionItem | undefined, place: string): void {
  if (item !== undefined && leavesOf(item).some(({ type }) => type === "anchor" || type === "alias"))
    throw shared(place);
}

function shared(place: string): EditRefusal {
  return new EditRefusal(`${place}: is shared by an anchor (&) or alias (*): edit the file by hand`);
}

function unfit(place: string): EditRefusal {
  return new EditRefusal(`${place}: is written in a way that leaves no place for the change: edit the file by hand`);
}

function found<T>(value: T | undefined, place: string): T {
  if (value === undefined) throw unfit(place);
  return value;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
