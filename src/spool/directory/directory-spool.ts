/**
 * The deliverer's side of the directory driver (docs/spool.md tells the states).
 *
 * Promises: what was committed to `incoming/` is given out until each recipient is settled; a second deliverer fails to
 * open; damage stays local and is reported; memory is bounded by what is claimed, not by the length of the queue.
 */
import { watch as watchFolder } from "node:fs";
import { join } from "node:path";
import type { ClaimedMessage, ClaimRequest, DropBox, PutBack, RecipientIndex, Spool } from "../spool.ts";
import { SpoolFault } from "../spool.ts";
import { decodeBatch, decodeRecord, type BatchRecord } from "./batch.ts";
import { nodeDisk, systemCode, type Disk } from "./disk.ts";
import { DirectoryDropBox } from "./drop-box.ts";
import { prepareFolders, type SpoolFolders } from "./folders.ts";
import { takeLock, type Lock } from "./lock.ts";
import { QueueIndex, type IndexChange, type IndexedMessage } from "./queue-index.ts";
import { setAsideFile } from "./corrupt.ts";
import { checkContent, ClaimedRecord, TakenBatch } from "./taken-batch.ts";

export interface DirectorySpoolOptions {
  readonly path: string;
  readonly disk?: Disk;
  readonly now?: () => number;
  /** Told of damage and of files that could not be removed; the spool goes on. */
  readonly report: (problem: SpoolProblem) => void;
}

export interface SpoolProblem {
  readonly kind: "damaged" | "leftover" | "index rebuilt";
  readonly file: string;
  readonly reason: string;
}

const batchNamePattern = /^([0-9a-z]{18})\.batch$/;

/** Opens the spool for delivery; throws a SpoolFault of kind `locked` if another deliverer has it. */
export async function openDirectorySpool(options: DirectorySpoolOptions): Promise<DirectorySpool> {
  const folders = await prepareFolders(options.path);
  const lock = takeLock(join(folders.queue, "lock.sqlite"));
  try {
    const index = await openIndex(folders, options);
    const spool = new DirectorySpool(folders, options, lock, index);
    await spool.recover();
    return spool;
  } catch (error) {
    lock.release();
    throw error;
  }
}

