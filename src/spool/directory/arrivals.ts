/**
 * Messages that nobody has tried yet: reads batch after batch, and gives out what is in them, oldest first.
 *
 * Promises: a batch is given out as a whole or, if anything fails, not at all, and then it is read again later; what an
 * operator has asked for a message is done before the message is tried.
 */
import type { PendingRecipient, SpoolFault } from "../spool.ts";
import type { Backlog, BacklogItem } from "./backlog.ts";
import type { BatchStore, LoadedBatch, LoadedRecord } from "./batch-store.ts";
import type { Custody } from "./custody.ts";
import { isLocal, isPerhapsDisk, spoolFault } from "./fault.ts";
import type { Report } from "./problem.ts";
import type { RequestedAction } from "./index-reader.ts";
import type { QueueIndex } from "./queue-index.ts";
import { RequestSweep } from "./request-sweep.ts";
import { damageOf, type ClaimedRecord, type TakenBatch } from "./taken-batch.ts";

export interface ArrivalsOptions {
  readonly store: BatchStore;
  readonly index: QueueIndex;
  readonly custody: Custody;
  readonly backlog: Backlog;
  readonly report: Report;
  readonly honoured: (id: string, action: RequestedAction) => void;
}

/** How many batches in a row may be unreadable before it is taken for a fault of the disk. */
const unreadableMax = 3;

export class Arrivals {
  readonly #options: ArrivalsOptions;
  readonly #requests: RequestSweep;
  /** In hand, and given to nobody yet. */
  #fresh: ClaimedRecord[] = [];

  constructor(options: ArrivalsOptions) {
    this.#options = options;
    this.#requests = new RequestSweep(options.index, (id) => options.custody.has(id));
  }

  /** Fails with a SpoolFault, and then gives nothing. */
  async claim(countMax: number): Promise<ClaimedRecord[]> {
    try {
      await this.#fetch(countMax);
    } catch (error) {
      if (this.#fresh.length === 0) throw spoolFault(error); // else it comes up again at the next claim
    }
    return this.#fresh.splice(0, countMax);
  }

  async #fetch(countMax: number): Promise<void> {
    const { backlog } = this.#options;
    let listed = false;
    let unreadable = 0;
    while (this.#fresh.length < countMax) {
      const item = backlog.peek();
      if (item === undefined && listed) return;
      if (item === undefined) {
        await this.#requests.around(() => backlog.list());
        listed = true;
        continue;
      }
      const fault = await this.#read(item);
      if (fault === undefined) unreadable = 0;
      else if (isPerhapsDisk(fault)) unreadable += 1;
      if (fault !== undefined && unreadable === unreadableMax) throw fault;
    }
  }

  /** Reads a batch; or puts it off, if it alone cannot be read, and gives the reason. */
  async #read(next: BacklogItem): Promise<SpoolFault | undefined> {
    const { store, backlog, custody, report } = this.#options;
    const { name } = next;
    const loading = next.taken ? await store.load(name) : await store.take(name);
    let item = next;
    let fault: SpoolFault | undefined;
    switch (loading.kind) {
      case "gone":
        break;
      case "unreadable":
        if (loading.taken) item = backlog.moved(next);
        fault = loading.fault;
        break;
      case "loaded":
        item = backlog.moved(next);
        try {
          await this.#enlist(loading.batch);
        } catch (error) {
          fault = spoolFault(error);
        }
        break;
    }
    if (fault === undefined) {
      backlog.done(item);
      await custody.finishIfIdle(name);
      return undefined;
    }
    if (!isLocal(fault)) throw fault;
    backlog.putOff(item);
    report({ kind: "unreadable", file: name, reason: fault.message });
    return fault;
  }

  /** Takes in hand what is left of a batch. If anything fails, nothing of it is. */
  async #enlist({ name, bytes, records }: LoadedBatch): Promise<void> {
    const { custody, index } = this.#options;
    const batch = custody.batch(name, index.knowsBatch(name) ? undefined : bytes);
    batch.openMarks();
    const found = new Map<string, { record: LoadedRecord; request: RequestedAction | undefined }>();
    for (const record of records) {
      const { id } = record.meta;
      const indexedIn = index.batchOf(id);
      if (!record.marks.includes(".")) {
        if (!record.inline) await custody.unlinkSettled(batch, id);
      } else if (indexedIn === name) {
        continue; // the index says what is left of it
      } else if (indexedIn !== undefined || custody.has(id) || found.has(id)) {
        await this.#refuseStranger(batch, record);
      } else {
        found.set(id, { record, request: index.request(id) });
      }
    }
    // From here on nothing fails. All are in hand before the first can leave: else the batch could be taken for finished.
    const messages = [...found.values()].map(({ record, request }) => ({
      message: custody.claim(batch, record, {
        pending: pendingOf(record),
        indexed: false,
        delayReported: false,
        request: request === "bounce" ? request : undefined,
      }),
      request,
    }));
    await Promise.all(messages.map(({ message, request }) => this.#offer(message, request)));
  }

  /** Gives a message out, unless it is damaged, or the operator was faster. */
  async #offer(message: ClaimedRecord, request: RequestedAction | undefined): Promise<void> {
    const { custody, honoured } = this.#options;
    const damage = message.content === undefined ? undefined : damageOf(message.meta, message.content);
    if (damage !== undefined) {
      await custody.setAside(message, damage);
    } else if (request === "hold" || request === "remove") {
      // Once it stands in the index, the index answers the request: at once, if it is to be held; else at the next claim.
      const deferred = message.pending.map((recipient) => ({ ...recipient, route: null }));
      await custody.putBack(message, { deferred, attempts: [], delayReported: false });
      if (request === "hold") honoured(message.meta.id, request);
    } else {
      this.#fresh.push(message);
    }
  }

  /** A second message by the id of one that we have: a forgery, or a copy that somebody put there. */
  async #refuseStranger(batch: TakenBatch, { meta, place, marks }: LoadedRecord): Promise<void> {
    const location = { batch: batch.name, offset: place.offset, length: place.end - place.offset };
    await this.#options.store.keepMessage(location, meta.id, "another message has the same id");
    for (const [at, mark] of marks.entries()) if (mark === ".") batch.mark(place.marksAt + at, "X");
  }
}

function pendingOf({ marks }: LoadedRecord): PendingRecipient[] {
  return marks.flatMap((mark, index) => (mark === "." ? [{ index, attempts: 0, nextAttemptAtMs: 0 }] : []));
}
