import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { mkdir } from "node:fs/promises";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { ConfigProblem } from "../../src/config/relay-config.ts";
import {
  fileBytesMax,
  isSet,
  lineAt,
  lineOfKey,
  parseSource,
  readBounded,
  type ConfigNode,
} from "../../src/config/source.ts";
import { folderWith, shown } from "./support.ts";

function parse(text: string | Uint8Array): { root: ConfigNode | undefined; problems: string[] } {
  const problems: ConfigProblem[] = [];
  const root = parseSource("/f.yaml", Buffer.from(text), problems);
  return { root, problems: shown(problems, "") };
}

/** The tree as plain values, maps as lists of pairs. */
function plainOf(node: ConfigNode): unknown {
  switch (node.kind) {
    case "scalar":
      return node.value;
    case "list":
      return node.items.map(plainOf);
    case "map":
      return node.entries.map(({ key, value }) => [key, plainOf(value)]);
  }
}

describe("values", () => {
  it.each([
    ["a: yes", [["a", "yes"]]],
    ["a: on", [["a", "on"]]],
    ["a: true", [["a", true]]],
    ["a: '25'", [["a", "25"]]],
    ["a: 25", [["a", 25]]],
    ["a:", [["a", null]]],
    ["a: 2027-01-31", [["a", "2027-01-31"]]],
    ["a: 010", [["a", 10]]],
    ["a.b: 1", [["a.b", 1]]],
    ["2024: 1", [["2024", 1]]],
    ["true: 1", [["true", 1]]],
    ["__proto__: 1", [["__proto__", 1]]],
    ["constructor: { prototype: 1 }", [["constructor", [["prototype", 1]]]]],
    ["<<: { a: 1 }", [["<<", [["a", 1]]]]],
    [
      "a: &x [1]\nb: *x",
      [
        ["a", [1]],
        ["b", [1]],
      ],
    ],
    ["- 1\n- [2]", [1, [2]]],
    ["\u{feff}a: 1", [["a", 1]]],
    [
      "a: 1\r\nb: 2\r\n",
      [
        ["a", 1],
        ["b", 2],
      ],
    ],
  ])("reads %j", (text, expected) => {
    const { root, problems } = parse(text);
    expect(problems).toEqual([]);
    expect(root && plainOf(root)).toEqual(expected);
  });
});