export class DirectorySpool implements Spool {
  readonly dropBox: DropBox;
  readonly #folders: SpoolFolders;
  readonly #disk: Disk;
  readonly #report: DirectorySpoolOptions["report"];
  readonly #lock: Lock;
  readonly #index: QueueIndex;
  /** Names of batches in `queue/` that were taken before a crash and are to be read again. */
  #toRead: string[] = [];
  /** Names in `incoming/` as last listed, oldest first. */
  #arrived: string[] = [];
  /** Records of taken batches that nobody has claimed yet. */
  #fresh: ClaimedRecord[] = [];
  readonly #batches = new Map<string, TakenBatch>();
  readonly #claimedIds = new Set<string>();
  #changes: Array<{
    change: IndexChange;
    message: ClaimedRecord;
    resolve: () => void;
    reject: (error: unknown) => void;
  }> = [];
  #lastLane = { route: "", partner: "" };

  constructor(folders: SpoolFolders, options: DirectorySpoolOptions, lock: Lock, index: QueueIndex) {
    this.#folders = folders;
    this.#disk = options.disk ?? nodeDisk;
    this.#report = options.report;
    this.#lock = lock;
    this.#index = index;
    this.dropBox = new DirectoryDropBox({
      directory: folders.incoming,
      disk: this.#disk,
      ...(options.now === undefined ? {} : { now: options.now }),
    });
  }

  /** Finds the batches that a deliverer before us had taken and not finished. */
  async recover(): Promise<void> {
    const examined = this.#index.examinedBatches();
    const names = batchNames(await this.#disk.list(this.#folders.queue));
    this.#toRead = names.filter((name) => !examined.has(name));
    const present = new Set(names);
    for (const name of examined) {
      // Retired, but for the row: the batch was unlinked and then the process died.
      if (!present.has(name) && !this.#index.batchIsInUse(name)) this.#index.forgetBatch(name);
      else if (present.has(name) && !this.#index.batchIsInUse(name)) await this.#retire(this.#batch(name, true));
    }
  }

  async claimNew({ countMax }: ClaimRequest): Promise<ClaimedMessage[]> {
    let listed = false;
    while (this.#fresh.length < countMax) {
      const left = this.#toRead.shift();
      if (left !== undefined) {
        await this.#read(left);
        continue;
      }
      if (this.#arrived.length === 0) {
        if (listed) break;
        this.#arrived = batchNames(await this.#disk.list(this.#folders.incoming));
        listed = true;
        if (this.#arrived.length === 0) break;
      }
      await this.#take(this.#arrived.shift() ?? "");
    }
    const claimed = this.#fresh.splice(0, countMax);
    for (const message of claimed) this.#claimedIds.add(message.meta.id);
    return claimed;
  }

  async claimDue({
    nowMs,
    countMax,
    busyRoutes,
  }: ClaimRequest & { busyRoutes: readonly string[] }): Promise<ClaimedMessage[]> {
    const claimed: ClaimedMessage[] = [];
    const lanes = this.#lanesInTurn().filter(({ route }) => !busyRoutes.includes(route));
    // Each lane gets its share; what some leave, the next call gives to the others.
    const share = Math.max(1, Math.floor(countMax / Math.max(1, lanes.length)));
    for (const lane of lanes) {
      if (claimed.length >= countMax) break;
      const due = this.#index.due(lane, nowMs, share + this.#claimedIds.size);
      const ids = [...new Set(due)].filter((id) => !this.#claimedIds.has(id)).slice(0, share);
      for (const id of ids) {
        const message = await this.#claimIndexed(id);
        if (message !== undefined) claimed.push(message);
      }
      this.#lastLane = lane;
    }
    return claimed;
  }

  settle(message: ClaimedMessage, recipients: readonly RecipientIndex[], state: "delivered" | "failed"): void {
    const record = own(message);
    for (const index of recipients) {
      record.batch.mark(record.place.marksAt + index, state === "delivered" ? "D" : "F");
      record.unsettled.delete(index);
    }
  }

  async putBack(message: ClaimedMessage, { deferred, attempts, delayReported }: PutBack): Promise<void> {
    const record = own(message);
    const unaccounted = [...record.unsettled].filter((index) => !deferred.some((deferral) => deferral.index === index));
    if (unaccounted.length > 0)
      throw new Error(`message ${record.meta.id} is put back without recipients ${unaccounted.join()}`);
    if (deferred.length > 0 || record.indexed) {
      const { batch, place } = record;
      const where = { batch: batch.name, offset: place.offset, length: place.end - place.offset };
      await this.#apply({ meta: record.meta, place: where, deferred, attempts, delayReported }, record);
    }
    await this.#finish(record, deferred.length === 0);
  }

  async setAside(message: ClaimedMessage, reason: string): Promise<void> {
    const record = own(message);
    const file = join(this.#folders.queue, `${record.batch.name}.batch`);
    await this.#setAside(file, `message ${record.meta.id}: ${reason}`, "keep");
    if (record.contentPath !== undefined) await this.#setAside(record.contentPath, reason, "keep");
    for (const index of record.unsettled) record.batch.mark(record.place.marksAt + index, "X");
    record.unsettled.clear();
    await this.putBack(record, { deferred: [], attempts: [], delayReported: record.delayReported });
  }

  nextDueAtMs(): number | undefined {
    return this.#index.nextDueAtMs();
  }

  watch(onHint: () => void): { close(): void } {
    const watcher = watchFolder(this.#folders.incoming, () => onHint());
    watcher.on("error", () => watcher.close()); // only a hint: the deliverer scans in any case
    return watcher;
  }

  async close(): Promise<void> {
    await this.dropBox.close();
    for (const batch of this.#batches.values()) batch.close();
    this.#index.close();
    this.#lock.release();
  }

  /** Takes a batch out of the drop-box: contents first, so that a batch in `queue/` has its contents at hand. */
  async #take(name: string): Promise<void> {
    const source = join(this.#folders.incoming, `${name}.batch`);
    const target = join(this.#folders.queue, `${name}.batch`);
    try {
      const records = await this.#decode(source);
      for (const record of records ?? []) {
        if (record.kind === "record" && !record.inline) await this.#takeContent(record.meta.id);
      }
      await this.#disk.rename(source, target);
      await this.#enlist(name, target, records);
    } catch (error) {
      if (systemCode(error) === "ENOENT") return; // the receiver has withdrawn it: its last sync failed
      if (!isUnreadable(error)) throw error;
      await this.#setAside(source, reasonOf(error), "move");
    }
  }

  async #takeContent(id: string): Promise<void> {
    const source = join(this.#folders.incoming, `${id}.content`);
    if (await this.#disk.exists(source)) await this.#disk.rename(source, join(this.#folders.queue, `${id}.content`));
  }

  /** Reads a batch in `queue/` again, after a crash. */
  async #read(name: string): Promise<void> {
    const path = join(this.#folders.queue, `${name}.batch`);
    try {
      await this.#enlist(name, path, await this.#decode(path));
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      await this.#setAside(path, reasonOf(error), "move");
    }
  }

  async #decode(path: string): Promise<Array<BatchRecord & { content?: Buffer }> | undefined> {
    const file = await this.#disk.openForReading(path);
    try {
      const bytes = await file.read(0, file.sizeBytes);
      return decodeBatch(bytes)?.map((record) =>
        record.kind === "record" && record.inline ? { ...record, content: contentOf(bytes, record) } : record,
      );
    } finally {
      await file.close();
    }
  }

  async #enlist(
    name: string,
    path: string,
    records: ReadonlyArray<BatchRecord & { content?: Buffer }> | undefined,
  ): Promise<void> {
    if (records === undefined) {
      await this.#setAside(path, "the end of the batch is missing or damaged", "move");
      return;
    }
    const batch = this.#batch(name, false);
    for (const record of records) {
      if (record.kind === "damaged") {
        await this.#setAside(path, `record at ${record.offset}: ${record.reason}`, "keep");
        continue;
      }
      const positions = record.marks.flatMap((mark, index) => (mark === "." ? [index] : []));
      if (positions.length === 0 || this.#index.has(record.meta.id)) continue;
      batch.unfinished += 1;
      const message = new ClaimedRecord(this.#disk, batch, record, {
        pending: positions.map((index) => ({ index, attempts: 0, nextAttemptAtMs: 0 })),
        indexed: false,
        delayReported: false,
        content: record.content,
        contentPath: record.inline ? undefined : await this.#contentPath(record.meta.id),
      });
      if (await this.#isSound(message)) this.#fresh.push(message);
    }
    if (batch.unfinished === 0) await this.#finishBatch(batch);
  }

  /** Checks a content that is in memory; one that is not checks itself while it is read. Sets a damaged one aside. */
  async #isSound(message: ClaimedRecord): Promise<boolean> {
    try {
      if (message.content !== undefined) checkContent(message.meta, message.content);
      return true;
    } catch (error) {
      await this.setAside(message, reasonOf(error));
      return false;
    }
  }

  async #contentPath(id: string): Promise<string> {
    const taken = join(this.#folders.queue, `${id}.content`);
    if (await this.#disk.exists(taken)) return taken;
    await this.#takeContent(id);
    return taken;
  }

  async #claimIndexed(id: string): Promise<ClaimedRecord | undefined> {
    const indexed = this.#index.message(id);
    if (indexed === undefined) return undefined;
    const path = join(this.#folders.queue, `${indexed.batch}.batch`);
    const record = await this.#readRecord(path, indexed);
    const batch = this.#batch(indexed.batch, true);
    if (record.kind === "damaged") {
      await this.#setAside(path, `record at ${indexed.offset}: ${record.reason}`, "keep");
      this.#index.hold(id);
      return undefined;
    }
    // All that is unsettled is claimed, due or not: one attempt for the message saves a transaction.
    const pending = this.#index.recipients(id).filter(({ index }) => record.marks[index] === ".");
    batch.unfinished += 1;
    this.#claimedIds.add(id);
    const message = new ClaimedRecord(this.#disk, batch, record, {
      pending,
      indexed: true,
      delayReported: indexed.delayReported,
      content: record.content,
      contentPath: record.inline ? undefined : await this.#contentPath(id),
    });
    return (await this.#isSound(message)) ? message : undefined;
  }

  async #readRecord(path: string, { offset, length }: IndexedMessage): Promise<BatchRecord & { content?: Buffer }> {
    try {
      const file = await this.#disk.openForReading(path);
      try {
        const bytes = await file.read(offset, length);
        const record = decodeRecord(bytes, 0, length);
        if (record.kind === "damaged") return record;
        const { place } = record;
        return {
          ...record,
          ...(record.inline ? { content: contentOf(bytes, record) } : {}),
          place: {
            ...place,
            offset,
            marksAt: place.marksAt + offset,
            contentAt: place.contentAt + offset,
            end: offset + length,
          },
        };
      } finally {
        await file.close();
      }
    } catch (error) {
      if (!isUnreadable(error) && systemCode(error) !== "ENOENT") throw error;
      return { kind: "damaged", offset, reason: reasonOf(error) };
    }
  }

  /** Changes of one turn of the event loop share one transaction, and so one sync. */
  #apply(change: IndexChange, message: ClaimedRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#changes.length === 0) setImmediate(() => this.#applyChanges());
      this.#changes.push({ change, message, resolve, reject });
    });
  }

  #applyChanges(): void {
    const waiting = this.#changes;
    this.#changes = [];
    try {
      this.#index.apply(waiting.map(({ change }) => change));
      for (const { resolve } of waiting) resolve();
    } catch (error) {
      for (const { reject } of waiting)
        reject(new SpoolFault("io", `the queue index cannot be written: ${reasonOf(error)}`, error));
    }
  }

  async #finish(record: ClaimedRecord, settled: boolean): Promise<void> {
    this.#claimedIds.delete(record.meta.id);
    if (settled && record.contentPath !== undefined) {
      // Without its marks the record would ask for a content that is gone.
      await record.batch.syncMarks();
      await this.#disk.unlink(record.contentPath);
    }
    record.batch.unfinished -= 1;
    if (record.batch.unfinished === 0) await this.#finishBatch(record.batch);
  }

  async #finishBatch(batch: TakenBatch): Promise<void> {
    if (this.#index.batchIsInUse(batch.name)) {
      if (!batch.examined) this.#index.markExamined(batch.name);
      batch.close();
      this.#batches.delete(batch.name);
      return;
    }
    await this.#retire(batch);
  }

  async #retire(batch: TakenBatch): Promise<void> {
    if (this.#index.knowsBatch(batch.name)) {
      await batch.syncMarks();
      this.#index.forgetBatch(batch.name);
    }
    batch.close();
    this.#batches.delete(batch.name);
    const file = join(this.#folders.queue, `${batch.name}.batch`);
    await this.#disk.unlink(file).catch((error: unknown) => {
      this.#report({ kind: "leftover", file, reason: reasonOf(error) });
    });
  }

  #batch(name: string, examined: boolean): TakenBatch {
    const batch = this.#batches.get(name) ?? new TakenBatch(this.#disk, this.#folders.queue, name, examined);
    this.#batches.set(name, batch);
    return batch;
  }

  #lanesInTurn(): Array<{ route: string; partner: string }> {
    const lanes = this.#index.lanes();
    const { route, partner } = this.#lastLane;
    const next = lanes.findIndex((lane) => lane.route > route || (lane.route === route && lane.partner > partner));
    return next < 0 ? lanes : [...lanes.slice(next), ...lanes.slice(0, next)];
  }

  async #setAside(file: string, reason: string, how: "move" | "keep"): Promise<void> {
    await setAsideFile(this.#folders.corrupt, file, reason, how);
    this.#report({ kind: "damaged", file, reason });
  }
}

