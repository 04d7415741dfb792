/**
 * Edits of a partner's text, over generated spellings of the same partner: the loaded partner differs by the edit alone,
 * and lines that hold no touched pin stay as they are.
 */
import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { editPartnerText } from "../../src/config/partner-edit-text.ts";
import type { PartnerEdit } from "../../src/config/partner-edit.ts";
import { judgePartnerFile } from "../../src/config/partner-file.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { pinKey, type Digest } from "../../src/partner/pin.ts";
import { now } from "./support.ts";

const digestOf = (text: string): Digest => `sha256/${createHash("sha256").update(text).digest("base64")}`;

/** What stands around things that mean something. */
const space = fc.constantFrom("", "", " ", "  ");
const gap = fc.constantFrom(" ", " ", "  ");
const tail = fc.constantFrom("", "", " # tail", '  #\ttab, { brace: [ "quote', " # ä € 🔑");
const between = fc.array(fc.constantFrom("", "# own line", "  # deeper, - { spki: x }", "      # deepest", "#"), {
  maxLength: 2,
});

/** A value in one of its spellings. */
function spelled(text: string): fc.Arbitrary<string> {
  const plain = /^[A-Za-z][\w ]*[\w]$|^\d{4}-/.test(text) ? [text] : [];
  return fc.constantFrom(...plain, JSON.stringify(text), `'${text.replaceAll("'", "''")}'`);
}

const label = fc.constantFrom("old", "it's", "2026", "a: b # c", "two words");
const life = fc.record(
  {
    state: fc.constantFrom("active", "pending", "next", "revoked"),
    label,
    "not-before": fc.constantFrom("2020-01-01", "2021-02-03T04:05:06Z"),
    "not-after": fc.constantFrom("2030-01-01", "2031-02-03T04:05:06Z"),
  },
  { requiredKeys: [] },
);

type PinKeys = Readonly<Record<string, string>>;

/** The pairs of a pin, in any order: `key: value`. */
function pairsOf(pin: PinKeys): fc.Arbitrary<string[]> {
  const keys = Object.entries(pin).map(([key, value]) =>
    fc.tuple(fc.constantFrom(key, key, JSON.stringify(key)), gap, spelled(value)).map(([k, g, v]) => `${k}:${g}${v}`),
  );
  return fc
    .tuple(fc.tuple(...keys), fc.shuffledSubarray([...keys.keys()], { minLength: keys.length }))
    .map(([pairs, order]) => order.flatMap((at) => pairs[at] ?? []));
}

/** The lines of one pin in a list of dashes. */
const dashed = (pin: PinKeys, indent: string) =>
  fc
    .record({
      pairs: pairsOf(pin),
      isTall: fc.boolean(),
      g: gap,
      inner: space,
      tails: fc.array(tail, { minLength: 9, maxLength: 9 }),
      split: fc.boolean(),
    })
    .map(({ pairs, isTall, g, inner, tails, split }) => {
      if (isTall) {
        const below = `${indent} ${" ".repeat(g.length)}`;
        return pairs.map((pair, at) => `${at === 0 ? `${indent}-${g}` : below}${pair}${tails[at]}`);
      }
      if (!split) return [`${indent}-${g}{${inner}${pairs.join(`,${g}`)}${inner}}${tails[0]}`];
      const rows = pairs.map((pair, at) => `${indent}    ${pair}${at === pairs.length - 1 ? "" : ","}${tails[at]}`);
      return [`${indent}-${g}{`, ...rows, `${indent}  }${tails[8]}`];
    });

/** The lines of one pin in brackets. */
const bracketed = (pin: PinKeys, comma: string) =>
  fc
    .record({ pairs: pairsOf(pin), g: gap, inner: space, t: tail, split: fc.boolean() })
    .map(({ pairs, g, inner, t, split }) =>
      split
        ? ["  {", ...pairs.map((pair) => `    ${pair},${t}`), `  }${comma}${t}`]
        : [`  {${inner}${pairs.join(`,${g}`)}${inner}}${comma}${t}`],
    );

interface Line {
  readonly text: string;
  /** The pin that it is of. */
  readonly pin: number | undefined;
}

const free = (lines: readonly string[]): Line[] => lines.map((text) => ({ text, pin: undefined }));
const owned = (lines: readonly string[], pin: number): Line[] => lines.map((text) => ({ text, pin }));

