/** Edits of a partner's text: the change is made, and nothing else is, however the file is written. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { editPartnerText, EditRefusal } from "../../src/config/partner-edit-text.ts";
import type { PartnerEdit } from "../../src/config/partner-edit.ts";
import type { Digest } from "../../src/partner/pin.ts";

const digestOf = (text: string): Digest => `sha256/${createHash("sha256").update(text).digest("base64")}`;
const added = digestOf("added");
const add: PartnerEdit = { kind: "addPin", pin: { spki: added, state: "pending", label: "2027" }, comment: "by alice" };
const line = `{ spki: "${added}", state: pending, label: "2027" }`;
const remove = (index: number): PartnerEdit => ({ kind: "removePin", index });
const set = (index: number, keys: Extract<PartnerEdit, { kind: "setPinKeys" }>["keys"]): PartnerEdit => ({
  kind: "setPinKeys",
  index,
  keys,
});
const usage: PartnerEdit = { kind: "setKey", key: "extended-key-usage", value: "any" };

const inLines = `# ACME, since 2019
hosts: [192.0.2.1]   # their only one

pins:
  # The old key:
  - { spki: a, label: "2026" } # until June
  # One certificate:
  - { certificate: 'b', not-after: 2036-01-31 }
  # Or by their CA:
  # - { trust-anchor: acme.pem, name: mx.acme.example }

# What they may send.
allow: { to: [ "@corp.example" ] }
`;
const tall = `pins:
- label: old   # why
  spki: a\t# a tab before this
    # more about a

  # about b
- spki: b
  state: >-
    pending

allow: x`;
const flowLines = `pins: [
    { spki: a }, # the first
    {
      spki: b,
      "label": 'it''s', # a label
    },
  ]
allow: x
`;
const flowLinesWithoutComma = `pins: [
  { spki: a }, # the first
  { spki: b }  # the second
]
`;
const oneLine = `{"pins": [{"spki": "a", "label": "x"},{"spki": "b"}], "hosts": []}`;

describe("an edit", () => {
  it.each<[string, string, readonly PartnerEdit[], readonly [string, string]]>([
    // In a list with a dash a line.
    ["adds a pin behind the last one", inLines, [add], ["2036-01-31 }\n", `2036-01-31 }\n  - ${line} # by alice\n`]],
    [
      "adds an anchor",
      inLines,
      [{ kind: "addPin", pin: { trustAnchor: "ca.pem", name: "mx.example", revocationLists: ["a.crl", "b.crl"] } }],
      [
        "2036-01-31 }\n",
        `2036-01-31 }\n  - { trust-anchor: "ca.pem", name: "mx.example", revocation-list: ["a.crl","b.crl"] }\n`,
      ],
    ],
    [
      "removes a pin with the comment in its line",
      inLines,
      [remove(0)],
      ['  - { spki: a, label: "2026" } # until June\n', ""],
    ],
    [
      "removes the last pin of the list",
      inLines,
      [remove(1)],
      ["  - { certificate: 'b', not-after: 2036-01-31 }\n", ""],
    ],
    ["sets a key", inLines, [set(0, { label: "2027" })], ['label: "2026"', 'label: "2027"']],
    ["adds a key", inLines, [set(0, { state: "next" })], ['"2026" }', '"2026", state: next }']],
    ["removes a key", inLines, [set(0, { label: undefined })], [', label: "2026" }', " }"]],
    ["sets a date without quotes", inLines, [set(1, { "not-after": "2030-01-01" })], ["2036-01-31", "2030-01-01"]],
    [
      "adds a date",
      inLines,
      [set(0, { "not-before": "2030-01-01" })],
      ['"2026" }', '"2026", not-before: "2030-01-01" }'],
    ],
    [
      "sets a key of the file that is new",
      inLines,
      [usage],
      ["acme.example }\n", "acme.example }\nextended-key-usage: any\n"],
    ],
    [
      "sets a key of the file that is there",
      `${inLines}extended-key-usage: "clientAuth" # ours\n`,
      [usage],
      ['"clientAuth"', '"any"'],
    ],
    ["changes nothing where all is so already", inLines, [set(0, { label: "2026", state: undefined })], ["", ""]],
    // With a key a line.
    ["removes the key beside the dash", tall, [set(0, { label: undefined })], ["label: old   # why\n  ", ""]],
    [
      "adds a key below the comments of its pin",
      tall,
      [set(0, { state: "next" })],
      ["about a\n", "about a\n  state: next\n"],
    ],
    ["replaces a block of text", tall, [set(1, { state: "active" })], [">-\n    pending\n", '"active"\n']],
    ["removes a block of text", tall, [set(1, { state: undefined })], ["  state: >-\n    pending\n", ""]],
    [
      "adds a pin as the last one is written",
      tall,
      [add],
      ["    pending\n", `    pending\n- spki: "${added}" # by alice\n  state: pending\n  label: "2027"\n`],
    ],
    [
      "removes a pin of several lines",
      tall,
      [remove(0)],
      ["- label: old   # why\n  spki: a\t# a tab before this\n", ""],
    ],
    [
      "adds a line behind a last one without an end",
      "pins:\n  - { spki: a }",
      [add],
      ["a }", `a }\n  - ${line} # by alice`],
    ],
    [
      "removes a last line without an end",
      "pins:\n  - { spki: a }\n  - { spki: b }",
      [remove(1)],
      ["\n  - { spki: b }", ""],
    ],
    [
      "leaves a dash where comments follow it",
      "pins:\n  - label: x\n    # why\n    spki: a\n",
      [set(0, { label: undefined })],
      [" label: x\n", "\n"],
    ],
    [
      "gives an empty key a value",
      "pins:\n  - label: # none\n    spki: a\n",
      [set(0, { label: "x" })],
      ["label:", 'label: "x"'],
    ],
    [
      "removes a key with a question mark",
      "pins:\n  - spki: a\n    ? label\n    : x\n",
      [set(0, { label: undefined })],
      ["    ? label\n    : x\n", ""],
    ],
    // In brackets over several lines.
    ["adds a pin in brackets", flowLines, [add], ["    },\n", `    },\n    ${line}, # by alice\n`]],
    ["removes a pin in brackets", flowLines, [remove(0)], ["    { spki: a }, # the first\n", ""]],
    [
      "removes a pin of several lines in brackets",
      flowLines,
      [remove(1)],
      ["    {\n      spki: b,\n      \"label\": 'it''s', # a label\n    },\n", ""],
    ],
    ["sets a key in single quotes", flowLines, [set(1, { label: "that's" })], ["it''s", "that''s"]],
    [
      "adds a key in brackets",
      flowLines,
      [set(1, { state: "next" })],
      ["# a label\n", "# a label\n      state: next,\n"],
    ],
    [
      "removes a key in brackets",
      flowLines,
      [set(1, { label: undefined })],
      ["      \"label\": 'it''s', # a label\n", ""],
    ],
    [
      "adds the comma that is missing",
      flowLinesWithoutComma,
      [add],
      ["b }  # the second\n", `b },  # the second\n  ${line} # by alice\n`],
    ],
    ["leaves a comma before the bracket", flowLinesWithoutComma, [remove(1)], ["  { spki: b }  # the second\n", ""]],
    // In one line.
    ["adds a pin in a line", oneLine, [add], ['{"spki": "b"}', `{"spki": "b"}, ${line}`]],
    ["removes the first pin in a line", oneLine, [remove(0)], ['{"spki": "a", "label": "x"},', ""]],
    ["removes the last pin in a line", oneLine, [remove(1)], [',{"spki": "b"}', ""]],
    ["sets a key in a line", oneLine, [set(0, { label: "y" })], ['"x"', '"y"']],
    ["removes a key in a line", oneLine, [set(0, { label: undefined })], [', "label": "x"', ""]],
    ["sets a key of the file in a line", oneLine, [usage], ["], ", "], extended-key-usage: any, "]],
  ])("%s", (_name, text, edits, [before, after]) => {
    for (const spelled of [text, text.replaceAll("\n", "\r\n"), `\uFEFF${text}`]) {
      const eol = spelled.includes("\r") ? "\r\n" : "\n";
      const [from, to] = [before.replaceAll("\n", eol), after.replaceAll("\n", eol)];
      expect(spelled.split(from).length).toBe(before === "" ? spelled.length : 2); // the row itself is not ambiguous
      expect(editPartnerText(spelled, edits)).toBe(spelled.replace(from, () => to));
    }
  });

  it.each(["acme", "globex"])("adds one line to the example %s and takes it away again", async (name) => {
    const text = await readFile(join(import.meta.dirname, `../../config/partners/${name}.yaml`), "utf8");
    const edited = editPartnerText(text, [add]);
    const [lines, editedLines] = [text.split("\n"), edited.split("\n")];
    const at = editedLines.indexOf(`  - ${line} # by alice`);
    expect(editedLines.toSpliced(at, 1)).toEqual(lines);
    const pins = lines.filter((one) => /^ {2}- \{ (?:spki|certificate):/.test(one)).length;
    expect(editPartnerText(edited, [remove(pins)])).toBe(text);
  });

  it("counts pins as they were, whatever other edits stand beside it", () => {
    const text = ["a", "b", "c", "d"].map((pin) => `  - { spki: ${pin} }\n`).join("");
    const edits = [remove(0), add, set(1, { label: "x" }), remove(2), remove(0), set(3, { state: "next" })];
    expect(editPartnerText(`pins:\n${text}`, edits)).toBe(
      `pins:\n  - { spki: b, label: "x" }\n  - { spki: d, state: next }\n  - ${line} # by alice\n`,
    );
  });

  it("puts a comment in one line, whatever it holds", () => {
    const edited = editPartnerText(inLines, [{ ...add, comment: "a\nhosts: [any]\u202e" }]);
    expect(edited).toContain(`${line} # a\\u{a}hosts: [any]\\u{202e}\n`);
  });

  it.each<[string, string, readonly PartnerEdit[], string]>([
    ["the last pin", "pins: [{ spki: a }]", [remove(0)], "pins[0]: is the last pin"],
    ["all pins", inLines, [remove(0), remove(1)], "is the last pin"],
    ["a pin that is not there", inLines, [remove(2)], "pins[2]: is not there"],
    ["a key of a pin that is not there", inLines, [set(2, { state: "next" })], "pins[2].state: is not there"],
    ["a file without pins", "hosts: []", [add], "pins: is no list"],
    ["pins that are no list", "pins: { spki: a }", [add], "pins: is no list"],
    ["an empty list", "pins: []", [add], "pins: is written in a way"],
    ["a list of keys", "- a", [add], "the file holds no map"],
    ["a shared list", "pins: &p\n  - { spki: a }\nother: *p\n", [add], "pins: is shared by an anchor"],
    ["a list by alias", "other: &p\n  - { spki: a }\npins: *p\n", [add], "pins: is shared by an anchor"],
    ["a shared pin", "pins:\n  - &p { spki: a }\n  - { spki: b }\n", [set(0, { state: "next" })], "pins[0]: is shared"],
    ["a pin by alias", "x: &p { spki: a }\npins:\n  - *p\n", [set(0, { state: "next" })], "pins[0]: is shared"],
    ["to remove a shared pin", "pins:\n  - &p { spki: a }\n  - { spki: b }\n", [remove(0)], "pins[0]: is shared"],
    ["to remove what a pin shares", "pins:\n  - { spki: &d a }\n  - { spki: b }\n", [remove(0)], "pins[0]: is shared"],
    ["a shared value", "pins:\n  - { spki: a, label: &l x }\n", [set(0, { label: "y" })], "pins[0].label: is shared"],
    [
      "a value by alias",
      "x: &l y\npins:\n  - { spki: a, label: *l }\n",
      [set(0, { label: "z" })],
      "[0].label: is shared",
    ],
    [
      "a pin without braces in brackets",
      "pins: [spki: a, spki: b]",
      [set(0, { label: "x" })],
      "pins[0].label: is written",
    ],
  ])("refuses %s", (_name, text, edits, expected) => {
    expect(() => editPartnerText(text, edits)).toThrow(EditRefusal);
    expect(() => editPartnerText(text, edits)).toThrow(expected);
  });
});
