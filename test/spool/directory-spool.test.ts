/**
 * The deliverer's side when something goes wrong: the disk, the index, a death in the middle. Whatever it is, a message is
 * neither lost nor stuck, and nothing is in the way of the others.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import { QueueIndex } from "../../src/spool/directory/queue-index.ts";
import { SpoolFault } from "../../src/spool/spool.ts";
import { fault, faultyDisk, systemError, type Watcher } from "./faulty-disk.ts";
import {
  claimDue,
  claimNew,
  collect,
  contentOf,
  defer,
  deliver,
  idsOf,
  large,
  only,
  receive,
  receiveTogether,
  small,
  temporaryFolder,
} from "./tools.ts";

async function spoolWith(watch: Watcher = () => undefined) {
  const path = await temporaryFolder();
  const problems: SpoolProblem[] = [];
  const options = { path, disk: faultyDisk(watch), report: (problem: SpoolProblem) => problems.push(problem) };
  let spool = await openDirectorySpool(options);
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  onTestFinished(async () => {
    vi.restoreAllMocks();
    await dropBox.close();
    await spool.close();
  });
  const queue = join(path, "queue");
  return {
    path,
    queue,
    corrupt: join(path, "corrupt"),
    problems,
    dropBox,
    options,
    get spool() {
      return spool;
    },
    kinds: () => problems.map(({ kind }) => kind),
    files: async () => (await readdir(queue)).filter((name) => /\.(?:batch|content|tmp|part)$/.test(name)),
    reopen: async () => {
      await spool.close();
      spool = await openDirectorySpool(options);
      return spool;
    },
    /** As if the deliverer had been killed now: another one finds the files as they are. */
    afterDeath: () => openCopy(copySpool(path), options.report),
  };
}

/** The files as they are at this moment. */
function copySpool(path: string): string {
  const copy = mkdtempSync(join(tmpdir(), "pinrelay-copy-"));
  for (const folder of ["incoming", "queue", "corrupt"]) {
    mkdirSync(join(copy, folder));
    for (const name of readdirSync(join(path, folder))) {
      if (!name.startsWith("lock.")) copyFileSync(join(path, folder, name), join(copy, folder, name));
    }
  }
  return copy;
}

async function openCopy(path: string, report: (problem: SpoolProblem) => void) {
  const spool = await openDirectorySpool({ path, report });
  onTestFinished(async () => {
    await spool.close();
    await rm(path, { recursive: true });
  });
  const files = async () => (await readdir(join(path, "queue"))).filter((name) => /\.(?:batch|content)$/.test(name));
  return { spool, path, files };
}

/** An error as SQLite throws it. */
function sqliteError(code: number, message: string): Error {
  return Object.assign(new Error(message), { code: "ERR_SQLITE_ERROR", errcode: code });
}

/** Makes the index refuse changes until it is told to take them again. */
function failingIndex(code = 13, message = "database or disk is full") {
  const spy = vi.spyOn(QueueIndex.prototype, "apply").mockImplementation(() => {
    throw sqliteError(code, message);
  });
  return { mend: () => spy.mockRestore() };
}

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

