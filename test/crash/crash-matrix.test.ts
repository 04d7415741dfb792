/**
 * For every moment of a day in the life of a spool, every disk that a crash there may leave (or a fair sample, where these
 * are too many): a new receiver and a new deliverer must find on it each message that was accepted, once, whole, with at
 * least the recipients that were not settled; none that was not accepted unless its commit was under way; and nothing that
 * cannot be read. When they have delivered what they found, nothing is left over.
 *
 * PINRELAY_CRASH_STATES: how many states of each moment are looked at; the default is for CI.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { IndexDatabase } from "../../src/spool/directory/index-database.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import type { ClaimedMessage, DropBox, Spool } from "../../src/spool/spool.ts";
import { contentOf, deliver, envelope, large, small } from "../spool/tools.ts";
import { chooser } from "./chooser.ts";
import { crashStates, indexAt, type DiskState } from "./disk-model.ts";
import { Recorder, type Event, type IndexCopy, type Note } from "./recorder.ts";

const statesMax = Number(process.env["PINRELAY_CRASH_STATES"] ?? "6");
const seed = Number(process.env["PINRELAY_SEED"] ?? "1");
/** Memory, where there is one as a file system: thousands of disks are built. */
const scratch = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

// ── a day in the life of a spool ─────────────────────────────────────────────────────────────────────────────────────

class Day {
  readonly recorder: Recorder;
  readonly #path: string;
  readonly #problems: SpoolProblem[];
  #now = 1_000_000;
  readonly dropBox: DropBox;

  constructor(path: string, recorder: Recorder, problems: SpoolProblem[]) {
    this.recorder = recorder;
    this.#path = path;
    this.#problems = problems;
    this.dropBox = new DirectoryDropBox({ directory: join(path, "incoming"), disk: recorder.disk });
  }

  openSpool(): Promise<Spool> {
    return openDirectorySpool({
      path: this.#path,
      disk: this.recorder.disk,
      report: (problem) => this.#problems.push(problem),
    });
  }

  later(ms: number): number {
    this.#now += ms;
    return this.#now;
  }

  /** Commits a message, and notes when that began and when it was accepted. */
  async receive(content: Buffer, recipients = 1, dropBox = this.dropBox): Promise<string> {
    const draft = dropBox.receive();
    for (let from = 0; from < content.length; from += 30_000) await draft.write(content.subarray(from, from + 30_000));
    this.recorder.note({ kind: "commit begun", id: draft.id });
    await draft.commit({
      receivedAtMs: this.#now,
      partner: dropBox === this.dropBox ? "acme" : null,
      toPartner: null,
      envelope: envelope(Array.from({ length: recipients }, (_, n) => `r${n}@corp.example`)),
      session: null,
      sizeBytes: content.length,
      headerBytes: 0,
      eightBit: false,
    });
    this.recorder.note({ kind: "accepted", id: draft.id, recipients, content });
    return draft.id;
  }

  async giveUp(content: Buffer): Promise<void> {
    const draft = this.dropBox.receive();
    await draft.write(content);
    await draft.discard();
  }

  settle(spool: Spool, message: ClaimedMessage, recipients: readonly number[], state: "delivered" | "failed"): void {
    this.recorder.note({ kind: "settling", id: message.meta.id, recipients });
    spool.settle(message, recipients, state);
    this.recorder.note({ kind: "settled", id: message.meta.id, recipients });
  }

  async deliver(spool: Spool, message: ClaimedMessage): Promise<void> {
    for (const { index } of message.pending) this.settle(spool, message, [index], "delivered");
    await spool.putBack(message, { deferred: [], attempts: [], delayReported: false });
  }

  async defer(spool: Spool, message: ClaimedMessage, delivered: readonly number[] = []): Promise<void> {
    if (delivered.length > 0) this.settle(spool, message, delivered, "delivered");
    const deferred = message.pending
      .filter(({ index }) => !delivered.includes(index))
      .map(({ index, attempts }) => ({
        index,
        route: "internal",
        attempts: attempts + 1,
        nextAttemptAtMs: this.#now + 60_000,
      }));
    await spool.putBack(message, { deferred, attempts: [], delayReported: false });
    this.recorder.note({ kind: "deferred", id: message.meta.id, attempts: deferred[0]?.attempts ?? 0 });
  }