async function openIndex(folders: SpoolFolders, options: DirectorySpoolOptions): Promise<QueueIndex> {
  const file = join(folders.queue, "index.sqlite");
  let reason = "";
  try {
    const index = new QueueIndex(file);
    if (index.isIntact()) return index;
    index.close();
    reason = "its quick check failed";
  } catch (error) {
    reason = reasonOf(error);
    if (!/malformed|not a database|corrupt/i.test(reason)) throw error;
  }
  for (const suffix of ["", "-wal", "-shm"]) {
    await setAsideFile(folders.corrupt, `${file}${suffix}`, reason, "move");
  }
  options.report({ kind: "index rebuilt", file, reason });
  return new QueueIndex(file);
}

function batchNames(names: readonly string[]): string[] {
  return names.flatMap((name) => batchNamePattern.exec(name)?.[1] ?? []).toSorted();
}

function contentOf(bytes: Buffer, { place }: BatchRecord & { kind: "record" }): Buffer {
  return bytes.subarray(place.contentAt, place.contentAt + place.contentBytes);
}

function own(message: ClaimedMessage): ClaimedRecord {
  if (!(message instanceof ClaimedRecord)) throw new TypeError("the message was claimed from another spool");
  return message;
}

/** Failures of one file, not of the disk: the file is set aside, and the rest goes on. */
function isUnreadable(error: unknown): boolean {
  const code = systemCode(error);
  return (
    (error instanceof SpoolFault && error.kind === "damaged") ||
    (code !== undefined && ["EFTYPE", "ETRUNCATED", "ELOOP", "EISDIR", "EACCES"].includes(code)) ||
    error instanceof SyntaxError
  );
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