function pinLines(pins: readonly PinKeys[]): fc.Arbitrary<Line[]> {
  const comments = fc.tuple(...pins.map(() => between), between);
  const inDashes = fc
    .constantFrom("", "  ", "    ")
    .chain((indent) =>
      fc
        .tuple(comments, fc.tuple(...pins.map((pin) => dashed(pin, indent))), tail)
        .map(([around, lines, t]) => [
          ...free([`pins:${t}`]),
          ...lines.flatMap((one, at) => [...free(around[at] ?? []), ...owned(one, at)]),
          ...free(around.at(-1) ?? []),
        ]),
    );
  const inBrackets = fc.boolean().chain((dangling) =>
    fc
      .tuple(
        comments,
        fc.tuple(...pins.map((pin, at) => bracketed(pin, at < pins.length - 1 || dangling ? "," : ""))),
        tail,
      )
      .map(([around, lines, t]) => [
        ...free([`pins: [${t}`]),
        // In brackets whatever is no comment is a value: the comments must be, at the margin too.
        ...lines.flatMap((one, at) => [...free((around[at] ?? []).map((c) => ` ${c}`)), ...owned(one, at)]),
        ...free([` ]${t}`]),
      ]),
  );
  const inOneLine = fc.tuple(fc.tuple(...pins.map(pairsOf)), space, tail).map(([all, inner, t]) => {
    return [
      { text: `pins: [${inner}${all.map((pairs) => `{${pairs.join(", ")}}`).join(`,${inner}`)}${inner}]${t}`, pin: -1 },
    ];
  });
  return fc.oneof({ weight: 3, arbitrary: inDashes }, { weight: 2, arbitrary: inBrackets }, inOneLine);
}

const document = fc
  .array(life, { minLength: 1, maxLength: 4 })
  .map((lives) => lives.map((keys, index) => ({ spki: digestOf(`pin ${index}`), ...keys })))
  .chain((pins) =>
    fc.record({
      pins: fc.constant(pins),
      list: pinLines(pins),
      before: between,
      after: between,
      isFirst: fc.boolean(),
      usage: fc.constantFrom("", "extended-key-usage: clientAuth # u", "'extended-key-usage': \"any\""),
      eol: fc.constantFrom("\n", "\r\n"),
      hasEnd: fc.boolean(),
      mark: fc.constantFrom("", "\uFEFF", "# top\n", "---\n"),
    }),
  )
  .map(({ pins, list, before, after, isFirst, usage, eol, hasEnd, mark }) => {
    const rest = free([
      "hosts: [ 192.0.2.1 ] # hosts",
      ...before,
      "allow:",
      "  # who",
      "  from: ['@acme.example']",
      '  to: ["@corp.example"] # to',
    ]);
    const own = usage === "" ? [] : [{ text: usage, pin: -2 }];
    const lines = [...(isFirst ? [...list, ...own, ...rest] : [...rest, ...own, ...list]), ...free(after)];
    return {
      pins,
      lines,
      eol,
      text: mark.replace("\n", eol) + lines.map(({ text }) => text).join(eol) + (hasEnd ? eol : ""),
    };
  });

const edit = (pinCount: number): fc.Arbitrary<PartnerEdit> => {
  const index = fc.nat({ max: pinCount - 1 });
  const value = (...values: string[]) => fc.constantFrom(undefined, ...values);
  const keys = fc.record(
    {
      state: value("active", "pending", "next", "revoked"),
      label: value("new", "it's", "true", "1: #"),
      "not-before": value("2022-01-01"),
      "not-after": value("2033-01-01", "2034-02-03T04:05:06Z"),
    },
    { requiredKeys: [] },
  );
  return fc.oneof(
    fc.record({ kind: fc.constant("setPinKeys" as const), index, keys }),
    fc.record({
      kind: fc.constant("addPin" as const),
      pin: life.map((pin) => newPin(pin)),
      comment: value("by alice"),
    }),
    fc.record({ kind: fc.constant("removePin" as const), index }),
    fc.record({
      kind: fc.constant("setKey" as const),
      key: fc.constant("extended-key-usage" as const),
      value: fc.constantFrom("any", "clientAuth"),
    }),
  );
};

function newPin(keys: Partial<Record<"state" | "label" | "not-before" | "not-after", string>>) {
  const { label: text, "not-before": notBefore, "not-after": notAfter } = keys;
  return {
    spki: digestOf("new"),
    ...(text === undefined ? {} : { label: text }),
    ...(notBefore === undefined ? {} : { notBefore }),
    ...(notAfter === undefined ? {} : { notAfter }),
    state: "pending" as const,
  };
}

