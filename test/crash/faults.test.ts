/**
 * Disks that fail for real: full, read-only, gone. The senders hear of a fault, nothing of theirs appears, and what had been
 * accepted before is delivered when the disk is well again.
 */
import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { prepareFolders } from "../../src/spool/directory/folders.ts";
import { SpoolFault, type ClaimedMessage, type MessageMeta, type Spool } from "../../src/spool/spool.ts";
import { claimDue, claimNew, contentOf, defer, deliver, idsOf, large, receive, small } from "../spool/tools.ts";

/** Mounting needs root, and a system that lets it. */
function mayMount(): boolean {
  if (process.getuid?.() !== 0) return false;
  const probe = execFileSync("mktemp", ["-d"], { encoding: "utf8" }).trim();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", probe], { stdio: "ignore" });
    execFileSync("umount", [probe]);
    return true;
  } catch {
    return false;
  } finally {
    execFileSync("rmdir", [probe]);
  }
}

const canMount = mayMount();
if (!canMount) console.log("skipped: disk full and read-only need root and mount");

/** If it is still mounted. */
function unmount(path: string): void {
  try {
    execFileSync("umount", ["-l", path], { stdio: "ignore" });
  } catch {
    // it is not
  }
}

async function smallDisk(size: string): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-disk-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size},mode=0700`, "none", path]);
  onTestFinished(async () => {
    unmount(path);
    await rm(path, { recursive: true, force: true });
  });
  return path;
}

async function opened(path: string) {
  const problems: SpoolProblem[] = [];
  const spool = await openDirectorySpool({ path, report: (problem) => problems.push(problem) });
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  onTestFinished(async () => {
    await dropBox.close();
    await spool.close();
  });
  return { spool, dropBox, problems };
}

/** Takes all the room that is left, to the last page. */
async function fill(file: string): Promise<void> {
  await expect(writeFile(file, Buffer.alloc(8 * 1024 * 1024))).rejects.toMatchObject({ code: "ENOSPC" });
}

/** Delivers whatever there is; gives the ids. */
async function drain(spool: Spool): Promise<string[]> {
  const found: string[] = [];
  for (let turn = 0; turn < 5; turn += 1) {
    const messages: ClaimedMessage[] = [...(await claimDue(spool, 1e12)), ...(await claimNew(spool, 1e12))];
    for (const message of messages) {
      await contentOf(message);
      await deliver(spool, message);
    }
    found.push(...idsOf(messages));
  }
  return found.toSorted();
}

function accepted(results: ReadonlyArray<PromiseSettledResult<MessageMeta>>): string[] {
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value.id] : []));
}

function faults(results: ReadonlyArray<PromiseSettledResult<unknown>>): unknown[] {
  return results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
}

describe.runIf(canMount)("a full disk", () => {
  it.each([
    ["small messages", 50, () => small("x".repeat(20_000))],
    ["large messages", 40, () => large("x", 90_000)],
    ["both at once", 60, (n: number) => (n % 2 === 0 ? large("x", 90_000) : small("x".repeat(9_000)))],
  ])("refuses %s that do not fit, each for itself, and keeps the others", async (_, count, content) => {
    const path = await smallDisk("2m");
    const { spool, dropBox } = await opened(path);
    const receiving: Array<Promise<MessageMeta>> = [];
    for (let n = 0; n < count; n += 1) receiving.push(receive(dropBox, { content: content(n) }));
    const first = await Promise.allSettled(receiving);
    // One after the other, until there is no room at all.
    const later: Array<PromiseSettledResult<MessageMeta>> = [];
    for (let n = 0; n < count * 4 && faults([...first, ...later]).length < 5; n += 1) {
      later.push(...(await Promise.allSettled([receive(dropBox, { content: content(n) })])));
    }
    const all = [...first, ...later];
    expect(faults(all).length).toBeGreaterThan(4);
    for (const fault of faults(all)) expect(fault).toMatchObject({ name: "SpoolFault", kind: "full" });
    expect((await readdir(join(path, "incoming"))).filter((name) => /\.(?:part|tmp)$/.test(name))).toEqual([]);
    expect(await drain(spool)).toEqual(accepted(all).toSorted());
    // There is room again.
    const { id } = await receive(dropBox, { content: content(0) });
    expect(await drain(spool)).toEqual([id]);
  });

  it("writes what is deferred with the room that was kept for it, and keeps in memory what has none at all", async () => {
    const path = await smallDisk("4m");
    const { spool, dropBox, problems } = await opened(path);
    const ids = await Promise.all(Array.from({ length: 200 }, async () => (await receive(dropBox)).id));
    const messages = await claimNew(spool);
    await fill(join(path, "filling"));
    for (const message of messages) await defer(spool, message, 20_000);
    expect(problems.some(({ kind }) => kind === "not written")).toBe(true);
    const due = await claimDue(spool, 20_000);
    expect(idsOf(due).toSorted()).toEqual(ids.toSorted());

    await fill(join(path, "filling more"));
    for (const message of due) await defer(spool, message, 50_000);
    await expect(claimDue(spool, 20_000)).rejects.toMatchObject({ name: "SpoolFault", kind: "full" });
    await rm(join(path, "filling"));
    expect(await claimDue(spool, 20_000)).toEqual([]);
    expect(await drain(spool)).toEqual(ids.toSorted());
    expect(spool.usage().totalBytes).toBe(0);
  });

  it("lets a deliverer start and deliver: that makes room", async () => {
    const path = await smallDisk("1m");
    await prepareFolders(path);
    const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
    const { spool: first } = await opened(path);
    await first.close();
    const results: Array<PromiseSettledResult<MessageMeta>> = [];
    while (faults(results).length === 0) {
      results.push(...(await Promise.allSettled([receive(dropBox, { content: large("x", 70_000) })])));
    }
    await dropBox.close();
    await fill(join(path, "filling"));
    const { spool } = await opened(path);
    expect(await drain(spool)).toEqual(accepted(results).toSorted());
  });
});

describe.runIf(canMount)("a folder that has become read-only", () => {
  it("incoming: refuses, gives out what it had, and takes and delivers the rest when it is mended", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-readonly-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const { spool, dropBox, problems } = await opened(path);
    const inHand = await receive(dropBox, { content: large() });
    const [message] = await claimNew(spool);
    const waiting = await receive(dropBox);
    const incoming = join(path, "incoming");
    execFileSync("mount", ["--bind", incoming, incoming]);
    onTestFinished(() => unmount(incoming));
    execFileSync("mount", ["-o", "remount,bind,ro", incoming]);
    for (const content of [small(), large()]) {
      await expect(receive(dropBox, { content })).rejects.toMatchObject({ name: "SpoolFault", kind: "io" });
    }
    expect(await claimNew(spool)).toEqual([]);
    expect(problems.map(({ kind }) => kind)).toEqual(["unreadable"]);
    expect(message?.meta.id).toBe(inHand.id);
    if (message !== undefined) await deliver(spool, message);
    execFileSync("umount", [incoming]);
    const clock = vi.spyOn(performance, "now").mockReturnValue(performance.now() + 61_000);
    expect(await drain(spool)).toEqual([waiting.id]);
    clock.mockRestore();
  });

  it("queue: a deliverer does not start, and nothing is lost", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-readonly-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const { spool, dropBox } = await opened(path);
    const { id } = await receive(dropBox);
    await spool.close();
    const queue = join(path, "queue");
    execFileSync("mount", ["--bind", queue, queue]);
    onTestFinished(() => unmount(queue));
    execFileSync("mount", ["-o", "remount,bind,ro", queue]);
    await expect(openDirectorySpool({ path, report: () => undefined })).rejects.toThrow(SpoolFault);
    execFileSync("umount", [queue]);
    const { spool: next } = await opened(path);
    expect(await drain(next)).toEqual([id]);
  });
});

describe("a folder that is missing", () => {
  it("is a fault for the sender, and nothing appears when it is back", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-gone-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const { spool, dropBox } = await opened(path);
    const before = await receive(dropBox);
    await rename(join(path, "incoming"), join(path, "away"));
    for (const content of [small(), large()]) {
      await expect(receive(dropBox, { content })).rejects.toMatchObject({ name: "SpoolFault", kind: "io" });
    }
    await expect(claimNew(spool)).rejects.toThrow();
    await rename(join(path, "away"), join(path, "incoming"));
    expect(await drain(spool)).toEqual([before.id]);
  });

  it("is made again at the next start", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-gone-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    const { spool } = await opened(path);
    await spool.close();
    for (const name of ["incoming", "queue", "corrupt"]) await rm(join(path, name), { recursive: true });
    const { spool: next, dropBox } = await opened(path);
    const { id } = await receive(dropBox);
    expect(await drain(next)).toEqual([id]);
  });

  it.skipIf(process.getuid?.() === 0)("is a fault at the start if it cannot be read or written", async () => {
    const path = await mkdtemp(join(tmpdir(), "pinrelay-closed-"));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    await mkdir(join(path, "queue"), { mode: 0o500 });
    await expect(openDirectorySpool({ path, report: () => undefined })).rejects.toThrow(SpoolFault);
    await chmod(join(path, "queue"), 0o700);
  });
});