describe("refusals", () => {
  const deep = (open: string, levels: number): string => open.repeat(levels);
  it.each([
    ["an empty file", "", "f.yaml: error: is empty"],
    ["a file of comments", "# nothing\n", "f.yaml: error: is empty"],
    ["a tab as indentation", "a:\n\tb: 1", "f.yaml:2: error: is not valid YAML: Tabs are not allowed"],
    ["a tab in a CRLF file", "a: 1\r\nb:\r\n\tc: 1", "f.yaml:3: error: is not valid YAML: Tabs are not allowed"],
    ["an open bracket", "a: 1\nb: [1,\n", "f.yaml:3: error: is not valid YAML: Flow sequence"],
    ["an open quote", 'a: "x\n', "f.yaml:2: error: is not valid YAML: Missing closing"],
    ["an unquoted @", "to: [@corp.example]", 'put it in quotes, as "@example.com"'],
    ["text with a colon", "a: b: c", "f.yaml:1: error: is not valid YAML: Nested mappings"],
    ["two documents", "a: 1\n---\nb: 2", "f.yaml:2: error: is not valid YAML: several documents in one file"],
    ["an unknown tag", "a: 1\nb: !!js/function x", "f.yaml:2: error: is not valid YAML: Unresolved tag"],
    ["a custom tag", "a: !env HOME", "f.yaml:1: error: is not valid YAML: Unresolved tag"],
    ["YAML 1.1, where yes is true", "%YAML 1.1\n---\na: yes", "f.yaml:1: error: asks for another version of YAML"],
    ["an unknown directive", "%FOO\n---\na: 1", "f.yaml:1: error: is not valid YAML: Unknown directive"],
    ["a list as a key", "? [a]\n: 1", "f.yaml:1: error: holds a key that is not plain text"],
    ["an empty key", "a:\n  : 1", "f.yaml:2: error: a: holds a key that is not plain text"],
    ["an alias of nothing", "a: 1\nb: *x", "f.yaml:2: error: b: is an alias, *x, without an anchor before it"],
    ["an alias within itself", "a: &x\n  - *x", "f.yaml:2: error: a[0]: is an alias, *x, that stands within itself"],
    ["101 aliases", `a: &x 1\nb: [${"*x, ".repeat(101)}]`, "f.yaml:2: error: b[100]: is one of more than 100 aliases"],
    ["brackets without end", deep("[", 900_000), "f.yaml: error: is nested more than 32 levels deep"],
    ["braces without end", deep("{", 900_000), "f.yaml: error: is nested more than 32 levels deep"],
    ["dashes without end", deep("- ", 450_000), "f.yaml: error: is nested more than 32 levels deep"],
    ["nested maps", Array.from({ length: 40 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"), "levels deep"],
    ["Latin-1", Buffer.from("a: 1\nb: caf\u00e9\n", "latin1"), "f.yaml:2: error: is not UTF-8: save it as UTF-8"],
    ["UTF-16", Buffer.from("\u{feff}a: 1\n", "utf16le"), "f.yaml:1: error: is not UTF-8"],
    ["a huge file", "#".repeat(fileBytesMax + 1), "f.yaml: error: is larger than 1 MiB"],
  ])("refuses %s", (_name, text, expected) => {
    const { root, problems } = parse(text);
    expect(root).toBeUndefined();
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(expected);
  });

  it("refuses aliases that multiply", () => {
    const levels = Array.from({ length: 9 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i}, `.repeat(9)}]`);
    const { root, problems } = parse(`l0: &l0 [${"x, ".repeat(9)}]\n${levels.join("\n")}`);
    expect(root).toBeUndefined();
    expect(problems).toEqual(["f.yaml: error: its aliases multiply it beyond any use: write out what is meant"]);
  });

  it("names every key that is given twice, and keeps the first", () => {
    const { root, problems } = parse('a: 1\nb: { c: 1, d: 2, c: 3 }\n"a": 2\nx.y: 1\nx.y: 2\n');
    expect(problems).toEqual([
      "f.yaml:2: error: b.c: is given twice, first in line 2: remove one of them",
      "f.yaml:3: error: a: is given twice, first in line 1: remove one of them",
      'f.yaml:5: error: ["x.y"]: is given twice, first in line 4: remove one of them',
    ]);
    expect(root && plainOf(root)).toEqual([
      ["a", 1],
      [
        "b",
        [
          ["c", 1],
          ["d", 2],
        ],
      ],
      ["x.y", 1],
    ]);
  });

  it("reads a map of many keys in passing", () => {
    const text = Array.from({ length: 60_000 }, (_, i) => `k${i}: 1`).join("\n");
    expect(parse(text).problems).toEqual([]);
  });

  it("never throws, whatever the bytes are", () => {
    const piece = fc.constantFrom(
      "a",
      ": ",
      "\n",
      "  ",
      "- ",
      "[",
      "]",
      "{",
      "}",
      "&x ",
      "*x",
      "!t ",
      '"',
      "'",
      "|",
      "#",
    );
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.array(piece).map((pieces) => pieces.join("")),
    );
    fc.assert(
      fc.property(text, (written) => {
        const { root, problems } = parse(written);
        expect(root !== undefined || problems.length > 0).toBe(true);
        for (const problem of problems) expect(problem).not.toMatch(/\n/);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("lines", () => {
  const { root } = parse(`a: 1
b:
  - x
  - { c: 1, d:
      2 }
  -
    c: 3
e:
f: >
  folded
`);
  it.each([
    [["a"], 1],
    [["b"], 2],
    [["b", 0], 3],
    [["b", 1, "c"], 4],
    [["b", 1, "d"], 5],
    [["b", 1, "missing"], 4],
    [["b", 2], 7],
    [["b", 2, "c"], 7],
    [["b", 9], 2],
    [["e"], 8],
    [["f"], 9],
    [["missing"], 1],
    [["missing", "below"], 1],
    [[], 1],
  ])("finds %j in line %i", (path, line) => {
    expect(root && lineAt(root, path)).toBe(line);
  });

  it("tells a key's line from its value's", () => {
    expect(root && lineOfKey(root, ["b", 1, "d"])).toBe(4);
  });

  it.each([
    [["b", 1, "d"], true],
    [["e"], true],
    [["b", 3], false],
    [["constructor"], false],
    [["a", "length"], false],
  ])("knows whether %j is set: %s", (path, expected) => {
    expect(root && isSet(root, path)).toBe(expected);
  });
});

describe("readBounded", () => {
  it("refuses what is not there, folders, pipes, devices and huge files", async () => {
    const folder = await folderWith({ huge: Buffer.alloc(fileBytesMax + 1), exact: Buffer.alloc(fileBytesMax) });
    await mkdir(join(folder, "folder"));
    const pipeMade = spawnSync("mkfifo", [join(folder, "pipe")]).status === 0; // where there is such a command
    const fault = async (file: string): Promise<unknown> => {
      const read = await readBounded(join(folder, file));
      return "fault" in read ? read.fault : read.length;
    };
    expect(await fault("missing")).toBe("does not exist");
    expect(await fault("exact/below")).toBe("is not in a folder");
    expect(await fault("folder")).toBe("is a folder");
    if (pipeMade) expect(await fault("pipe")).toBe("is not a regular file");
    expect(await fault("/../../../../../../dev/zero")).toBe("is not a regular file");
    expect(await fault("huge")).toContain("is larger than 1 MiB");
    expect(await fault("exact")).toBe(fileBytesMax);
  });
});
