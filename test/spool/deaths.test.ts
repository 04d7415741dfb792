/**
 * The deliverer's side when it dies, or finds its index damaged: its successor goes on from what is there.
 */
import { readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { copySpool, openCopy, spoolWith } from "./support.ts";
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
} from "./tools.ts";

describe("when a deliverer dies", () => {
  it("loses nothing of a batch of which one message is deferred and another was never tried", async () => {
    const { dropBox, spool, afterDeath } = await spoolWith();
    const metas = await receiveTogether(dropBox, [{}, {}, { content: large() }]);
    const [first, second] = await spool.claimNew({ nowMs: 10_000, countMax: 2 });
    if (first === undefined || second === undefined) throw new Error("two were asked for");
    await defer(spool, first, 20_000);
    // The next one has its hands full with what is due, and has not read the batch again when that is delivered.
    const next = await afterDeath();
    const due = only(await claimDue(next.spool, 20_000));
    expect(due.meta.id).toBe(first.meta.id);
    await deliver(next.spool, due);
    const others = await claimNew(next.spool);
    const left = metas.map(({ id }) => id).filter((id) => id !== due.meta.id);
    expect(idsOf(others).toSorted()).toEqual(left.toSorted());
    for (const message of others) await deliver(next.spool, message);
    expect(await next.files()).toEqual([]);
  });

  it("forgets a batch as examined only when all of it is known to the index", async () => {
    const { dropBox, spool, afterDeath } = await spoolWith();
    await receiveTogether(dropBox, [{}, {}]);
    const [first] = await claimNew(spool);
    if (first === undefined) throw new Error("two were committed");
    await defer(spool, first, 20_000);
    const next = await afterDeath();
    await defer(next.spool, only(await claimDue(next.spool, 20_000)), 50_000);
    await next.spool.close();
    const third = await openDirectorySpool({ path: next.path, report: () => undefined });
    onTestFinished(() => third.close());
    expect(await claimNew(third)).toHaveLength(1);
    expect(await claimDue(third, 50_000)).toHaveLength(1);
  });

  it.each(["fresh", "deferred"])(
    "leaves no file for ever, at whatever moment it dies while it settles what was %s",
    async (state) => {
      const copies: string[] = [];
      let settling = false;
      const all = await spoolWith((operation) => {
        if (settling && (operation === "unlink" || operation === "syncMarks")) copies.push(copySpool(all.path));
      });
      await receiveTogether(all.dropBox, [{ content: large() }, {}, { content: large() }]);
      let messages = await claimNew(all.spool);
      if (state === "deferred") {
        for (const message of messages) await defer(all.spool, message, 20_000);
        messages = await claimDue(all.spool, 20_000);
      }
      settling = true;
      for (const message of messages) await deliver(all.spool, message);
      settling = false;
      expect(await all.files()).toEqual([]);
      expect(copies.length).toBeGreaterThan(3);
      for (const copy of copies) {
        const { spool, files } = await openCopy(copy, all.options.report);
        for (const message of [...(await claimNew(spool)), ...(await claimDue(spool, 90_000))]) {
          await contentOf(message);
          await deliver(spool, message);
        }
        expect(await files()).toEqual([]);
      }
      expect(all.kinds()).toEqual([]);
    },
  );

  it("starts without reading a batch that was examined", async () => {
    const read: string[] = [];
    const all = await spoolWith((operation, path) => {
      if (operation === "openForReading") read.push(path);
    });
    for (let n = 0; n < 20; n += 1) await receive(all.dropBox);
    for (const message of await claimNew(all.spool)) await defer(all.spool, message, 20_000);
    read.length = 0;
    const next = await all.reopen();
    expect(await claimNew(next)).toEqual([]);
    expect(await claimDue(next, 10_000)).toEqual([]);
    expect(read).toEqual([]);
  });

  it("removes what it was writing, and drafts of nobody else", async () => {
    const all = await spoolWith();
    const draft = all.spool.dropBox.receive();
    await draft.write(large());
    const { path } = await all.afterDeath();
    expect((await readdir(join(path, "queue"))).filter((name) => name.endsWith(".part"))).toEqual([]);
    const theirs = all.dropBox.receive();
    await theirs.write(large());
    await all.reopen();
    expect(await readdir(join(all.path, "incoming"))).toContain(`${theirs.id}.part`);
  });
});

describe("the index", () => {
  it.each<[string, (file: string) => Promise<void>]>([
    [
      "overwritten",
      (file) => writeFile(file, "this is no database, but it is long enough to be taken for one".repeat(99)),
    ],
    ["empty", (file) => writeFile(file, "")],
    ["torn", (file) => truncate(file, 4096)],
    ["missing", (file) => rm(file)],
  ])("is made anew when it is %s, and everything that is not settled is given out again", async (_, harm) => {
    const all = await spoolWith();
    const to = ["a@corp.example", "b@corp.example"];
    const { id } = await receive(all.dropBox, { to, content: large() });
    const message = only(await claimNew(all.spool));
    all.spool.settle(message, [1], "delivered");
    const waits = { index: 0, route: "internal", attempts: 1, nextAttemptAtMs: 20_000 };
    await all.spool.putBack(message, { deferred: [waits], attempts: [], delayReported: false });
    await all.spool.close();
    await harm(join(all.queue, "index.sqlite"));
    const next = await all.reopen();
    const again = only([...(await claimNew(next)), ...(await claimDue(next, 20_000))]);
    expect(again.meta.id).toBe(id);
    expect(again.pending.map(({ index }) => index)).toEqual([0]);
    expect(await contentOf(again)).toEqual(large());
    await deliver(next, again);
    expect(await all.files()).toEqual([]);
  });

  it("never takes the log of a lost index for its own", async () => {
    const all = await spoolWith();
    await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    const log = await readFile(join(all.queue, "index.sqlite-wal"));
    await all.spool.close();
    await rm(join(all.queue, "index.sqlite"));
    await writeFile(join(all.queue, "index.sqlite-wal"), log);
    const next = await all.reopen();
    expect(await claimNew(next)).toHaveLength(1);
  });

  it("goes to corrupt/ with its log when it is damaged", async () => {
    const all = await spoolWith();
    await all.spool.close();
    const files = ["index.sqlite", "index.sqlite-wal"];
    for (const name of files) await writeFile(join(all.queue, name), "x".repeat(10_000));
    await all.reopen();
    expect(all.kinds()).toEqual(["index rebuilt"]);
    expect(await readdir(all.corrupt)).toEqual(expect.arrayContaining(["index.sqlite", "index.sqlite.reason"]));
    for (const name of files) expect(await readFile(join(all.queue, name), "latin1")).not.toContain("xxxx");
  });

  it("of a newer version is left alone", async () => {
    const all = await spoolWith();
    await all.spool.close();
    const database = new DatabaseSync(join(all.queue, "index.sqlite"));
    database.exec("PRAGMA user_version = 999");
    database.close();
    await expect(openDirectorySpool(all.options)).rejects.toMatchObject({ kind: "io", message: /newer version/ });
    // The failed start has let go of the lock.
    const again = new DatabaseSync(join(all.queue, "index.sqlite"));
    again.exec("PRAGMA user_version = 1");
    again.close();
    await all.reopen();
  });
});