/** What a file means, without where it stands in it. */
async function meaningOf(text: string) {
  const { partner, problems } = await judgePartnerFile("/partners/acme.yaml", Buffer.from(text), now, []);
  if (partner === undefined) throw new Error(`${JSON.stringify(problems[0])}\n${text}`);
  return {
    pins: partner.pins.map(lifeOf),
    usage: partner.extendedKeyUsage,
    rest: {
      hosts: partner.hosts,
      from: partner.allow.from.map(({ text: rule }) => rule),
      to: partner.allow.to.map(({ text: rule }) => rule),
    },
  };
}

function lifeOf(pin: Partner["pins"][number]) {
  return { key: pinKey(pin), state: pin.state, label: pin.label, notBefore: pin.notBefore, notAfter: pin.notAfter };
}

type Meaning = Awaited<ReturnType<typeof meaningOf>>;

function expectedOf(before: Meaning, one: PartnerEdit): Meaning {
  const dayOf = (text: string | undefined, time: string) =>
    text === undefined ? undefined : new Date(text.includes("T") ? text : text + time);
  switch (one.kind) {
    case "addPin": {
      const { state = "active", label: text, notBefore, notAfter } = one.pin;
      const key = `spki ${digestOf("new")}`;
      const pin = {
        key,
        state,
        label: text,
        notBefore: dayOf(notBefore, "T00:00:00Z"),
        notAfter: dayOf(notAfter, "T23:59:59.999Z"),
      };
      return { ...before, pins: [...before.pins, pin] };
    }
    case "removePin":
      return { ...before, pins: before.pins.toSpliced(one.index, 1) };
    case "setKey":
      return { ...before, usage: one.value === "any" ? "any" : "clientAuth" };
    case "setPinKeys": {
      const old = before.pins[one.index];
      if (old === undefined) throw new Error("no such pin");
      const { keys } = one;
      const state = (["pending", "next", "revoked"] as const).find((known) => known === keys.state) ?? "active";
      const pin = {
        key: old.key,
        state: "state" in keys ? state : old.state,
        label: "label" in keys ? keys.label : old.label,
        notBefore: "not-before" in keys ? dayOf(keys["not-before"], "T00:00:00Z") : old.notBefore,
        notAfter: "not-after" in keys ? dayOf(keys["not-after"], "T23:59:59.999Z") : old.notAfter,
      };
      return { ...before, pins: before.pins.with(one.index, pin) };
    }
  }
}

/** The pins whose lines may change: commas stand in the lines of neighbours. */
function touched(one: PartnerEdit, pinCount: number): Array<number | undefined> {
  switch (one.kind) {
    case "addPin":
      return [-1, pinCount - 1];
    case "removePin":
    case "setPinKeys":
      return [-1, one.index];
    case "setKey":
      return [-2];
  }
}

test("an edit changes the partner by itself alone, and only the lines of the pins that it is about", async () => {
  const cases = document.chain((given) => fc.record({ given: fc.constant(given), one: edit(given.pins.length) }));
  await fc.assert(
    fc.asyncProperty(cases, async ({ given: { pins, lines, eol, text }, one }) => {
      fc.pre(one.kind !== "removePin" || pins.length > 1);
      const before = await meaningOf(text);
      const edited = editPartnerText(text, [one]);
      expect(await meaningOf(edited)).toEqual(expectedOf(before, one));
      const after = edited.split(eol);
      if (eol === "\r\n") expect(edited.replaceAll("\r\n", "")).not.toContain("\n");
      // A last line without an end stays one; where it goes and an empty one was before it, that one looks like an end.
      if (lines.findLast(({ pin }) => pin === undefined || !touched(one, pins.length).includes(pin))?.text !== "")
        expect(edited.endsWith(eol)).toBe(text.endsWith(eol));
      let from = 0;
      const gone = touched(one, pins.length);
      const list = lines.filter(({ pin }) => pin === undefined || !gone.includes(pin));
      for (const { text: kept } of list.slice(1)) {
        const at = after.indexOf(kept, from);
        if (at < 0) throw new Error(`the line ${JSON.stringify(kept)} is gone from\n${edited}`);
        from = at + 1;
      }
      expect(after.length).toBeLessThanOrEqual(lines.length + 7);
    }),
    { numRuns: 300 },
  );
});
