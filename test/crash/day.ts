/**
 * A day in the life of a spool, with everything in it that happens to messages, for a recorder to write down.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { IndexDatabase } from "../../src/spool/directory/index-database.ts";
import type { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import type { ClaimedMessage, DropBox, Spool } from "../../src/spool/spool.ts";
import { envelope, large, small } from "../spool/tools.ts";
import type { IndexCopy, Recorder } from "./recorder.ts";

export class Day {
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

export async function live(day: Day, admin: QueueAdmin): Promise<void> {
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
  // Two in one turn share a batch.
  const [, slowId] = await Promise.all([day.receive(small("quick")), day.receive(small("slow"), 2)]);

  // A message is in hand for long, while another of its batch is deferred, and others come; a report about one of its
  // recipients; the operator wants it held.
  const second = await day.claimNew(spool);
  const slow = second.find(({ meta }) => meta.id === slowId);
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
export function watchIndex(path: string, recorder: Recorder): void {
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

export function digestOf(buffers: ReadonlyArray<Buffer | undefined>): string {
  const hash = createHash("sha256");
  for (const buffer of buffers) hash.update(`${buffer?.length ?? -1} `).update(buffer ?? "");
  return hash.digest("hex");
}