  claimNew(spool: Spool, countMax = 100): Promise<ClaimedMessage[]> {
    return spool.claimNew({ nowMs: this.#now, countMax });
  }

  claimDue(spool: Spool): Promise<ClaimedMessage[]> {
    return spool.claimDue({ nowMs: this.later(100_000), countMax: 100, busyRoutes: [] });
  }
}

async function live(day: Day, admin: QueueAdmin): Promise<void> {
  const { recorder } = day;
  let spool = await day.openSpool();

  // The morning: several at once, small and large; some senders change their minds.
  await Promise.all([
    day.receive(small("one")),
    day.receive(small("two"), 3),
    day.receive(large("three", 100_000), 2),
    day.giveUp(small("given up")),
    day.giveUp(large("given up", 100_000)),
  ]);
  // More arrive while the first are taken and tried.
  const arriving = [day.receive(small("four")), day.receive(large("five", 80_000)), day.receive(small("six"), 2)];
  for (const message of await day.claimNew(spool)) {
    const { recipients } = message.meta.envelope;
    if (recipients.length === 1) await day.deliver(spool, message);
    else await day.defer(spool, message, [1]);
  }
  await Promise.all(arriving);

  // A message is in hand for long, while another of its batch is deferred, and others come; a report about one of its
  // recipients; the operator wants it held.
  const second = await day.claimNew(spool);
  const slow = second.find(({ meta }) => meta.envelope.recipients.length === 2);
  if (slow === undefined) throw new Error("the slow message is missing");
  await Promise.all([
    ...second.filter((message) => message !== slow).map((message) => day.defer(spool, message)),
    day.receive(small("seven")),
    day.receive(small("report"), 1, spool.dropBox),
  ]);
  await admin.hold({ ids: [slow.meta.id] });
  await day.defer(spool, slow, [0]);
  recorder.note({ kind: "held", id: slow.meta.id });

  // The operator holds everything that waits, and lets some of it go.
  for (const { id } of await admin.hold({ state: "deferred" })) recorder.note({ kind: "held", id });
  const [first, ...others] = await day.claimNew(spool);
  if (first !== undefined) await day.deliver(spool, first);
  for (const message of others) await day.defer(spool, message);
  for await (const { meta } of admin.list({ state: "held" })) {
    if (meta.wireBytes < 1_000) continue;
    recorder.note({ kind: "released", id: meta.id });
    await admin.release({ ids: [meta.id] });
  }
  for (const message of await day.claimDue(spool)) await day.deliver(spool, message);

  // The deliverer is restarted, with messages in hand and one on its way in.
  const arrived = day.receive(large("eight", 90_000));
  await day.receive(small("nine"), 2);
  const inHand = await day.claimNew(spool);
  for (const message of inHand.slice(0, 1)) day.settle(spool, message, [0], "delivered");
  await spool.close();
  await arrived;
  spool = await day.openSpool();
  await day.receive(small("ten"));

  // The evening: the operator drops one of those that are held, and everything else goes out.
  const held: string[] = [];
  for await (const { meta } of admin.list({ state: "held" })) held.push(meta.id);
  const dropped = held.slice(0, 1);
  for (const id of dropped) recorder.note({ kind: "removing", id });
  await admin.remove({ ids: dropped });
  for (const id of held.slice(1)) {
    recorder.note({ kind: "released", id });
    await admin.release({ ids: [id] });
  }
  for (let turn = 0; turn < 3; turn += 1) {
    const due = await day.claimDue(spool);
    const fresh = await day.claimNew(spool);
    for (const message of [...due, ...fresh]) await day.deliver(spool, message);
  }
  await day.dropBox.close();
  await spool.close();
}

/** Notes the index's files after each change of them. */
function watchIndex(path: string, recorder: Recorder): void {
  let last = "";
  const look = () => {
    const read = (suffix: string) => {
      const file = join(path, "queue", `index.sqlite${suffix}`);
      return existsSync(file) ? readFileSync(file) : undefined;
    };
    const copy: IndexCopy = { database: read(""), log: read("-wal") };
    const digest = digestOf([copy.database, copy.log]);
    if (digest === last) return;
    last = digest;
    recorder.noteIndex(copy);
  };
  // oxlint-disable-next-line typescript/unbound-method -- called with its own `this` below
  const { transaction, run, isIntact, close } = IndexDatabase.prototype;
  vi.spyOn(IndexDatabase.prototype, "transaction").mockImplementation(function (this: IndexDatabase, work) {
    transaction.call(this, work);
    look();
  });
  vi.spyOn(IndexDatabase.prototype, "run").mockImplementation(function (this: IndexDatabase, ...call) {
    const changes = run.apply(this, call);
    look();
    return changes;
  });
  vi.spyOn(IndexDatabase.prototype, "isIntact").mockImplementation(function (this: IndexDatabase) {
    look();
    return isIntact.call(this);
  });
  vi.spyOn(IndexDatabase.prototype, "close").mockImplementation(function (this: IndexDatabase) {
    close.call(this);
    look();
  });
}

function digestOf(buffers: ReadonlyArray<Buffer | undefined>): string {
  const hash = createHash("sha256");
  for (const buffer of buffers) hash.update(`${buffer?.length ?? -1} `).update(buffer ?? "");
  return hash.digest("hex");
}

// ── what must be found after a crash ─────────────────────────────────────────────────────────────────────────────────

interface Expected {
  readonly content: Buffer;
  readonly recipients: number;
  /** What has certainly been settled, and what has perhaps been. */
  readonly settled: Set<number>;
  readonly settling: Set<number>;
  attempts: number;
  held: boolean;
  removing: boolean;
}

interface Knowledge {
  readonly accepted: Map<string, Expected>;
  readonly underWay: Set<string>;
}

function knowledgeAt(events: readonly Event[], moment: number): Knowledge {
  const accepted = new Map<string, Expected>();
  const underWay = new Set<string>();
  const note = (told: Note) => {
    const known = accepted.get(told.id);
    switch (told.kind) {
      case "commit begun":
        underWay.add(told.id);
        break;
      case "accepted": {
        underWay.delete(told.id);
        const { content, recipients } = told;
        const fresh = {
          settled: new Set<number>(),
          settling: new Set<number>(),
          attempts: 0,
          held: false,
          removing: false,
        };
        accepted.set(told.id, { content, recipients, ...fresh });
        break;
      }
      case "settling":
      case "settled":
        for (const index of told.recipients) known?.[told.kind].add(index);
        break;
      case "deferred":
        if (known !== undefined) known.attempts = told.attempts;
        break;
      case "held":
      case "released":
        if (known !== undefined) known.held = told.kind === "held";
        break;
      case "removing":
        if (known !== undefined) known.removing = true;
        break;
    }
  };
  for (const event of events.slice(0, moment)) if (event.kind === "note") note(event.note);
  return { accepted, underWay };
}

interface Found {
  readonly id: string;
  readonly pending: ReadonlyMap<number, number>;
  readonly sha256: string;
  readonly held: boolean;
}

interface Recovery {
  readonly found: readonly Found[];
  /** Messages without a content. */
  readonly damaged: readonly string[];
  readonly problems: readonly SpoolProblem[];
  readonly leftOver: readonly string[];
}

/** Builds the disk, lets a new receiver and a new deliverer loose on it, and tells what they found. */
async function recover(state: DiskState, path: string, receiverFirst: boolean): Promise<Recovery> {
  rmSync(path, { recursive: true, force: true });
  for (const folder of ["incoming", "queue", "corrupt"])
    mkdirSync(join(path, folder), { recursive: true, mode: 0o700 });
  for (const [name, content] of state.files) writeFileSync(join(path, name), content);
  const { database, log } = state.index;
  if (database !== undefined) writeFileSync(join(path, "queue", "index.sqlite"), database);
  if (log !== undefined) writeFileSync(join(path, "queue", "index.sqlite-wal"), log);

  const problems: SpoolProblem[] = [];
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  if (receiverFirst) await dropBox.removeLeftovers();
  const spool = await openDirectorySpool({ path, report: (problem) => problems.push(problem) });
  if (!receiverFirst) await dropBox.removeLeftovers();
  const admin = new QueueAdmin(path, () => 5_000_000_000);
  const found: Found[] = [];
  const damaged: string[] = [];
  const take = async (messages: readonly ClaimedMessage[], held: boolean) => {
    for (const message of messages) {
      let content: Buffer;
      try {
        content = await contentOf(message);
      } catch (error) {
        damaged.push(message.meta.id);
        await spool.setAside(message, String(error));
        continue;
      }
      const sha256 = createHash("sha256").update(content).digest("hex");
      const pending = new Map(message.pending.map(({ index, attempts }) => [index, attempts]));
      found.push({ id: message.meta.id, pending, sha256, held });
      await deliver(spool, message);
    }
  };
  const nowMs = 4_000_000_000;
  // Due first, as the deliverer does, and less than everything at once.
  for (let turn = 0; turn < 12; turn += 1) {
    await take(await spool.claimDue({ nowMs, countMax: 3, busyRoutes: [] }), false);
    await take(await spool.claimNew({ nowMs, countMax: turn < 2 ? 0 : 5 }), false);
  }
  await admin.release({ state: "held" });
  await take(await spool.claimDue({ nowMs: 6_000_000_000, countMax: 100, busyRoutes: [] }), true);
  admin.close();
  await dropBox.close();
  await spool.close();
  const names = [...(await readdir(join(path, "incoming"))), ...(await readdir(join(path, "queue")))];
  const corrupt = await readdir(join(path, "corrupt"));
  const files = names.filter((name) => !/^(?:lock\.sqlite|index\.sqlite|ballast)/.test(name));
  return { found, damaged, problems, leftOver: [...files, ...corrupt.map((name) => `corrupt/${name}`)] };
}

/** What is wrong with what was found; empty if nothing is. */
function judge(
  { accepted, underWay }: Knowledge,
  { found, damaged, problems, leftOver }: Recovery,
  cause: DiskState["cause"],
  indexIsThere: boolean,
): string[] {
  const wrong: string[] = [];
  // The name of a batch may reach the disk before the name of its content does: but then it was not accepted yet.
  const isExcused = damaged.length > 0 && cause === "power" && damaged.every((id) => underWay.has(id));
  if (damaged.length > 0 && !isExcused) wrong.push(`damaged: ${damaged.join()}`);
  const badProblems = problems.filter(({ kind }) => !(isExcused && kind === "damaged"));
  const badFiles = leftOver.filter((name) => !(isExcused && name.startsWith("corrupt/")));
  if (badProblems.length > 0) wrong.push(`problems: ${JSON.stringify(badProblems)}`);
  if (badFiles.length > 0) wrong.push(`left over: ${badFiles.join()}`);
  const seen = new Set<string>();
  for (const { id, pending, sha256, held } of found) {
    if (seen.has(id)) wrong.push(`${id} is there twice`);
    seen.add(id);
    const known = accepted.get(id);
    if (known === undefined) {
      if (!underWay.has(id)) wrong.push(`${id} was never committed, and is there`);
      continue;
    }
    if (sha256 !== createHash("sha256").update(known.content).digest("hex")) wrong.push(`${id} has another content`);
    const extra = [...pending.keys()].filter((index) => known.settled.has(index));
    // A mark is written at once and not synced: only a loss of power may lose it.
    if (extra.length > 0 && cause === "kill") wrong.push(`${id} is tried again for ${extra.join()}, which are settled`);
    if (known.held && !held && indexIsThere) wrong.push(`${id} is held, and is given out`);
    if (indexIsThere && [...pending.values()].some((attempts) => attempts < known.attempts))
      wrong.push(`${id} has forgotten its attempts`);
  }
  for (const [id, { recipients, settling, removing }] of accepted) {
    const left = Array.from({ length: recipients }, (_, index) => index).filter((index) => !settling.has(index));
    const pending = found.find((message) => message.id === id)?.pending;
    const lost = left.filter((index) => pending?.has(index) !== true);
    if (lost.length > 0 && !removing) wrong.push(`${id} is lost for recipients ${lost.join()}`);
  }
  return wrong;
}

// ── the matrix ───────────────────────────────────────────────────────────────────────────────────────────────────────

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
    expect(count((event) => event.kind === "note" && event.note.kind === "accepted")).toBe(11);
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
