import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { prepareFolders } from "../../src/spool/directory/folders.ts";
import { readUsage, UsageReader } from "../../src/spool/directory/usage.ts";
import { claimDue, claimNew, defer, deliver, large, only, receive, small, temporaryFolder } from "./tools.ts";

async function relayWith() {
  const path = await temporaryFolder();
  await prepareFolders(path);
  const clock = { nowMs: 0 };
  const faults: unknown[] = [];
  const usage = new UsageReader(
    path,
    (error) => faults.push(error),
    () => clock.nowMs,
  );
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming"), onCommitted: usage.note });
  onTestFinished(() => dropBox.close());
  return {
    path,
    clock,
    faults,
    usage,
    dropBox,
    openSpool: async (problems: SpoolProblem[] = []) => {
      const spool = await openDirectorySpool({ path, report: (problem) => problems.push(problem) });
      onTestFinished(() => spool.close());
      return spool;
    },
  };
}

describe("UsageReader", () => {
  it("counts a message for its partner from its commit, without looking at the disk", async () => {
    const { usage, dropBox } = await relayWith();
    const one = await receive(dropBox, { partner: "acme", content: large() });
    const two = await receive(dropBox, { partner: "globex" });
    expect(usage.partnerBytes("acme")).toBe(one.wireBytes);
    expect(usage.partnerBytes("globex")).toBe(two.wireBytes);
    expect(usage.partnerBytes("nobody")).toBe(0);
    expect(usage.totalBytes()).toBeGreaterThan(one.wireBytes + two.wireBytes);
  });

  it("counts a message once, wherever it is: in the drop-box, in hand, deferred; and not when it is delivered", async () => {
    const { usage, dropBox, openSpool } = await relayWith();
    const spool = await openSpool();
    const { wireBytes } = await receive(dropBox, { content: large() });
    let nowMs = performance.now();
    const clock = vi.spyOn(performance, "now").mockImplementation(() => nowMs);
    onTestFinished(() => clock.mockRestore());
    const counted = async () => {
      nowMs += 1_001; // the deliverer publishes once a second
      await spool.claimNew({ nowMs: 10_000, countMax: 0 });
      await usage.refresh();
      return [usage.partnerBytes("acme"), usage.totalBytes()];
    };
    const message = only(await claimNew(spool));
    const [inHand, total] = await counted();
    expect(inHand).toBe(wireBytes);
    expect(total).toBeGreaterThan(wireBytes);
    expect(total).toBeLessThan(wireBytes + 2_000);
    await defer(spool, message, 20_000);
    expect(await counted()).toEqual([inHand, total]);
    await deliver(spool, only(await claimDue(spool, 20_000)));
    expect(await counted()).toEqual([0, 0]);
  });

  it("after a restart knows the size of what waits in the drop-box, but not whose it is", async () => {
    const { dropBox, path } = await relayWith();
    const { wireBytes } = await receive(dropBox, { content: large() });
    const next = new UsageReader(path);
    await next.refresh();
    expect(next.partnerBytes("acme")).toBe(0);
    expect(next.totalBytes()).toBeGreaterThan(wireBytes);
    expect((await readUsage(path)).totalBytes).toBe(next.totalBytes());
  });

  it("looks at the spool at most once a second, and only when it is asked", async () => {
    const { usage, dropBox, clock, path } = await relayWith();
    await usage.refresh();
    const before = usage.totalBytes();
    await writeFile(join(path, "usage.json"), JSON.stringify({ totalBytes: 1_000_000, partners: { acme: 7 } }));
    clock.nowMs = 999;
    expect(usage.totalBytes()).toBe(before);
    await receive(dropBox);
    expect(usage.partnerBytes("acme")).toBe(small().length);
    clock.nowMs = 1_000;
    usage.totalBytes();
    await usage.refresh();
    expect(usage.partnerBytes("acme")).toBe(small().length + 7);
    expect(usage.totalBytes()).toBeGreaterThan(1_000_000);
  });

  it.each(["", "{", "[]", '{"totalBytes":"x","partners":{}}', '{"totalBytes":1,"partners":null}'])(
    "knows nothing of the queue from a file that is torn: %s",
    async (text) => {
      const { usage, path } = await relayWith();
      await writeFile(join(path, "usage.json"), text);
      await usage.refresh();
      expect(usage.totalBytes()).toBe(0);
    },
  );

  it("goes on with what it knew when the spool cannot be looked at, and says so", async () => {
    const { usage, dropBox, clock, path, faults } = await relayWith();
    await receive(dropBox);
    await rm(join(path, "incoming"), { recursive: true });
    clock.nowMs = 5_000;
    expect(usage.partnerBytes("acme")).toBe(small().length);
    await expect(usage.refresh()).rejects.toMatchObject({ code: "ENOENT" });
    await Promise.resolve();
    expect(faults).toHaveLength(1);
    await mkdir(join(path, "incoming"));
  });

  it("does not keep what is gone", async () => {
    const { usage, dropBox, openSpool } = await relayWith();
    const spool = await openSpool();
    for (let n = 0; n < 100; n += 1) await receive(dropBox);
    for (const message of await claimNew(spool)) await deliver(spool, message);
    await usage.refresh();
    expect(usage.snapshot().partnerBytes.size).toBe(0);
    expect(usage.partnerBytes("acme")).toBe(0);
  });
});

describe("the deliverer", () => {
  it("says once that it cannot publish what is in use, and goes on", async () => {
    const { dropBox, openSpool, path } = await relayWith();
    const problems: SpoolProblem[] = [];
    const spool = await openSpool(problems);
    await mkdir(join(path, "usage.json.tmp"));
    await receive(dropBox);
    expect(await claimNew(spool)).toHaveLength(1);
    expect(problems.map(({ kind }) => kind)).toEqual(["not written"]);
    await rm(join(path, "usage.json.tmp"), { recursive: true });
  });

  it("publishes what a deliverer before it had taken", async () => {
    const { dropBox, openSpool, path } = await relayWith();
    const spool = await openSpool();
    await receive(dropBox, { content: large() });
    await claimNew(spool);
    await spool.close();
    const next = await openSpool();
    await next.claimNew({ nowMs: 1, countMax: 0 });
    const { totalBytes }: { totalBytes: number } = JSON.parse(await readFile(join(path, "usage.json"), "utf8"));
    expect(totalBytes).toBeGreaterThan(0);
    expect(await readdir(path)).not.toContain("usage.json.tmp");
  });
});
