/**
 * The deliverer's side when the disk, the index or the process has no more to give: a message is neither lost nor stuck, and
 * nothing is in the way of the others.
 */
import { readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { fault, systemError } from "./faulty-disk.ts";
import { alter, failingIndex, spoolWith } from "./support.ts";
import {
  claimDue,
  claimNew,
  contentOf,
  defer,
  deliver,
  idsOf,
  large,
  only,
  receive,
  receiveTogether,
  small,
} from "./tools.ts";

describe("when the index cannot be written", () => {
  it("keeps what is deferred, claims nothing meanwhile, and writes it as soon as it can", async () => {
    const { dropBox, spool, kinds, afterDeath } = await spoolWith();
    const content = large();
    const { id } = await receive(dropBox, { content });
    const message = only(await claimNew(spool));
    const index = failingIndex();
    await defer(spool, message, 20_000);
    expect(kinds()).toEqual(["not written"]);
    await receive(dropBox);
    await expect(claimNew(spool)).rejects.toMatchObject({ name: "SpoolFault", kind: "full" });
    await expect(claimDue(spool, 30_000)).rejects.toMatchObject({ kind: "full" });
    index.mend();
    expect(await claimDue(spool, 19_999)).toEqual([]);
    expect(await claimNew(spool)).toHaveLength(1);
    const again = only(await claimDue(spool, 20_000));
    expect(again.meta.id).toBe(id);
    expect(await contentOf(again)).toEqual(content);
    expect(idsOf(await claimDue((await afterDeath()).spool, 20_000))).toEqual([id]);
  });

  it("finds the message again if it dies meanwhile", async () => {
    const { dropBox, spool, afterDeath } = await spoolWith();
    const { id } = await receive(dropBox, { content: large() });
    const index = failingIndex();
    await defer(spool, only(await claimNew(spool)), 20_000);
    index.mend();
    expect(idsOf(await claimNew((await afterDeath()).spool))).toEqual([id]);
  });

  it("finds a message again that was deferred before, with its old schedule", async () => {
    const { dropBox, spool, afterDeath } = await spoolWith();
    const { id } = await receive(dropBox);
    await defer(spool, only(await claimNew(spool)), 20_000);
    const message = only(await claimDue(spool, 20_000));
    const index = failingIndex(10, "disk I/O error");
    await defer(spool, message, 50_000);
    index.mend();
    expect(idsOf(await claimDue((await afterDeath()).spool, 20_000))).toEqual([id]);
    expect(await claimDue(spool, 20_000)).toEqual([]);
  });

  it("forgets a settled message only when the index has forgotten it, and removes its files then", async () => {
    const { dropBox, spool, files, afterDeath } = await spoolWith();
    await receive(dropBox, { content: large() });
    await defer(spool, only(await claimNew(spool)), 20_000);
    const message = only(await claimDue(spool, 20_000));
    const index = failingIndex();
    await deliver(spool, message);
    expect(await files()).toHaveLength(2);
    index.mend();
    const { spool: other, files: left } = await afterDeath();
    expect(await claimNew(other)).toEqual([]);
    expect(await claimDue(other, 20_000)).toEqual([]);
    expect(await left()).toEqual([]);
    expect(await claimNew(spool)).toEqual([]);
    await vi.waitFor(async () => expect(await files()).toEqual([]));
  });

  it("writes what it kept at its close, and ends in any case", async () => {
    for (const mended of [true, false]) {
      const { dropBox, spool, reopen, kinds } = await spoolWith();
      const { id } = await receive(dropBox);
      const index = failingIndex();
      await defer(spool, only(await claimNew(spool)), 20_000);
      if (mended) index.mend();
      await spool.close();
      index.mend();
      const next = await reopen();
      expect(idsOf(await (mended ? claimDue(next, 20_000) : claimNew(next)))).toEqual([id]);
      expect(kinds()).toEqual(mended ? ["not written"] : ["not written", "not written"]);
    }
  });

  it("says that it is the index that is damaged, so that the process can end and its successor can mend it", async () => {
    const { dropBox, spool } = await spoolWith();
    await receive(dropBox);
    failingIndex(11, "database disk image is malformed");
    await defer(spool, only(await claimNew(spool)), 20_000);
    await expect(claimNew(spool)).rejects.toMatchObject({ name: "SpoolFault", kind: "damaged" });
  });

  it("takes the rest of a change while a reader holds a snapshot, and lets the log grow no further than it must", async () => {
    const { dropBox, spool, queue } = await spoolWith();
    await receive(dropBox);
    await defer(spool, only(await claimNew(spool)), 20_000);
    const reader = new DatabaseSync(join(queue, "index.sqlite"), { readOnly: true });
    onTestFinished(() => reader.close());
    reader.exec("BEGIN; SELECT count(*) FROM message");
    for (let n = 1; n <= 300; n += 1) await defer(spool, only(await claimDue(spool, n * 100_000)), n * 100_000 + 1);
    reader.exec("COMMIT");
    for (let n = 301; n <= 600; n += 1) await defer(spool, only(await claimDue(spool, n * 100_000)), n * 100_000 + 1);
    expect((await stat(join(queue, "index.sqlite-wal"))).size).toBeLessThan(20 * 1024 * 1024);
  });
});

describe("when marks cannot be written", () => {
  it("gives out no message for which it could not write that it was delivered", async () => {
    const failing = fault("EROFS", "openMarks", /\.batch$/);
    const { dropBox, spool, kinds } = await spoolWith(failing.watch);
    const { id } = await receive(dropBox);
    expect(await claimNew(spool)).toEqual([]);
    expect(kinds()).toEqual(["unreadable"]);
    failing.on = false;
    vi.spyOn(performance, "now").mockReturnValue(performance.now() + 61_000);
    const message = only(await claimNew(spool));
    expect(message.meta.id).toBe(id);
    await defer(spool, message, 20_000);
    failing.on = true;
    expect(await claimDue(spool, 20_000)).toEqual([]);
    failing.on = false;
    expect(await claimDue(spool, 20_000)).toEqual([]);
    expect(idsOf(await claimDue(spool, 20_000 + 3_600_000))).toEqual([id]);
  });

  it("keeps the mark, never gives the message out again, and claims nothing until it is written", async () => {
    const failing = fault("EIO", "mark", /\.batch$/);
    const { dropBox, spool, kinds, afterDeath } = await spoolWith(failing.watch);
    const to = ["a@corp.example", "b@corp.example"];
    await receive(dropBox, { to });
    const message = only(await claimNew(spool));
    spool.settle(message, [0], "delivered");
    expect(kinds()).toEqual(["not written"]);
    const waits = { index: 1, route: "internal", attempts: 1, nextAttemptAtMs: 20_000 };
    await spool.putBack(message, { deferred: [waits], attempts: [], delayReported: false });
    await receive(dropBox);
    await expect(claimNew(spool)).rejects.toMatchObject({ kind: "io" });
    failing.on = false;
    expect(await claimNew(spool)).toHaveLength(1);
    expect(only(await claimDue(spool, 20_000)).pending.map(({ index }) => index)).toEqual([1]);
    const copy = await afterDeath();
    await copy.spool.close();
    await rm(join(copy.path, "queue", "index.sqlite"));
    const blind = await openDirectorySpool({ path: copy.path, report: () => undefined });
    onTestFinished(() => blind.close());
    const found = await claimNew(blind);
    expect(found.find(({ meta }) => meta.id === message.meta.id)?.pending.map(({ index }) => index)).toEqual([1]);
  });
});

describe("when a file cannot be read", () => {
  it("puts a new batch off, gives out the others, and reads it later", async () => {
    const failing = { pattern: /^$/ };
    const { dropBox, spool, kinds } = await spoolWith((operation, path) => {
      if (operation === "read" && failing.pattern.test(path)) throw systemError("EIO");
    });
    const bad = await receive(dropBox, { content: large() });
    const good = await receive(dropBox);
    failing.pattern = new RegExp(`${bad.id}\\.batch`);
    expect(idsOf(await claimNew(spool))).toEqual([good.id]);
    expect(kinds()).toEqual(["unreadable"]);
    failing.pattern = /^$/;
    expect(await claimNew(spool)).toEqual([]);
    vi.spyOn(performance, "now").mockReturnValue(performance.now() + 61_000);
    const message = only(await claimNew(spool));
    expect(await contentOf(message)).toEqual(large());
  });

  it("takes many that cannot be read for a fault of the disk", async () => {
    const failing = fault("EIO", "read", /\.batch$/);
    const { dropBox, spool } = await spoolWith(failing.watch);
    for (let n = 0; n < 10; n += 1) await receive(dropBox);
    await expect(claimNew(spool)).rejects.toMatchObject({ kind: "io" });
    expect(failing.count).toBeLessThan(5);
  });

  it("puts a deferred message off, and gives out the others that are due", async () => {
    const failing = { pattern: /^$/ };
    const { dropBox, spool, kinds } = await spoolWith((operation, path) => {
      if (operation === "read" && failing.pattern.test(path)) throw systemError("EIO");
    });
    const bad = await receive(dropBox);
    await defer(spool, only(await claimNew(spool)), 20_000);
    const good = await receive(dropBox);
    await defer(spool, only(await claimNew(spool)), 21_000);
    failing.pattern = new RegExp(bad.id);
    expect(idsOf(await claimDue(spool, 30_000))).toEqual([good.id]);
    expect(kinds()).toEqual(["unreadable"]);
    failing.pattern = /^$/;
    expect(idsOf(await claimDue(spool, 30_000 + 3_600_000))).toEqual([bad.id]);
  });

  it("claims nothing, and fails, when the process itself has no room for more files; later it goes on", async () => {
    const failing = fault("EMFILE", "openForReading", /.*/);
    const { dropBox, spool } = await spoolWith(failing.watch);
    failing.on = false;
    const first = await receive(dropBox);
    await defer(spool, only(await claimNew(spool)), 20_000);
    const second = await receive(dropBox);
    failing.on = true;
    await expect(claimDue(spool, 20_000)).rejects.toMatchObject({ kind: "full" });
    await expect(claimNew(spool)).rejects.toMatchObject({ kind: "full" });
    failing.on = false;
    expect(idsOf(await claimDue(spool, 20_000))).toEqual([first.id]);
    expect(idsOf(await claimNew(spool))).toEqual([second.id]);
  });

  it("gives out what it had claimed when the next one fails, and loses neither", async () => {
    const failing = { pattern: /^$/ };
    const { dropBox, spool } = await spoolWith((operation, path) => {
      if (operation === "openForReading" && failing.pattern.test(path)) throw systemError("EMFILE");
    });
    const all: string[] = [];
    for (let n = 0; n < 3; n += 1) {
      all.push((await receive(dropBox)).id);
      await defer(spool, only(await claimNew(spool)), 20_000 + n);
    }
    failing.pattern = new RegExp(all[1] ?? "");
    expect(idsOf(await claimDue(spool, 30_000))).toEqual([all[0]]);
    failing.pattern = /^$/;
    expect(idsOf(await claimDue(spool, 30_000))).toEqual(all.slice(1));
  });

  it("gives out what is behind files that it has no right to read, however many", async () => {
    const { dropBox, spool, path, kinds } = await spoolWith((operation, at) => {
      if (operation === "openForReading" && /\/0{9}/.test(at)) throw systemError("EACCES");
    });
    for (let n = 10; n < 30; n += 1) await writeFile(join(path, "incoming", `${"0".repeat(16)}${n}.batch`), "");
    const { id } = await receive(dropBox);
    expect(idsOf(await claimNew(spool))).toEqual([id]);
    expect(kinds()).toEqual(Array(20).fill("unreadable"));
  });

  it("keeps a damaged message until it can be read and kept", async () => {
    const failing = { on: false };
    const { dropBox, spool, queue, corrupt } = await spoolWith((operation, path) => {
      if (failing.on && operation === "read" && path.endsWith(".batch")) throw systemError("EIO");
    });
    const { id } = await receive(dropBox, { content: large() });
    const message = only(await claimNew(spool));
    await truncate(join(queue, `${id}.${id}.content`), 10);
    failing.on = true;
    await spool.setAside(message, "it is damaged");
    expect(await readdir(corrupt)).toEqual([]);
    failing.on = false;
    const again = only(await claimDue(spool, 10_000_000));
    await spool.setAside(again, "it is damaged");
    expect((await readdir(corrupt)).filter((name) => !name.endsWith(".reason"))).toHaveLength(2);
  });

  it("takes the deliverer's own temporary fault for no damage", async () => {
    const failing = fault("EIO", "read", /\.content$/);
    const { dropBox, spool, corrupt } = await spoolWith(failing.watch);
    await receive(dropBox, { content: large() });
    const message = only(await claimNew(spool));
    await expect(contentOf(message)).rejects.toMatchObject({ name: "SpoolFault", kind: "io" });
    failing.on = false;
    expect(await contentOf(message)).toEqual(large());
    expect(await readdir(corrupt)).toEqual([]);
  });
});

describe("when taking a batch fails half-way", () => {
  const steps: Array<[string, "rename" | "syncDirectory" | "openMarks" | "sizeOf", RegExp]> = [
    ["before its content is moved", "rename", /incoming.*\.content$/],
    ["between content and folder sync", "syncDirectory", /queue$/],
    ["between content and batch", "rename", /incoming.*\.batch$/],
    ["after it is moved", "openMarks", /queue.*\.batch$/],
  ];
  it.each(steps)("%s, it is given out later, once and whole", async (_, operation, pattern) => {
    for (const how of ["go on", "die"]) {
      const failing = fault("EIO", operation, pattern);
      const { dropBox, spool, afterDeath, kinds } = await spoolWith(failing.watch);
      await receiveTogether(dropBox, [{ content: large() }, { content: large() }, {}]);
      const before = await claimNew(spool);
      expect(before.length).toBeLessThan(3);
      expect(kinds()).toContain("unreadable");
      failing.on = false;
      const later = performance.now() + 61_000;
      const deliverer = how === "die" ? (await afterDeath()).spool : spool;
      const clock = vi.spyOn(performance, "now").mockReturnValue(later);
      const messages = [...(how === "die" ? [] : before), ...(await claimNew(deliverer))];
      clock.mockRestore();
      expect(messages).toHaveLength(3);
      for (const message of messages) {
        expect(await contentOf(message)).toEqual(message.content === undefined ? large() : small());
        await deliver(deliverer, message);
      }
      expect(await claimNew(deliverer)).toEqual([]);
    }
  });

  it("lets go of a batch that the receiver withdraws, and of its contents", async () => {
    const { dropBox, spool, path, files, kinds } = await spoolWith((operation, at) => {
      if (operation === "rename" && at.endsWith(".batch")) throw systemError("ENOENT");
    });
    const { id } = await receive(dropBox, { content: large() });
    expect(await claimNew(spool)).toEqual([]);
    expect(await files()).toEqual([]);
    expect(kinds()).toEqual([]);
    await rm(join(path, "incoming", `${id}.batch`));
  });

  it("sets damage aside later when corrupt/ is full, and loses nothing of the batch meanwhile", async () => {
    const failing = fault("ENOSPC", "create", /corrupt/);
    const { dropBox, spool, path, corrupt, kinds } = await spoolWith(failing.watch);
    const [bad, good] = await receiveTogether(dropBox, [{ content: small("bad") }, {}]);
    if (bad === undefined || good === undefined) throw new Error("two were committed");
    await alter(join(path, "incoming", `${bad.id}.batch`), "bad\r\n\r\nbad", "bad\r\n\r\nBAD");
    const message = only(await claimNew(spool));
    expect(message.meta.id).toBe(good.id);
    await deliver(spool, message);
    expect(kinds()).toEqual(["unreadable"]);
    expect(await readdir(corrupt)).toEqual([]);
    failing.on = false;
    expect(await claimDue(spool, 5_000_000)).toEqual([]);
    expect((await readdir(corrupt)).length).toBe(2);
  });
});

describe("when the deliverer has no room for more files", () => {
  it("gives out a batch that it had taken just before, also if a record of it is damaged", async () => {
    const failing = fault("EMFILE", "create", /corrupt/);
    const { dropBox, spool, path } = await spoolWith(failing.watch);
    const [bad, good] = await receiveTogether(dropBox, [{}, {}]);
    if (bad === undefined || good === undefined) throw new Error("two were committed");
    await alter(join(path, "incoming", `${bad.id}.batch`), `"id":"${bad.id}"`, `"id":"${"x".repeat(18)}"`);
    await expect(claimNew(spool)).rejects.toMatchObject({ name: "SpoolFault", kind: "full" });
    failing.on = false;
    expect(idsOf(await claimNew(spool))).toEqual([good.id]);
  });
});
