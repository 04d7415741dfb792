import { appendFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { queueCommand } from "../../src/cli/queue.ts";
import { openDirectorySpool, type DirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { makeRelayFolder, type RelayFolder } from "../tools/relay-folder.ts";
import { receive } from "../spool/tools.ts";
import { run } from "./support.ts";

/** A relay's folder with one message that was deferred, one that was not looked at yet, and the spool open beside us. */
async function withQueue(
  work: (at: { folder: RelayFolder; spool: DirectorySpool; deferred: string; fresh: string }) => Promise<void>,
): Promise<void> {
  const folder = await makeRelayFolder();
  const config = await folder.load();
  const spool = await openDirectorySpool({ path: config.spool.path, report: () => undefined });
  try {
    const { id: deferred } = await receive(spool.dropBox, {
      receivedAtMs: Date.now(),
      to: ["orders@corp.example", "b@edi.corp.example"],
    });
    const [message] = await spool.claimNew({ nowMs: Date.now(), countMax: 1 });
    if (message === undefined) throw new Error("nothing to claim");
    spool.settle(message, [1], "delivered");
    await spool.putBack(message, {
      deferred: [{ index: 0, route: "internal", attempts: 1, nextAttemptAtMs: Date.now() + 60_000 }],
      attempts: [{ atMs: Date.now(), recipients: [0], server: "mail1 10.1.0.10:25", text: "450 4.2.1 busy\u001b[31m" }],
      delayReported: false,
    });
    const { id: fresh } = await receive(spool.dropBox, { receivedAtMs: Date.now(), partner: "globex" });
    await work({ folder, spool, deferred, fresh });
  } finally {
    await spool.close();
    await folder.remove();
  }
}

const queue = (folder: RelayFolder, ...args: string[]) => run(queueCommand, [...args, "--config", folder.configFile]);

describe("pinrelay queue", () => {
  it("lists what waits beside a running deliverer, in a table of 100 columns that no remote can colour", () =>
    withQueue(async ({ folder, deferred, fresh }) => {
      const { exitCode, out } = await queue(folder, "list");
      expect(exitCode).toBe(0);
      expect(out).toContain(deferred);
      expect(out).toContain(fresh);
      expect(out).toContain("orders@corp.example");
      expect(out).not.toContain("\u001b");
      expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100);
    }));

  it("lists one JSON object a message", () =>
    withQueue(async ({ folder, deferred, fresh }) => {
      const { out } = await queue(folder, "list", "--json");
      const ids = out
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as { meta: { id: string } }).meta.id);
      expect(ids.toSorted()).toEqual([deferred, fresh].toSorted());
    }));

  it("selects by partner, state and recipient", () =>
    withQueue(async ({ folder, deferred, fresh }) => {
      expect((await queue(folder, "list", "--partner", "globex")).out).not.toContain(deferred);
      expect((await queue(folder, "list", "--state", "deferred")).out).not.toContain(fresh);
      // The other recipient of the deferred message is settled: it waits for nobody there.
      expect((await queue(folder, "list", "--recipient", "b@edi.corp.example")).out).toBe(
        "Nothing of the kind waits.\n",
      );
    }));

  it("shows every attempt with the remote's words", () =>
    withQueue(async ({ folder, deferred }) => {
      const { out } = await queue(folder, "show", deferred);
      expect(out).toContain("<orders@corp.example> pending by internal, 1 attempt, next at");
      expect(out).toContain("<b@edi.corp.example> delivered");
      expect(out).toContain("mail1 10.1.0.10:25, 1 recipient: 450 4.2.1 busy");
    }));

  it("lists what waits although somebody is editing the configuration and it is invalid at the moment", () =>
    withQueue(async ({ folder, deferred }) => {
      await appendFile(folder.configFile, "hostnam: oops\n");
      const { exitCode, out, err } = await queue(folder, "list");
      expect(exitCode).toBe(0);
      expect(out).toContain(deferred);
      expect(err).toContain("pinrelay check");
    }));

  it("says no, with exit status 1, to an id that does not wait", () =>
    withQueue(async ({ folder }) => {
      expect((await queue(folder, "show", "0mwu5e33nsyq4dtcqr")).exitCode).toBe(1);
      expect((await queue(folder, "hold", "0mwu5e33nsyq4dtcqr")).exitCode).toBe(1);
    }));

  it.each(["retry", "hold", "release", "bounce", "remove"])(
    "does not %s everything because nothing was named",
    (name) =>
      withQueue(async ({ folder }) => {
        const { exitCode, err } = await queue(folder, name);
        expect(exitCode).toBe(2);
        expect(err).toContain("--all");
      }),
  );

  it("holds a message, so that it is not due, and releases it", () =>
    withQueue(async ({ folder, spool, deferred }) => {
      expect((await queue(folder, "hold", deferred)).out).toBe(`${deferred} is held\n`);
      const due = () => spool.claimDue({ nowMs: Date.now() + 120_000, countMax: 10, busyRoutes: [] });
      expect(await due()).toEqual([]);
      expect((await queue(folder, "release", deferred)).out).toBe(`${deferred} is released\n`);
      expect((await due()).map(({ meta }) => meta.id)).toEqual([deferred]);
    }));

  it("makes a deferred message due now", () =>
    withQueue(async ({ folder, spool, deferred }) => {
      const due = () => spool.claimDue({ nowMs: Date.now() + 1, countMax: 10, busyRoutes: [] });
      expect(await due()).toEqual([]);
      expect((await queue(folder, "retry", deferred)).out).toBe(`${deferred} is due now\n`);
      expect((await due()).map(({ meta }) => meta.id)).toEqual([deferred]);
    }));

  it("removes a message: it is gone when the deliverer has come to it", () =>
    withQueue(async ({ folder, spool, deferred }) => {
      expect((await queue(folder, "remove", deferred)).exitCode).toBe(0);
      await spool.claimDue({ nowMs: Date.now(), countMax: 10, busyRoutes: [] });
      expect((await queue(folder, "show", deferred)).exitCode).toBe(1);
    }));
});
