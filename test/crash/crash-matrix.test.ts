/**
 * For every moment of a day in the life of a spool, every disk that a crash there may leave (or a fair sample, where these
 * are too many): a new receiver and a new deliverer must find on it each message that was accepted, once, whole, with at
 * least the recipients that were not settled; none that was not accepted unless its commit was under way; and nothing that
 * cannot be read. When they have delivered what they found, nothing is left over.
 *
 * PINRELAY_CRASH_STATES: how many states of each moment are looked at; the default is for CI.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import { chooser } from "./chooser.ts";
import { Day, digestOf, live, watchIndex } from "./day.ts";
import { crashStates, indexAt, type DiskState } from "./disk-model.ts";
import { judge, knowledgeAt, recover, type Recovery } from "./judgement.ts";
import { Recorder, type Event, type IndexCopy } from "./recorder.ts";

const statesMax = Number(process.env["PINRELAY_CRASH_STATES"] ?? "6");
const seed = Number(process.env["PINRELAY_SEED"] ?? "1");
/** Memory, where there is one as a file system: thousands of disks are built. */
const scratch = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

describe("after a crash at any moment", { timeout: 1_800_000 }, () => {
  let folder = "";
  let recorder: Recorder;
  const problems: SpoolProblem[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(scratch, "pinrelay-crash-"));
    const path = join(folder, "day");
    for (const name of ["incoming", "queue", "corrupt"]) mkdirSync(join(path, name), { recursive: true, mode: 0o700 });
    recorder = new Recorder(path);
    const day = new Day(path, recorder, problems);
    const admin = new QueueAdmin(path, () => 1_000_000);
    watchIndex(path, recorder);
    await live(day, admin);
    admin.close();
    vi.restoreAllMocks();
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("the day itself went by without a problem, and has everything in it", () => {
    const { events } = recorder;
    const count = (match: (event: Event) => boolean) => events.filter(match).length;
    const acts = new Set(events.map((event) => (event.kind === "begin" ? event.act.kind : event.kind)));
    expect(problems).toEqual([]);
    expect([...acts].toSorted()).toEqual(
      ["create", "end", "index", "note", "rename", "sync", "syncDirectory", "unlink", "write"].toSorted(),
    );
    expect(count((event) => event.kind === "note" && event.note.kind === "accepted")).toBe(13);
    expect(count((event) => event.kind === "note" && event.note.kind === "held")).toBeGreaterThan(1);
    const { accepted, underWay } = knowledgeAt(events, events.length);
    expect(underWay.size).toBe(0);
    for (const { recipients, settled, removing } of accepted.values()) {
      if (!removing) expect(settled.size).toBe(recipients);
    }
  });

  it("every accepted message is there once, nothing else is, and nothing is unreadable", async () => {
    const { events } = recorder;
    const choose = chooser(seed);
    const path = join(folder, "after");
    const known = new Map<string, Recovery>();
    let states = 0;
    for (let moment = 0; moment <= events.length; moment += 1) {
      const knowledge = knowledgeAt(events, moment);
      for (const state of crashStates(events, moment, choose, statesMax)) {
        states += 1;
        const key = keyOf(state);
        const recovery = known.get(key) ?? (await recover(state, path, key.charCodeAt(0) % 2 === 0));
        known.set(key, recovery);
        const wrong = judge(knowledge, recovery, state.cause, true);
        if (wrong.length > 0) throw new Error(tell(events, moment, state, wrong));
      }
    }
    console.log(`crash matrix: ${events.length} moments, ${states} states, ${known.size} of them different`);
  });

  it("and so it is when the index is lost as well, or its log is torn", async () => {
    const { events } = recorder;
    const choose = chooser(seed + 1);
    const path = join(folder, "after");
    for (let moment = 0; moment <= events.length; moment += 1) {
      const next = events[moment];
      // At each change of the index, and now and then in between.
      if (next?.kind !== "index" && choose(4) > 0) continue;
      const knowledge = knowledgeAt(events, moment);
      for (const state of crashStates(events, moment, choose, 2)) {
        const blind = { ...state, index: { database: undefined, log: undefined } };
        const wrong = judge(knowledge, await recover(blind, path, choose(2) === 0), state.cause, false);
        if (wrong.length > 0) throw new Error(tell(events, moment, blind, wrong));
        const torn = tornLog(indexAt(events, moment), next, choose);
        if (torn === undefined) continue;
        const halfWritten = { ...state, index: torn };
        const alsoWrong = judge(knowledge, await recover(halfWritten, path, choose(2) === 0), state.cause, true);
        if (alsoWrong.length > 0) throw new Error(tell(events, moment, halfWritten, alsoWrong));
      }
    }
  });
});

/** The log with a part of what the next transaction was writing. */
function tornLog(before: IndexCopy, next: Event | undefined, choose: (below: number) => number): IndexCopy | undefined {
  if (next?.kind !== "index" || before.log === undefined || next.copy.log === undefined) return undefined;
  const more = next.copy.log.length - before.log.length;
  if (more <= 0 || before.database?.equals(next.copy.database ?? Buffer.alloc(0)) !== true) return undefined;
  return { database: before.database, log: next.copy.log.subarray(0, before.log.length + choose(more)) };
}

function keyOf({ files, index }: DiskState): string {
  const hash = createHash("sha256");
  for (const [name, content] of [...files].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    hash.update(`${name} ${content.length} `).update(content);
  }
  hash.update(digestOf([index.database, index.log]));
  return hash.digest("hex");
}

/** Enough to look at a failure: where it was, what had just been done, and what was on the disk. */
function tell(events: readonly Event[], moment: number, { files, cause }: DiskState, wrong: readonly string[]): string {
  const before = events.slice(Math.max(0, moment - 15), moment).map((event) => {
    switch (event.kind) {
      case "begin": {
        const { act } = event;
        return `  ${event.operation} ${act.kind} ${"path" in act ? act.path : "to" in act ? `${act.from} → ${act.to}` : act.file}`;
      }
      case "end":
        return `  ${event.operation} has ended`;
      case "index":
        return "  the index has changed";
      case "note":
        return `  ${event.note.kind} ${event.note.id}`;
    }
  });
  const disk = [...files].map(([name, content]) => `  ${name} ${content.length}`);
  return [
    `${cause} at ${moment} of ${events.length} (seed ${seed}):`,
    ...wrong,
    "before:",
    ...before,
    "disk:",
    ...disk,
  ].join("\n");
}