describe("DirectorySpool", () => {
  it("takes damage of the index for no damage of the message that it looks up", async () => {
    const all = await spoolWith();
    const { id } = await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    const reading = vi.spyOn(QueueIndex.prototype, "recipients").mockImplementation(() => {
      throw new SpoolFault("damaged", "the queue index: database disk image is malformed");
    });
    await expect(claimDue(all.spool, 20_000)).rejects.toMatchObject({ name: "SpoolFault", kind: "damaged" });
    reading.mockRestore();
    expect(await readdir(all.corrupt)).toEqual([]);
    expect(idsOf(await claimDue(all.spool, 20_000))).toEqual([id]);
  });

  it("makes no file that others may read, whatever the umask", async () => {
    const umask = process.umask(0);
    onTestFinished(() => void process.umask(umask));
    const all = await spoolWith();
    await receive(all.dropBox, { content: large() });
    await all.dropBox.removeLeftovers();
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    for (const folder of ["incoming", "queue"]) {
      for (const name of await readdir(join(all.path, folder))) {
        const { mode } = await stat(join(all.path, folder, name));
        expect([name, mode & 0o777]).toEqual([name, 0o600]);
      }
    }
  });

  it("sets aside a message whose batch is missing, and gives out the others", async () => {
    const all = await spoolWith();
    const lost = await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    const good = await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 21_000);
    await rename(join(all.queue, `${lost.id}.batch`), join(all.queue, "away"));
    expect(idsOf(await claimDue(all.spool, 30_000))).toEqual([good.id]);
    expect(all.kinds()).toEqual(["damaged"]);
    expect(idsOf(await claimDue(all.spool, 30_000))).toEqual([]);
    // When a person puts it back, it is delivered after all.
    await rename(join(all.queue, "away"), join(all.queue, `${lost.id}.batch`));
    expect(idsOf(await claimNew(await all.reopen()))).toContain(lost.id);
  });

  it("removes a damaged message when the operator says so", async () => {
    const all = await spoolWith();
    const { id } = await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    const admin = new QueueAdmin(all.path);
    onTestFinished(() => admin.close());
    await admin.remove({ ids: [id] });
    await truncate(join(all.queue, `${id}.batch`), 100);
    expect(await claimDue(all.spool, 10_000)).toEqual([]);
    expect(await all.files()).toEqual([]);
    expect(await collect(admin.list())).toEqual([]);
  });

  it("is told by the operator that there is nothing to work on before a deliverer has ever run", async () => {
    const path = await temporaryFolder();
    const admin = new QueueAdmin(path);
    await expect(admin.hold({})).rejects.toMatchObject({ name: "SpoolFault", message: /start it first/ });
    expect(await collect(admin.list())).toEqual([]);
    expect(await readdir(path)).toEqual([]);
  });

  it("tells what it did because the operator had asked for it", async () => {
    const path = await temporaryFolder();
    const done: string[] = [];
    const options = {
      path,
      report: () => undefined,
      honoured: (id: string, action: string) => done.push(`${action} ${id}`),
    };
    const spool = await openDirectorySpool(options);
    const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
    const admin = new QueueAdmin(path);
    onTestFinished(async () => {
      admin.close();
      await dropBox.close();
      await spool.close();
    });
    const held = await receive(dropBox);
    const removed = await receive(dropBox);
    await admin.hold({ ids: [held.id] });
    await admin.remove({ ids: [removed.id] });
    expect(await claimNew(spool)).toEqual([]);
    expect(await claimDue(spool)).toEqual([]);
    expect(done).toEqual([`hold ${held.id}`, `remove ${removed.id}`]);
  });

  it("goes on without a watch where the system has none left", async () => {
    const all = await spoolWith();
    await rename(join(all.path, "incoming"), join(all.path, "away"));
    all.spool.watch(() => undefined).close();
    await rename(join(all.path, "away"), join(all.path, "incoming"));
  });

  it("hears of its own reports at once", async () => {
    const { spool } = await spoolWith();
    let hints = 0;
    const watcher = spool.watch(() => (hints += 1));
    onTestFinished(() => watcher.close());
    await receive(spool.dropBox, { partner: null });
    expect(hints).toBe(1);
  });

  it("syncs marks that an earlier process wrote before the index forgets their batch", async () => {
    const done: string[] = [];
    const all = await spoolWith((operation) => {
      if (operation === "syncMarks" || operation === "unlink") done.push(operation);
    });
    await receiveTogether(all.dropBox, [{}, {}]);
    const [first, second] = await claimNew(all.spool);
    if (first === undefined || second === undefined) throw new Error("two were committed");
    await deliver(all.spool, first);
    await defer(all.spool, second, 20_000);
    const forget = vi.spyOn(QueueIndex.prototype, "forgetBatch").mockImplementation(() => {
      throw sqliteError(10, "disk I/O error");
    });
    await deliver(all.spool, only(await claimDue(all.spool, 20_000)));
    forget.mockRestore();
    expect(all.kinds()).toEqual(["leftover"]);
    done.length = 0;
    await all.reopen();
    expect(done).toEqual(["syncMarks", "unlink"]);
  });

  it("keeps what is in its batch when the marks cannot be synced: the next start clears it away", async () => {
    const failing = fault("EIO", "syncMarks", /.*/);
    const all = await spoolWith(failing.watch);
    await receive(all.dropBox, { content: large() });
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    await deliver(all.spool, only(await claimDue(all.spool, 20_000)));
    expect(await all.files()).toHaveLength(2);
    expect(all.kinds()).toEqual(["leftover", "leftover"]);
    failing.on = false;
    const next = await all.reopen();
    expect(await claimDue(next, 90_000)).toEqual([]);
    expect(await claimNew(next)).toEqual([]);
    expect(await all.files()).toEqual([]);
  });
});

async function alter(file: string, from: string, to: string): Promise<void> {
  const bytes = await readFile(file, "latin1");
  expect(bytes).toContain(from);
  await writeFile(file, bytes.replace(from, to), "latin1");
}
