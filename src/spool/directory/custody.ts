/**
 * What the deliverer has in hand: messages that are claimed or about to be, and the batches they stand in. Settles, puts
 * back, sets aside, and removes a batch when nothing in it is left to do.
 *
 * Promises: a message in hand is in no second hand; it leaves when what is left of it is on stable storage; a batch is
 * removed only when it has been read to its end and the index knows of nothing in it. What the disk does not take is kept.
 */
import type { PutBack, RecipientIndex, SpoolUsage } from "../spool.ts";
import type { Ballast } from "./ballast.ts";
import type { BatchStore, LoadedRecord } from "./batch-store.ts";
import { headLineBytes } from "./batch.ts";
import type { Disk } from "./disk.ts";
import { reasonOf } from "./fault.ts";
import { IndexWriter } from "./index-writer.ts";
import type { Report } from "./problem.ts";
import type { IndexedMessage } from "./index-reader.ts";
import type { QueueIndex } from "./queue-index.ts";
import { ClaimedRecord, TakenBatch, type ClaimState } from "./taken-batch.ts";

export interface CustodyOptions {
  readonly disk: Disk;
  readonly store: BatchStore;
  readonly index: QueueIndex;
  readonly report: Report;
  readonly ballast: Ballast;
  /** Is it not known yet what is in the batch? Then it is not to be removed. */
  readonly isUnread: (batch: string) => boolean;
}

/** How long a message waits whose damage cannot be set aside now. */
export const unreadablePauseMs = 3_600_000;

export class Custody {
  readonly #options: CustodyOptions;
  readonly #store: BatchStore;
  readonly #index: QueueIndex;
  readonly #writer: IndexWriter;
  readonly #messages = new Map<string, ClaimedRecord>();
  readonly #batches = new Map<string, TakenBatch>();
  readonly #finishing = new Set<Promise<void>>();
  /** The time of the last claim: waits are counted from it, by whatever clock the deliverer goes. */
  nowMs = 0;

