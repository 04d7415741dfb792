/**
 * The deliverer's side of the directory driver: what the contract does not ask of every driver.
 */
import { readdir, rename, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import { QueueIndex } from "../../src/spool/directory/queue-index.ts";
import { SpoolFault } from "../../src/spool/spool.ts";
import { fault, faultyDisk } from "./faulty-disk.ts";
import { copySpool, spoolWith } from "./support.ts";
import {
  claimDue,
  claimNew,
  collect,
  defer,
  deliver,
  idsOf,
  large,
  only,
  receive,
  receiveTogether,
  temporaryFolder,
} from "./tools.ts";

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

  it("syncs marks that an earlier process wrote before a batch is forgotten", async () => {
    const done: string[] = [];
    const copies: string[] = [];
    const all = await spoolWith((operation) => {
      if (operation === "unlink") copies.push(copySpool(all.path));
    });
    await receiveTogether(all.dropBox, [{}, {}]);
    const [first, second] = await claimNew(all.spool);
    if (first === undefined || second === undefined) throw new Error("two were committed");
    await deliver(all.spool, first);
    await defer(all.spool, second, 20_000);
    copies.length = 0;
    await deliver(all.spool, only(await claimDue(all.spool, 20_000)));
    const path = only(copies);
    const disk = faultyDisk((operation, at) => {
      if ((operation === "syncMarks" || operation === "unlink") && at.endsWith(".batch")) done.push(operation);
    });
    const next = await openDirectorySpool({ path, disk, report: all.options.report });
    await next.close();
    await rm(path, { recursive: true });
    expect(done).toEqual(["syncMarks", "unlink"]);
    expect(all.kinds()).toEqual([]);
  });

  it("writes what it has to tell the index about many batches in few transactions", async () => {
    const all = await spoolWith();
    for (let n = 0; n < 50; n += 1) await receive(all.dropBox);
    const messages = await claimNew(all.spool);
    const writing = vi.spyOn(QueueIndex.prototype, "apply");
    await Promise.all(messages.map((message) => defer(all.spool, message, 20_000)));
    const due = await claimDue(all.spool, 20_000);
    await Promise.all(due.map((message) => deliver(all.spool, message)));
    expect(due).toHaveLength(50);
    expect(writing.mock.calls.length).toBeLessThan(30);
    expect(await all.files()).toEqual([]);
    expect(all.spool.usage()).toEqual({ totalBytes: 0, partnerBytes: new Map() });
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
