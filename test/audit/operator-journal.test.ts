/** The operators' journal: each action is one line, durable, apart from all others, and a torn one is nobody else's loss. */
import { appendFile, chmod, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import {
  operatorJournalFile,
  readActions,
  recordAction,
  recordBytesMax,
  whoAmI,
  type OperatorAction,
} from "../../src/audit/operator-journal.ts";

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "pinrelay-audit-"));
  folders.push(folder);
  return folder;
}

const action: OperatorAction = {
  at: new Date("2026-06-15T12:00:00.000Z"),
  who: "alice",
  action: "partner confirm",
  partner: "acme",
  pin: "spki sha256/n6ihd5yEzgqYBDoWNFyUKjXTfEufz7vQEX52WoG7/n4=",
  how: "24 words",
  details: { file: "partners/acme.yaml", pins: 2, reloaded: true, hosts: ["192.0.2.1"] },
};

describe("recordAction", () => {
  it("writes one line that is read back as it was", async () => {
    const path = await newFolder();
    await recordAction(path, action);
    await recordAction(path, { at: action.at, who: "bob", action: "partner revoke" });
    expect(await readActions(path)).toEqual([action, { at: action.at, who: "bob", action: "partner revoke" }]);
    const lines = (await readFile(operatorJournalFile(path), "utf8")).split("\n");
    expect(lines).toHaveLength(3);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ at: "2026-06-15T12:00:00.000Z", who: "alice", partner: "acme" });
  });

  it("makes the folder and the file for their owner alone", async () => {
    const path = join(await newFolder(), "var/audit");
    await recordAction(path, action);
    expect((await stat(path)).mode & 0o777).toBe(0o700);
    expect((await stat(operatorJournalFile(path))).mode & 0o777).toBe(0o600);
  });

  it("leaves the folder as the operator made it", async () => {
    const path = await newFolder();
    await chmod(path, 0o750);
    await recordAction(path, action);
    expect((await stat(path)).mode & 0o777).toBe(0o750);
  });

  it.each([
    ["in the middle of a line", '{"at":"2026-06-15T12:00:00.000Z","who":"al'],
    ["right before its line feed", JSON.stringify({ at: "2026-06-15T11:00:00.000Z", who: "bob", action: "x" })],
    ["in the middle of a character", Buffer.from('{"who":"é').subarray(0, -1)],
    ["with zeros, as some file systems leave them", "\0\0\0\0"],
  ])("starts a line of its own behind one that a crash has torn %s", async (_name, torn) => {
    const path = await newFolder();
    await recordAction(path, { ...action, who: "first" });
    await appendFile(operatorJournalFile(path), torn);
    await recordAction(path, { ...action, who: "second" });
    await recordAction(path, { ...action, who: "third" });
    const names = (await readActions(path)).map(({ who }) => who).filter((who) => who !== "bob");
    expect(names).toEqual(["first", "second", "third"]);
  });

  it("keeps all lines of writers at the same time whole", async () => {
    const path = await newFolder();
    const writers = Array.from({ length: 40 }, async (_, index) =>
      recordAction(path, { ...action, who: `writer ${index}`, details: { text: "x".repeat(index * 20) } }),
    );
    await Promise.all(writers);
    const seen = await readActions(path);
    expect(new Set(seen.map(({ who }) => who)).size).toBe(40);
    expect((await readFile(operatorJournalFile(path), "utf8")).trimEnd().split("\n")).toHaveLength(40);
  });

  it("lets several make the folder at the same time", async () => {
    const path = join(await newFolder(), "var/audit");
    await Promise.all(Array.from({ length: 10 }, async () => recordAction(path, action)));
    expect(await readActions(path)).toHaveLength(10);
  });

  it("follows no symbolic link", async () => {
    const path = await newFolder();
    await writeFile(join(path, "victim"), "");
    await symlink("victim", operatorJournalFile(path));
    await expect(recordAction(path, action)).rejects.toThrow("ELOOP");
    expect(await readFile(join(path, "victim"), "utf8")).toBe("");
  });

  it("escapes what could forge a line or move a terminal's cursor, and reads it back", async () => {
    const path = await newFolder();
    const evil = 'a\n{"who":"root"}\u001b[2J\u007f\u0085\u2028\u202e\u{e0001}"\\\ud800';
    await recordAction(path, { ...action, who: evil, details: { [evil]: evil, subject: [evil] } });
    const text = await readFile(operatorJournalFile(path), "utf8");
    expect(text.slice(0, -1)).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    expect((await readActions(path))[0]).toMatchObject({ who: evil, details: { [evil]: evil, subject: [evil] } });
  });

  it("bounds a line, whatever it is told", async () => {
    const path = await newFolder();
    const long = "\u001b".repeat(50_000);
    const subjects = Array.from({ length: 1000 }, () => long);
    await recordAction(path, {
      at: action.at,
      who: long,
      action: long,
      partner: long,
      pin: long,
      how: long,
      details: { subjects, [long]: long },
    });
    await recordAction(path, { ...action, details: { subjects: ["a".repeat(5000)] } });
    const [first, second] = await readActions(path);
    expect((await readFile(operatorJournalFile(path), "utf8")).indexOf("\n")).toBeLessThan(recordBytesMax);
    expect(first).toMatchObject({ who: `${"\u001b".repeat(500)}…`, details: { omitted: "too long" } });
    expect(second?.details).toEqual({ subjects: [`${"a".repeat(500)}…`] });
  });

  it("reads back any text", async () => {
    const path = await newFolder();
    const text = fc.string({ unit: "binary", maxLength: 100 });
    await fc.assert(
      fc.asyncProperty(text, text, async (who, how) => {
        await recordAction(path, { ...action, who, how });
        expect((await readActions(path)).at(-1)).toEqual({ ...action, who, how });
      }),
      { numRuns: 30 },
    );
  });
});

describe("readActions", () => {
  it("finds none where nothing was recorded", async () => {
    expect(await readActions(join(await newFolder(), "gone"))).toEqual([]);
  });

  it("passes over what is no action", async () => {
    const path = await newFolder();
    const stranger = ['{"who":"x"}', "[]", "null", "12", '{"at":"soon","who":"x","action":"y"}', "", "{", "\u0000"];
    await writeFile(operatorJournalFile(path), `${stranger.join("\n")}\n`);
    await recordAction(path, action);
    expect(await readActions(path)).toEqual([action]);
  });

  it("fails where the journal cannot be read", async () => {
    const path = await newFolder();
    await writeFile(join(path, "file"), "");
    await expect(readActions(join(path, "file"))).rejects.toThrow("ENOTDIR");
  });
});

describe("whoAmI", () => {
  it("is whoever typed sudo", () => {
    expect(whoAmI({ SUDO_USER: "alice" })).toBe("alice");
  });

  it("is the user otherwise", () => {
    expect(whoAmI({})).toBe(userInfo().username);
    expect(whoAmI({ SUDO_USER: "" })).toBe(userInfo().username);
  });
});