  constructor(options: CustodyOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#index = options.index;
    this.#writer = new IndexWriter(options.index, ({ message }) =>
      options.report({ kind: "not written", file: "index.sqlite", reason: message }),
    );
  }

  has(id: string): boolean {
    return this.#messages.has(id);
  }

  /** The batch, as it is in hand or is taken into it now. Undefined octets: the index knows them. */
  batch(name: string, bytes?: number): TakenBatch {
    const path = this.#store.batchPath(name);
    const made = () =>
      new TakenBatch(this.#options.disk, path, { name, bytes: bytes ?? 0, known: bytes === undefined });
    const batch = this.#batches.get(name) ?? made();
    this.#batches.set(name, batch);
    return batch;
  }

  /** Takes a message in hand. The batch's marks must be open. */
  claim(batch: TakenBatch, record: LoadedRecord, state: Omit<ClaimState, "content" | "contentPath">): ClaimedRecord {
    const contentPath = record.inline ? undefined : this.#store.contentPath(batch.name, record.meta.id);
    const { content } = record;
    const message = new ClaimedRecord(this.#options.disk, batch, record, { ...state, content, contentPath });
    batch.unfinished += 1;
    this.#messages.set(message.meta.id, message);
    return message;
  }

  mark(message: ClaimedRecord, recipients: readonly RecipientIndex[], mark: "D" | "F" | "X"): void {
    const { batch, place, unsettled } = message;
    for (const index of recipients) if (unsettled.delete(index)) batch.mark(place.marksAt + index, mark);
    if (!batch.owesMarks) return;
    const file = this.#store.batchPath(batch.name);
    this.#options.report({ kind: "not written", file, reason: `marks of message ${message.meta.id}` });
  }

  async putBack(message: ClaimedRecord, { deferred, attempts, delayReported }: PutBack): Promise<void> {
    const { meta, batch, unsettled, location, request } = message;
    const waiting = new Map(deferred.filter(({ index }) => unsettled.has(index)).map((entry) => [entry.index, entry]));
    if (waiting.size !== unsettled.size)
      throw new Error(`message ${meta.id} is put back without recipients that are not settled`);
    if (!deferred.every(({ nextAttemptAtMs }) => Number.isFinite(nextAttemptAtMs)))
      throw new TypeError(`message ${meta.id} is put back for a time that is none`);
    message.release();
    if (waiting.size === 0 && !message.indexed && request === undefined) {
      await this.#finish(message);
      return;
    }
    const place = { ...location, batchBytes: batch.bytes };
    const change = {
      kind: "put back" as const,
      meta,
      place,
      deferred: [...waiting.values()],
      attempts,
      delayReported,
      answered: request,
      nowMs: this.nowMs,
    };
    let finishing: Promise<void> | undefined;
    await this.#writer.write(change, () => {
      if (waiting.size > 0) batch.known = true;
      finishing = this.#finish(message);
    });
    await finishing;
  }

  /** Moves a message to `corrupt/`; where that is not possible it waits, and will be found damaged again. */
  async setAside(message: ClaimedRecord, reason: string): Promise<void> {
    const { meta, location, unsettled, delayReported } = message;
    try {
      await this.#store.keepMessage(location, meta.id, reason);
    } catch (error) {
      const text = `damaged (${reason}), and it cannot be set aside: ${reasonOf(error)}`;
      this.#options.report({ kind: "unreadable", file: location.batch, reason: `message ${meta.id}: ${text}` });
      const nextAttemptAtMs = this.nowMs + unreadablePauseMs;
      const deferred = message.pending
        .filter(({ index }) => unsettled.has(index))
        .map(({ index, attempts }) => ({ index, attempts, nextAttemptAtMs, route: null }));
      const attempt = { atMs: this.nowMs, recipients: [...unsettled], server: null, text };
      await this.putBack(message, { deferred, attempts: [attempt], delayReported });
      return;
    }
    this.mark(message, [...unsettled], "X");
    await this.putBack(message, { deferred: [], attempts: [], delayReported });
  }

  /**
   * Removes messages that are in the index and in nobody's hand, without reading them.
   * @param how "mark" them as removed, or "leave" their records as they are, since they are damaged.
   */
  async removeIndexed(messages: readonly IndexedMessage[], how: "mark" | "leave"): Promise<void> {
    for (const { id, batch, offset } of how === "mark" ? messages : []) {
      for (const { index } of this.#index.recipients(id)) this.batch(batch).mark(offset + headLineBytes + index, "X");
    }
    this.#index.remove(messages.map(({ id }) => id));
    for (const { id, batch } of messages) await this.unlinkSettled(this.batch(batch), id);
    for (const batch of new Set(messages.map(({ batch: name }) => this.batch(name)))) {
      if (batch.unfinished === 0) await this.finishBatch(batch);
    }
  }

  /** Removes the content of a settled message. The marks first: without them, its record would ask for it. */
  async unlinkSettled(batch: TakenBatch, id: string): Promise<void> {
    try {
      if (!(await this.#store.hasContent(batch.name, id))) return;
      await batch.syncMarks();
      await this.#store.unlinkContent(batch.name, id);
    } catch (error) {
      this.#leftover(this.#store.contentPath(batch.name, id), error);
    }
  }

  /** Lets go of a batch that has been read to its end, if nothing of it is in hand. */
  async finishIfIdle(name: string): Promise<void> {
    const batch = this.#batches.get(name);
    if (batch?.unfinished === 0) await this.finishBatch(batch);
  }

  /** To be called when nothing of the batch is in hand: lets go of it, and removes it if nothing of it is left. */
  async finishBatch(batch: TakenBatch): Promise<void> {
    const { name } = batch;
    if (this.#options.isUnread(name)) return;
    try {
      if (!this.#index.batchIsInUse(name)) {
        await this.#retire(batch);
      } else if (!batch.owesMarks) {
        this.#letGo(batch);
        if (!this.#index.isExamined(name)) await this.#writer.write({ kind: "examined", batch: name });
      }
    } catch (error) {
      this.#letGo(batch);
      this.#leftover(this.#store.batchPath(name), error);
    }
  }

  /** Writes what the disk has not taken yet; throws a SpoolFault if it still does not. */
  async payDebts(): Promise<void> {
    for (const batch of [...this.#batches.values()].filter(({ owesMarks }) => owesMarks)) {
      batch.payMarks();
      if (batch.unfinished === 0) await this.finishBatch(batch);
    }
    if (this.#writer.lacksRoom) await this.#options.ballast.throwOverboard();
    this.#writer.flush();
  }

  usage(unreadBytes: number): SpoolUsage {
    const { partners, batchBytes } = this.#index.usage();
    const partnerBytes = new Map(partners);
    for (const { indexed, meta } of this.#messages.values()) {
      const partner = meta.partner ?? "";
      if (!indexed) partnerBytes.set(partner, (partnerBytes.get(partner) ?? 0) + meta.wireBytes);
    }
    let totalBytes = batchBytes + unreadBytes;
    for (const { known, bytes } of this.#batches.values()) if (!known) totalBytes += bytes;
    return { totalBytes, partnerBytes };
  }

  /** Writes what can be written, and lets go of all. What is in hand is found again by the next deliverer. */
  async close(): Promise<void> {
    try {
      this.#writer.close();
    } catch (error) {
      this.#options.report({ kind: "not written", file: "index.sqlite", reason: reasonOf(error) });
    }
    await Promise.all(this.#finishing);
    for (const batch of this.#batches.values()) if (batch.owesMarks) batch.tryToPayMarks();
    for (const batch of this.#batches.values()) batch.close();
    this.#batches.clear();
  }

  /** The message has left: what is left of it is on stable storage. Never rejects. */
  #finish(message: ClaimedRecord): Promise<void> {
    const finishing = this.#leave(message).finally(() => this.#finishing.delete(finishing));
    this.#finishing.add(finishing);
    return finishing;
  }

  async #leave({ meta, batch, unsettled, contentPath }: ClaimedRecord): Promise<void> {
    if (unsettled.size === 0 && contentPath !== undefined) await this.unlinkSettled(batch, meta.id);
    this.#messages.delete(meta.id);
    batch.unfinished -= 1;
    if (batch.unfinished === 0) await this.finishBatch(batch);
  }

  async #retire(batch: TakenBatch): Promise<void> {
    const { name } = batch;
    const isKnown = this.#index.knowsBatch(name);
    // When the index has forgotten the batch, and a loss of power brings its file back, its marks alone tell what is left.
    if (isKnown && (await this.#store.hasBatch(name))) await batch.syncMarks();
    this.#letGo(batch);
    await this.#store.unlinkBatch(name);
    if (isKnown) await this.#writer.write({ kind: "retired", batch: name });
  }

  #letGo(batch: TakenBatch): void {
    batch.close();
    if (this.#batches.get(batch.name) === batch) this.#batches.delete(batch.name);
  }

  #leftover(file: string, error: unknown): void {
    this.#options.report({ kind: "leftover", file, reason: reasonOf(error) });
  }
}
