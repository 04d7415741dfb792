/**
 * A queue that has grown long, as after days in which a server inside was down: starting, claiming and listing must not
 * become slow or large by it.
 *
 * PINRELAY_QUEUE: how many messages (100000 for the README's figures, which are printed).
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import type { Measured } from "./long-queue-process.ts";
import { defer, receive, small, temporaryFolder } from "./tools.ts";

const messages = Number(process.env["PINRELAY_QUEUE"] ?? "3000");

describe("a long queue", { timeout: 1_800_000 }, () => {
  it("costs little to start with, to claim from, and to list", async () => {
    const path = await temporaryFolder();
    await fill(path, messages);
    const script = join(import.meta.dirname, "long-queue-process.ts");
    const { stdout } = await promisify(execFile)(process.execPath, ["--no-warnings", script, path]);
    const measured = JSON.parse(stdout) as Measured; // written by the script beside this one
    if (process.env["PINRELAY_QUEUE"] !== undefined) console.log(`${messages} deferred messages:`, measured);
    expect(measured.listed).toBe(messages);
    // How long it took is printed, not asserted: memory and counts are.
    expect(measured.megabytesStarted - measured.megabytesBefore).toBeLessThan(60 + messages / 1_000);
    expect(measured.megabytesInHand - measured.megabytesBefore).toBeLessThan(150 + messages / 1_000);
  });

  it("is held, released and emptied by the operator in pages, beside the deliverer", async () => {
    const path = await temporaryFolder();
    await fill(path, Math.min(messages, 3_000));
    const spool = await openDirectorySpool({ path, report: (problem) => expect(problem).toBeUndefined() });
    const admin = new QueueAdmin(path, () => 100_000_000);
    onTestFinished(async () => {
      admin.close();
      await spool.close();
    });
    const request = { nowMs: 100_000_000, countMax: 1_000, busyRoutes: [] };
    const held = await admin.hold({ partner: "acme" });
    expect(held.length).toBe(Math.min(messages, 3_000));
    expect(await spool.claimDue(request)).toEqual([]);
    await admin.release({ partner: "acme" });
    const inHand = await spool.claimDue(request);
    expect(inHand).toHaveLength(1_000);
    await admin.remove({ partner: "acme" });
    for (let turn = 0; turn < 20; turn += 1) await spool.claimDue(request);
    expect(spool.usage().partnerBytes.get("acme")).toBe(1_000 * small().length);
    for (const message of inHand) await defer(spool, message, 1);
    for (let turn = 0; turn < 20; turn += 1) await spool.claimDue(request);
    expect(spool.usage()).toEqual({ totalBytes: 0, partnerBytes: new Map() });
  });
});

/** Messages that were tried once, each in a batch with some others. */
async function fill(path: string, count: number): Promise<void> {
  const spool = await openDirectorySpool({ path, report: () => undefined });
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  const groupMax = 500;
  for (let done = 0; done < count; done += groupMax) {
    const group = Array.from({ length: Math.min(groupMax, count - done) }, () => receive(dropBox));
    await Promise.all(group);
    const claimed = await spool.claimNew({ nowMs: 1_000_000, countMax: groupMax });
    await Promise.all(claimed.map((message) => defer(spool, message, 2_000_000 + done)));
  }
  await dropBox.close();
  await spool.close();
}
