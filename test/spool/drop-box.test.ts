import { chmod, mkdir, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox, type DropBoxOptions } from "../../src/spool/directory/drop-box.ts";
import { prepareFolders } from "../../src/spool/directory/folders.ts";
import type { CommittedBatch } from "../../src/spool/directory/group-commit.ts";
import { fault, faultyDisk, systemError, type Operation } from "./faulty-disk.ts";
import { claimNew, contentOf, envelope, large, only, receive, small, temporaryFolder } from "./tools.ts";

async function dropBoxWith(options: Partial<DropBoxOptions> = {}) {
  const path = await temporaryFolder();
  const { incoming } = await prepareFolders(path);
  const dropBox = new DirectoryDropBox({ directory: incoming, ...options });
  onTestFinished(() => dropBox.close());
  const names = async () => (await readdir(incoming)).filter((name) => !name.startsWith("lock."));
  return { path, incoming, dropBox, names };
}

async function openSpool(path: string) {
  const spool = await openDirectorySpool({ path, report: () => undefined });
  onTestFinished(() => spool.close());
  return spool;
}

describe("DirectoryDropBox", () => {
  it("answers only when content, batch and names are synced, in this order", async () => {
    const done: string[] = [];
    const disk = faultyDisk((operation, path) => {
      if (operation !== "write" && operation !== "close") done.push(`${operation} ${path.replace(/.*\//, "")}`);
    });
    const { dropBox } = await dropBoxWith({ disk });
    done.length = 0;
    const { id } = await receive(dropBox, { content: large() });
    expect(done).toEqual([
      `create ${id}.part`,
      `sync ${id}.part`,
      `create ${id}.tmp`,
      `sync ${id}.tmp`,
      `rename ${id}.part`,
      `rename ${id}.tmp`,
      "syncDirectory incoming",
    ]);
  });

  it("lets messages that come during a sync share the next", async () => {
    let syncs = 0;
    const disk = faultyDisk((operation) => {
      if (operation === "sync") syncs += 1;
    });
    const { dropBox, path } = await dropBoxWith({ disk });
    const received: Array<Promise<unknown>> = [];
    for (let n = 0; n < 100; n += 1) {
      received.push(receive(dropBox));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(received);
    expect(syncs).toBeLessThan(60);
    expect(await claimNew(await openSpool(path))).toHaveLength(100);
  });

  it("writes files that only their owner can read", async () => {
    const { dropBox, incoming, names } = await dropBoxWith();
    await receive(dropBox, { content: large() });
    for (const name of await names()) expect((await stat(join(incoming, name))).mode & 0o777).toBe(0o600);
    expect(await names()).toHaveLength(2);
  });

  const faults: Array<[string, Operation, RegExp, string]> = [
    ["create", "create", /\.tmp$/, "full"],
    ["write", "write", /\.tmp$/, "full"],
    ["sync", "sync", /\.tmp$/, "io"],
    ["close", "close", /\.tmp$/, "io"],
    ["rename", "rename", /\.tmp$/, "io"],
    ["sync the folder", "syncDirectory", /incoming$/, "io"],
    ["create the content", "create", /\.part$/, "full"],
    ["write the content", "write", /\.part$/, "full"],
    ["sync the content", "sync", /\.part$/, "io"],
    ["rename the content", "rename", /\.part$/, "io"],
  ];
  it.each(faults)("accepts nothing and leaves nothing when it cannot %s", async (_, operation, pattern, kind) => {
    const failing = fault(kind === "full" ? "ENOSPC" : "EIO", operation, pattern);
    failing.on = false;
    const { dropBox, names, path } = await dropBoxWith({ disk: faultyDisk(failing.watch) });
    failing.on = true;
    const content = large();
    await expect(receive(dropBox, { content })).rejects.toMatchObject({ name: "SpoolFault", kind });
    expect(await names()).toEqual([]);
    expect(failing.count).toBe(1);
    failing.on = false;
    // Whatever it was, the next message is a new file, and is taken.
    await receive(dropBox, { content });
    expect(await contentOf(only(await claimNew(await openSpool(path))))).toEqual(content);
  });

  it("refuses all messages of a batch whose sync failed, and never syncs that file again", async () => {
    const synced: string[] = [];
    const disk = faultyDisk((operation, path) => {
      if (operation !== "sync") return;
      synced.push(path);
      if (synced.length === 1) throw systemError("EIO");
    });
    const { dropBox, names } = await dropBoxWith({ disk });
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => receive(dropBox)));
    expect(results.every(({ status }) => status === "rejected")).toBe(true);
    await receive(dropBox);
    expect(new Set(synced).size).toBe(synced.length);
    expect(await names()).toHaveLength(1);
  });

  it("reads a content no further, and answers a fault, after a write has failed", async () => {
    const failing = fault("ENOSPC", "write", /\.part$/);
    const { dropBox, names } = await dropBoxWith({ disk: faultyDisk(failing.watch) });
    const draft = dropBox.receive();
    // More than is gathered before it is written.
    const writes = [large("a", 300_000), large("b", 300_000)].map((piece) => draft.write(piece));
    for (const write of writes) await expect(write).rejects.toMatchObject({ kind: "full" });
    await expect(draft.write(small())).rejects.toMatchObject({ kind: "full" });
    expect(failing.count).toBe(1);
    await draft.discard();
    expect(await names()).toEqual([]);
  });

  it("removes drafts of a receiver that died, and contents that were never committed, and nothing else", async () => {
    const { dropBox, incoming, names, path } = await dropBoxWith();
    const content = large();
    await receive(dropBox, { content });
    const committed = await names();
    const leftovers = ["a.part", "b.tmp", "c.d.content"].map((name) =>
      name.replace(/\b[abcd]\b/g, (n) => n.repeat(18)),
    );
    const strange = ["README", "notes.tmp", `${"e".repeat(18)}.batch.tmp`];
    for (const name of [...leftovers, ...strange]) await writeFile(join(incoming, name), "x");
    expect(await dropBox.removeLeftovers()).toBe(3);
    expect((await names()).toSorted()).toEqual([...committed, ...strange].toSorted());
    expect(await contentOf(only(await claimNew(await openSpool(path))))).toEqual(content);
  });

  it("removes nothing that another receiver is writing", async () => {
    const { dropBox, incoming, names } = await dropBoxWith();
    await dropBox.removeLeftovers();
    const draft = dropBox.receive();
    await draft.write(large());
    const second = new DirectoryDropBox({ directory: incoming });
    await expect(second.removeLeftovers()).rejects.toMatchObject({ kind: "locked" });
    expect(await names()).toEqual([`${draft.id}.part`]);
    await draft.discard();
  });

  it("refuses an envelope that is too large for a batch", async () => {
    const { dropBox, names } = await dropBoxWith();
    const draft = dropBox.receive();
    const one = only(envelope(["a@corp.example"]).recipients);
    const recipients = Array.from({ length: 90_000 }, () => one);
    const commit = draft.commit({
      receivedAtMs: 1,
      partner: "acme",
      toPartner: null,
      envelope: { ...envelope(), recipients },
      session: null,
      sizeBytes: 0,
      headerBytes: 0,
      eightBit: false,
    });
    await expect(commit).rejects.toMatchObject({ kind: "full" });
    expect(await names()).toEqual([]);
  });

  it("tells of each batch as soon as it is committed", async () => {
    const batches: CommittedBatch[] = [];
    const { dropBox, incoming, names } = await dropBoxWith({ onCommitted: (batch) => batches.push(batch) });
    const meta = await receive(dropBox, { content: large() });
    const sizes = await Promise.all((await names()).map(async (name) => (await stat(join(incoming, name))).size));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    expect(batches).toEqual([{ name: meta.id, bytes, messages: [meta] }]);
  });
});

