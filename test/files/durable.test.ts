import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { syncDirectory, writeFileDurably } from "../../src/files/durable.ts";
import { temporaryFolder } from "../spool/tools.ts";

describe("writeFileDurably", () => {
  it("writes a file with the mode that was asked for, whatever the umask", async () => {
    const file = join(await temporaryFolder(), "a");
    const umask = process.umask(0o077);
    await writeFileDurably(file, "text", 0o644);
    process.umask(umask);
    expect(await readFile(file, "utf8")).toBe("text");
    expect((await stat(file)).mode & 0o777).toBe(0o644);
  });

  it("replaces a file as a whole, and leaves nothing beside it", async () => {
    const folder = await temporaryFolder();
    await writeFileDurably(join(folder, "a"), "one", 0o600);
    await writeFileDurably(join(folder, "a"), "two", 0o600);
    expect(await readFile(join(folder, "a"), "utf8")).toBe("two");
    expect(await readdir(folder)).toEqual(["a"]);
  });

  it("leaves an existing file as it is when it is to refuse, and nothing beside it", async () => {
    const folder = await temporaryFolder();
    await writeFileDurably(join(folder, "a"), "one", 0o600, "refuse");
    await expect(writeFileDurably(join(folder, "a"), "two", 0o600, "refuse")).rejects.toMatchObject({ code: "EEXIST" });
    expect(await readFile(join(folder, "a"), "utf8")).toBe("one");
    expect(await readdir(folder)).toEqual(["a"]);
  });

  it("leaves an existing file as it is where it is not allowed to replace it, and nothing beside it", async () => {
    const folder = await temporaryFolder();
    await writeFileDurably(join(folder, "a"), "one", 0o600);
    const allow = async (): Promise<void> => {
      expect(await readFile(join(folder, "a"), "utf8")).toBe("one");
      throw new Error("not now");
    };
    await expect(writeFileDurably(join(folder, "a"), "two", 0o600, "replace", { allow })).rejects.toThrow("not now");
    expect(await readFile(join(folder, "a"), "utf8")).toBe("one");
    expect(await readdir(folder)).toEqual(["a"]);
  });

  it.skipIf(process.getuid?.() !== 0)("gives a new file to whom it shall belong, with the whole mode", async () => {
    const file = join(await temporaryFolder(), "a");
    await writeFileDurably(file, "text", 0o2640, "replace", { owner: { uid: 12, gid: 34 } });
    expect(await stat(file)).toMatchObject({ uid: 12, gid: 34 });
    expect((await stat(file)).mode & 0o7777).toBe(0o2640);
  });

  it("replaces a link, and does not write through it", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "target"), "kept");
    await symlink(join(folder, "target"), join(folder, "a"));
    await writeFileDurably(join(folder, "a"), "new", 0o600);
    expect(await readFile(join(folder, "target"), "utf8")).toBe("kept");
  });

  it("fails and leaves nothing where it cannot be written", async () => {
    const folder = await temporaryFolder();
    await expect(writeFileDurably(join(folder, "none", "a"), "x", 0o600)).rejects.toMatchObject({ code: "ENOENT" });
    await mkdir(join(folder, "a"));
    await writeFile(join(folder, "a", "x"), "");
    await expect(writeFileDurably(join(folder, "a"), "x", 0o600)).rejects.toMatchObject({ code: /EISDIR|ENOTEMPTY/ });
    expect(await readdir(folder)).toEqual(["a"]);
  });
});

describe("syncDirectory", () => {
  it("takes folders and nothing else", async () => {
    const folder = await temporaryFolder();
    await syncDirectory(folder);
    await writeFile(join(folder, "a"), "");
    await chmod(join(folder, "a"), 0o600);
    await expect(syncDirectory(join(folder, "a"))).rejects.toMatchObject({ code: "ENOTDIR" });
  });
});
