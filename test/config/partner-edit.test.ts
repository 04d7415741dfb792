/** Edits of a partner's file: all of an edit or nothing, valid beside the others, and never over somebody else's edit. */
import { spawnSync } from "node:child_process";
import { appendFileSync, chmodSync, copyFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { chmod, chown, lstat, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { editPartnerFile, type EditOptions, type PartnerEdit } from "../../src/config/partner-edit.ts";
import { PartnerFileError } from "../../src/config/partner-file.ts";
import { authority, configFiles, digests, folderWith, loaded, now, partnerYaml, shown } from "./support.ts";

const acmeYaml = `# ACME\r
hosts: [203.0.113.1]   # one\r
pins:\r
  - { spki: "${digests[1]}" } # the old one\r
  - { certificate: ${digests[1]}, not-after: 2026-01-31 }\r
allow: { from: ["@acme.example"], to: ["@corp.example"] }`;

const add: PartnerEdit = { kind: "addPin", pin: { spki: digests[2], state: "pending", notBefore: "2026-06-15" } };
const revoke: PartnerEdit = { kind: "setPinKeys", index: 0, keys: { state: "revoked" } };

/** A folder with the partner `acme`, and its file. */
async function acme(changed: Readonly<Record<string, string | Uint8Array>> = {}) {
  const folder = await folderWith(configFiles({ "partners/acme.yaml": acmeYaml, ...changed }));
  return { folder, partners: join(folder, "partners"), file: join(folder, "partners/acme.yaml") };
}

/** Why an edit was refused; the file must be as it was, and nothing else may lie about. */
async function refusal(
  file: string,
  edits: readonly PartnerEdit[],
  options: Partial<EditOptions> = {},
  after?: string,
): Promise<string> {
  const before = after ?? (await readFile(file, "utf8").catch(() => undefined));
  const names = await readdir(join(file, ".."));
  const failure: unknown = await editPartnerFile(file, edits, { now, ...options }).catch((error: unknown) => error);
  if (!(failure instanceof PartnerFileError)) throw new Error("was not refused", { cause: failure });
  expect(failure.message).not.toMatch(/[\n\r]/);
  expect(failure.message).toContain(file);
  expect(await readFile(file, "utf8").catch(() => undefined)).toBe(before);
  expect(await readdir(join(file, ".."))).toEqual(names);
  return failure.message.replace(file, "FILE");
}

describe("editPartnerFile", () => {
  it("makes its edits and leaves all else to the byte", async () => {
    const { folder, file, partners } = await acme();
    await editPartnerFile(file, [add, revoke, { kind: "removePin", index: 1 }], { now });
    expect(await readFile(file, "utf8")).toBe(`# ACME\r
hosts: [203.0.113.1]   # one\r
pins:\r
  - { spki: "${digests[1]}", state: revoked } # the old one\r
  - { spki: "${digests[2]}", state: pending, not-before: "2026-06-15" }\r
allow: { from: ["@acme.example"], to: ["@corp.example"] }`);
    const result = await loadConfig(join(folder, "relay.yaml"), now);
    if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
    expect(result.config.partners[0]?.pins).toMatchObject([{ state: "revoked" }, { state: "pending" }]);
    expect(await readdir(partners)).toEqual(["acme.yaml"]);
  });

  it.skipIf(process.getuid?.() !== 0)("keeps the owner and the mode of the file", async () => {
    const { file } = await acme();
    await chown(file, 12, 34);
    await chmod(file, 0o640);
    await editPartnerFile(file, [revoke], { now });
    expect(await stat(file)).toMatchObject({ uid: 12, gid: 34 });
    expect((await stat(file)).mode & 0o7777).toBe(0o640);
  });

  it("edits what a symbolic link leads to, judged from where the link stands", async () => {
    const { folder, file, partners } = await acme({ "shared/acme-of-all.yaml": acmeYaml, "ca.pem": authority.pem });
    rmSync(file);
    await symlink("../shared/acme-of-all.yaml", file);
    const anchor = { trustAnchor: "../ca.pem", name: "mx.acme.example" };
    await editPartnerFile(file, [{ kind: "addPin", pin: anchor }], { now });
    expect((await lstat(file)).isSymbolicLink()).toBe(true);
    expect(await readFile(join(folder, "shared/acme-of-all.yaml"), "utf8")).toContain('trust-anchor: "../ca.pem"');
    expect([await readdir(partners), await readdir(join(folder, "shared"))]).toEqual([
      ["acme.yaml"],
      ["acme-of-all.yaml"],
    ]);
  });

  it("writes nothing where nothing changes", async () => {
    const { file } = await acme();
    const before = await stat(file);
    await editPartnerFile(file, [{ kind: "setPinKeys", index: 0, keys: { state: undefined } }], { now });
    await editPartnerFile(file, [], { now });
    expect(await stat(file)).toMatchObject({ ino: before.ino, mtimeMs: before.mtimeMs });
  });

  it("is not kept from it by a pin whose end is past, nor by what is wrong with another file", async () => {
    const { file } = await acme({ "partners/broken.yaml": "[" });
    await editPartnerFile(file, [revoke], { now });
    expect(await readFile(file, "utf8")).toContain("revoked");
  });

  it("mends a file that is not valid, where the edit is what mends it", async () => {
    const { file } = await acme({ "partners/globex.yaml": partnerYaml("", digests[1]) });
    await editPartnerFile(file, [{ kind: "removePin", index: 0 }], { now });
    expect(await readFile(file, "utf8")).not.toContain("spki");
  });

  it.each<[string, PartnerEdit, string]>([
    [
      "a pin of another partner",
      { kind: "addPin", pin: { spki: digests[0] } },
      "FILE:6: pins[2].spki: is a pin of another",
    ],
    ["a pin that is there", { kind: "addPin", pin: { spki: digests[1] } }, "is the same pin as pins[0].spki in line 4"],
    ["a pin that is none", { kind: "addPin", pin: { spki: "sha256/x" } }, "FILE:6: pins[2].spki: must be sha256/"],
    [
      "a new pin of the past",
      { kind: "addPin", pin: { spki: digests[2], notAfter: "2026-06-14" } },
      "pins[2].not-after: is past",
    ],
    [
      "an end that is past",
      { kind: "setPinKeys", index: 0, keys: { "not-after": "2026-06-14" } },
      "pins[0].not-after: is past",
    ],
    ["a state that is none", { kind: "setPinKeys", index: 0, keys: { state: "dead" } }, "pins[0].state: must be"],
    ["a day that is none", { kind: "setPinKeys", index: 0, keys: { "not-before": "2026-02-30" } }, "must be a date"],
    [
      "a label of two lines",
      { kind: "setPinKeys", index: 0, keys: { label: "a\nb" } },
      "pins[0].label: must be one line",
    ],
    [
      "a usage that is none",
      { kind: "setKey", key: "extended-key-usage", value: "x: y" },
      "extended-key-usage: must be",
    ],
    [
      "a trust anchor that is not there",
      { kind: "addPin", pin: { trustAnchor: "no.pem", name: "a.example" } },
      "no.pem does not exist",
    ],
    ["a pin that is not there", { kind: "removePin", index: 2 }, "FILE: pins[2]: is not there"],
  ])("refuses %s", async (_name, edit, expected) => {
    const { file } = await acme({ "partners/globex.yaml": partnerYaml("", digests[0]) });
    expect(await refusal(file, [edit])).toContain(expected);
  });

  it.each<[string, string | Uint8Array, string]>([
    ["is no YAML", "pins: [", "FILE:1: is not valid YAML"],
    ["has a key twice", `${acmeYaml}\nhosts: []`, "FILE:7: hosts: is given twice, first in line 2"],
    ["is not UTF-8", Buffer.from("# \xe4\n", "latin1"), "FILE:1: is not UTF-8"],
    ["is empty", "", "FILE: is empty"],
    ["is too large", "#".repeat(1024 * 1024 + 1), "FILE is larger than 1 MiB"],
    ["is shared by anchors", "a: &a\n  - { spki: x }\npins: *a\n", "FILE: pins: is shared by an anchor"],
    ["is wrong elsewhere", acmeYaml.replace("203.0.113.1", "mx"), "FILE:2: hosts[0]: must be an address"],
  ])("refuses a file that %s", async (_name, content, expected) => {
    const { file } = await acme({ "partners/acme.yaml": content });
    expect(await refusal(file, [revoke])).toContain(expected);
  });

  it("refuses a file that is not there, and a folder", async () => {
    const { folder } = await acme();
    expect(await refusal(join(folder, "partners/none.yaml"), [revoke])).toBe("FILE does not exist");
    expect(await refusal(join(folder, "partners"), [revoke])).toContain("FILE is a folder");
  });

  it.each<[string, (file: string) => void, string]>([
    ["was added to", (file) => appendFileSync(file, " # mine"), `${acmeYaml} # mine`],
    [
      "was written again, with the same length",
      (file) => writeFileSync(file, acmeYaml.replace("ACME", "acme")),
      acmeYaml.replace("ACME", "acme"),
    ],
    [
      "was replaced by a copy",
      (file) => [copyFileSync(file, `${file}.new`), renameSync(`${file}.new`, file)],
      acmeYaml,
    ],
    ["got another mode", (file) => chmodSync(file, 0o604), acmeYaml],
    [
      "became a link",
      (file) => [renameSync(file, join(file, "../../moved.yaml")), symlinkSync("../moved.yaml", file)],
      acmeYaml,
    ],
  ])("refuses a file that %s after it was read", async (_name, meddle, after) => {
    const { file } = await acme();
    // The edit is looked at when the file has been read, and before it is replaced.
    const edit: PartnerEdit = {
      kind: "addPin",
      get pin() {
        if (!isDone) meddle(file);
        isDone = true;
        return { spki: digests[2] };
      },
    };
    let isDone = false;
    expect(await refusal(file, [edit], {}, after)).toBe("FILE was edited in between: look at it and try again");
  });

  it("refuses a file whose pins are no longer those that were looked at", async () => {
    const { folder, config } = await loaded({ "partners/acme.yaml": acmeYaml });
    const file = join(folder, "partners/acme.yaml");
    const expected = config.partners[0];
    await writeFile(file, acmeYaml.replace("spki:", "state: pending, spki:"));
    const inBetween = "FILE was edited in between: look at it and try again";
    expect(await refusal(file, [revoke], { expected })).toBe(inBetween);
    await writeFile(file, "pins: [");
    expect(await refusal(file, [revoke], { expected })).toBe(inBetween);
    await writeFile(file, `# a comment is no matter\n${acmeYaml}`);
    await editPartnerFile(file, [revoke], { now, expected });
    expect(await readFile(file, "utf8")).toContain("revoked");
  });

  it("lets commands at the same time take turns", async () => {
    const { file, partners } = await acme();
    const edits = Array.from({ length: 8 }, (_, index): PartnerEdit => {
      return {
        kind: "addPin",
        pin: { spki: `sha256/${Buffer.alloc(32, index).toString("base64")}`, label: `${index}` },
      };
    });
    await Promise.all(edits.map(async (edit) => editPartnerFile(file, [edit], { now })));
    const text = await readFile(file, "utf8");
    for (const index of edits.keys()) expect(text).toContain(`label: "${index}"`);
    expect(await readdir(partners)).toEqual(["acme.yaml"]);
  });

  it("waits for another command, and gives up in the end", async () => {
    const { file, partners } = await acme();
    await writeFile(join(partners, ".acme.yaml.lock"), `${process.pid} 0123456789abcdef\n`);
    const expected = `FILE is being edited by process ${process.pid}: try again, or remove ${join(partners, ".acme.yaml.lock")}`;
    expect(await refusal(file, [revoke], { patienceMs: 60 })).toContain(expected);
    const waiting = editPartnerFile(file, [revoke], { now });
    rmSync(join(partners, ".acme.yaml.lock"));
    await waiting;
    expect(await readFile(file, "utf8")).toContain("revoked");
  });

  it.each([
    ["of a dead process", `${spawnSync("true").pid} 0123456789abcdef\n`],
    ["of nobody", ""],
    ["of something else", "-1 \u0000\n"],
  ])("takes over a lock %s", async (_name, content) => {
    const { file, partners } = await acme();
    await writeFile(join(partners, ".acme.yaml.lock"), content);
    await Promise.all([editPartnerFile(file, [revoke], { now }), editPartnerFile(file, [add], { now })]);
    expect(await readFile(file, "utf8")).toMatch(/revoked[^]*pending/);
    expect(await readdir(partners)).toEqual(["acme.yaml"]);
  });

  it("leaves a lock that is a folder alone", async () => {
    const { file } = await acme({ "partners/.acme.yaml.lock/x": "" });
    expect(await refusal(file, [revoke])).toContain("FILE cannot be changed");
  });
});