describe("prepareFolders", () => {
  it("syncs each folder that it makes into its parent, before anything is received", async () => {
    const done: string[] = [];
    const root = await temporaryFolder();
    const path = join(root, "var", "spool");
    await prepareFolders(
      path,
      faultyDisk((operation, at) => {
        if (operation === "makeFolder" || operation === "syncDirectory")
          done.push(`${operation} ${at.slice(root.length)}`);
      }),
    );
    const made = done.filter((step) => step.startsWith("makeFolder")).map((step) => step.replace("makeFolder ", ""));
    for (const folder of ["/var", "/var/spool", "/var/spool/incoming", "/var/spool/queue"]) {
      expect(made).toContain(folder);
      const parent = folder.replace(/\/[^/]*$/, "");
      expect(done.lastIndexOf(`syncDirectory ${parent}`)).toBeGreaterThan(done.indexOf(`makeFolder ${folder}`));
    }
  });

  it.each(["incoming", "queue", "corrupt"])("refuses %s when everybody may write to it", async (name) => {
    const path = await temporaryFolder();
    await mkdir(join(path, name), { mode: 0o777 });
    await chmod(join(path, name), 0o777);
    await expect(prepareFolders(path)).rejects.toMatchObject({ name: "SpoolFault", kind: "io" });
  });

  it("refuses a link and a file in place of a folder", async () => {
    const path = await temporaryFolder();
    const elsewhere = await temporaryFolder();
    await symlink(elsewhere, join(path, "incoming"));
    await expect(prepareFolders(path)).rejects.toMatchObject({ kind: "io" });
    const other = await temporaryFolder();
    await writeFile(join(other, "queue"), "");
    await expect(prepareFolders(other)).rejects.toMatchObject({ kind: "io" });
  });
});
