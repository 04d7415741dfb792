/**
 * How files are described: every key with its meaning, its default and its format, once. From this one description come
 * the values that `read` reads, the defaults that `convict` fills in, and the JSON Schemas for editors.
 *
 * A key is a convict property (doc, default, format) with what convict cannot say: what the elements of a list are, what
 * stands in a map whose keys are free. As in convict, a key whose default is null is required; one whose default is
 * undefined may be absent.
 */
import type { Format } from "./formats.ts";

/** The default of a key that must be given. */
export const required = null;
/** The default of a key that may be absent. */
export const optional = undefined;

/** One value. */
export interface Scalar<T, D = unknown> {
  readonly shape: "scalar";
  readonly doc: string;
  readonly default: D;
  readonly format: Format<T>;
}

/** A list of values of one kind. */
export interface List<E extends Entry = Entry, D = unknown> {
  readonly shape: "list";
  readonly doc: string;
  readonly default: D;
  readonly of: E;
  readonly itemsMin: number;
  /** May a single value stand for a list of one? */
  readonly orOne: boolean;
}

/** Keys that belong together. */
export interface Group<K extends Keys = Keys, D = unknown> {
  readonly shape: "group";
  readonly doc: string;
  readonly default: D;
  readonly keys: K;
  /** Of these keys there must be one, and not two. */
  readonly exactlyOne: readonly string[] | undefined;
}

/** Groups under names that the operator chooses. */
export interface Names<G extends Group = Group, D = unknown> {
  readonly shape: "names";
  readonly doc: string;
  readonly default: D;
  readonly nameFormat: Format<string>;
  readonly of: G;
}

/** A key of the design that this version has no code for: it is refused rather than ignored. */
export interface Unavailable {
  readonly shape: "unavailable";
  readonly doc: string;
  readonly default: undefined;
}

export type Entry = Scalar<unknown> | List | Group | Names | Unavailable;
export type Keys = Readonly<Record<string, Entry>>;

/**
 * What is read for an entry. Elements that are not valid are undefined, so that the others keep their positions: what
 * is wrong with one shall not hide what is wrong with the next.
 */
export type Read<E> =
  E extends Scalar<infer T>
    ? T
    : E extends List<infer I>
      ? ReadonlyArray<Read<I> | undefined>
      : E extends Group<infer K>
        ? Draft<K>
        : E extends Names<infer G>
          ? ReadonlyArray<readonly [name: string, value: Read<G> | undefined]>
          : undefined;

/** What is read for a group: keys with a default always have a value, others may be absent, or not valid. */
export type Draft<K> = {
  readonly [N in keyof K]: K[N] extends { readonly default: null | undefined } ? Read<K[N]> | undefined : Read<K[N]>;
};

export function scalar<T, const D>(described: { doc: string; format: Format<T>; default: D }): Scalar<T, D> {
  return { shape: "scalar", ...described };
}

export function list<E extends Entry, const D>(described: {
  doc: string;
  of: E;
  default: D;
  itemsMin?: number;
  orOne?: boolean;
}): List<E, D> {
  return { shape: "list", itemsMin: 0, orOne: false, ...described };
}

export function group<K extends Keys, const D>(described: {
  doc: string;
  keys: K;
  default: D;
  exactlyOne?: ReadonlyArray<keyof K & string>;
}): Group<K, D> {
  return { shape: "group", exactlyOne: undefined, ...described };
}

export function names<G extends Group, const D>(described: {
  doc: string;
  nameFormat: Format<string>;
  of: G;
  default: D;
}): Names<G, D> {
  return { shape: "names", ...described };
}

/** @param doc what it will be. */
export function unavailable(doc: string): Unavailable {
  return { shape: "unavailable", doc, default: undefined };
}
