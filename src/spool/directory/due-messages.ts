/**
 * Messages that wait in the index: gives out what is due, in turns by route and partner, and does what the operator has
 * asked for.
 *
 * Promises: nobody's backlog takes the turns of others; a message that cannot be read holds up no other; what fails on the
 * way leaves nothing claimed.
 */
import type { SpoolFault } from "../spool.ts";
import type { BatchStore, LoadedRecord } from "./batch-store.ts";
import { unreadablePauseMs, type Custody } from "./custody.ts";
import { isLocal, reasonOf, spoolFault } from "./fault.ts";
import type { Report } from "./problem.ts";
import type { IndexedMessage, IndexedRecipient, RequestedAction } from "./index-reader.ts";
import type { Lane, QueueIndex } from "./queue-index.ts";
import { damageOf, type ClaimedRecord } from "./taken-batch.ts";

export interface DueMessagesOptions {
  readonly store: BatchStore;
  readonly index: QueueIndex;
  readonly custody: Custody;
  readonly report: Report;
  readonly honoured: (id: string, action: RequestedAction) => void;
}

const requestsPerClaimMax = 1_000;

export class DueMessages {
  readonly #options: DueMessagesOptions;
  #lastLane: Lane = { route: "", partner: "" };

  constructor(options: DueMessagesOptions) {
    this.#options = options;
  }

  /** Fails with a SpoolFault, and then gives nothing. */
  async claim(nowMs: number, countMax: number, busyRoutes: readonly string[]): Promise<ClaimedRecord[]> {
    const claimed: ClaimedRecord[] = [];
    try {
      await this.#honourRequests(countMax, claimed);
      await this.#claimLanes(nowMs, countMax, busyRoutes, claimed);
    } catch (error) {
      if (claimed.length === 0) throw spoolFault(error); // else it comes up again at the next claim
    }
    return claimed;
  }

  async #claimLanes(
    nowMs: number,
    countMax: number,
    busyRoutes: readonly string[],
    claimed: ClaimedRecord[],
  ): Promise<void> {
    const { index } = this.#options;
    const lanes = this.#lanesInTurn().filter(({ route }) => !busyRoutes.includes(route));
    // Each lane gets its share; what some leave, the next call gives to the others.
    const share = Math.max(1, Math.floor(countMax / Math.max(1, lanes.length)));
    for (const lane of lanes) {
      const room = Math.min(share, countMax - claimed.length);
      if (room <= 0) return;
      for (const id of index.due(lane, nowMs, room, this.#isFree)) {
        const message = await this.#claim(id);
        if (message !== undefined) claimed.push(message);
      }
      this.#lastLane = lane;
    }
  }

  #lanesInTurn(): Lane[] {
    const lanes = this.#options.index.lanes();
    const { route, partner } = this.#lastLane;
    const next = lanes.findIndex((lane) => lane.route > route || (lane.route === route && lane.partner > partner));
    return next < 0 ? lanes : [...lanes.slice(next), ...lanes.slice(0, next)];
  }

  /** What was asked for messages that stand in the index; for those in somebody's hand, when they have been put back. */
  async #honourRequests(countMax: number, claimed: ClaimedRecord[]): Promise<void> {
    const { index, custody, honoured } = this.#options;
    const removed: IndexedMessage[] = [];
    for (const { id, action } of index.requests(requestsPerClaimMax, this.#isFree)) {
      const indexed = index.message(id);
      if (indexed === undefined) continue;
      switch (action) {
        case "hold":
          index.hold(id);
          honoured(id, action);
          break;
        case "remove":
          removed.push(indexed);
          break;
        case "bounce": {
          const message = claimed.length < countMax ? await this.#claim(id) : undefined;
          if (message !== undefined) claimed.push(message);
          break;
        }
      }
    }
    if (removed.length === 0) return;
    await custody.removeIndexed(removed, "mark");
    for (const { id } of removed) honoured(id, "remove");
  }

  /** Takes a message in hand; undefined if there is nothing to be done with it now. */
  async #claim(id: string): Promise<ClaimedRecord | undefined> {
    const { store, index, custody } = this.#options;
    const indexed = index.message(id);
    if (indexed === undefined) return undefined;
    const waiting = index.recipients(id);
    let record: LoadedRecord;
    try {
      record = await store.loadRecord(indexed);
      custody.batch(indexed.batch).openMarks();
    } catch (error) {
      await this.#cannotClaim(indexed, spoolFault(error));
      await custody.finishIfIdle(indexed.batch);
      return undefined;
    }
    const message = this.#take(indexed, record, waiting);
    const damage = message.content === undefined ? undefined : damageOf(message.meta, message.content);
    if (damage === undefined && message.pending.length > 0) return message;
    if (damage !== undefined) await custody.setAside(message, damage);
    // Settled, but for its row: the process died in between.
    else await custody.putBack(message, { deferred: [], attempts: [], delayReported: indexed.delayReported });
    return undefined;
  }

  #take(indexed: IndexedMessage, record: LoadedRecord, waiting: readonly IndexedRecipient[]): ClaimedRecord {
    const { custody } = this.#options;
    const batch = custody.batch(indexed.batch);
    // Who does not wait is settled, also where a loss of power has taken the mark: once the row is gone, it alone tells.
    const isWaiting = new Set(waiting.map((recipient) => recipient.index));
    for (const [at, mark] of record.marks.entries()) {
      if (mark === "." && !isWaiting.has(at)) batch.mark(record.place.marksAt + at, "D");
    }
    return custody.claim(batch, record, {
      // All that is unsettled is claimed, due or not: one attempt for the message saves a transaction.
      pending: waiting
        .filter((recipient) => record.marks[recipient.index] === ".")
        .map(({ index, attempts, nextAttemptAtMs }) => ({ index, attempts, nextAttemptAtMs })),
      indexed: true,
      delayReported: indexed.delayReported,
      request: indexed.request === "bounce" ? indexed.request : undefined,
    });
  }

  /** One message that cannot be read must not be in the way of all others that are due. */
  async #cannotClaim(indexed: IndexedMessage, fault: SpoolFault): Promise<void> {
    const { store, index, custody, report } = this.#options;
    if (fault.kind !== "damaged" && !isLocal(fault)) throw fault;
    let reason = fault.message;
    if (fault.kind === "damaged") {
      try {
        await store.keepMessage(indexed, indexed.id, reason);
        await custody.removeIndexed([indexed], "leave");
        return;
      } catch (failure) {
        reason = `${reason}, and it cannot be set aside: ${reasonOf(failure)}`;
      }
    }
    report({ kind: "unreadable", file: indexed.batch, reason: `message ${indexed.id}: ${reason}` });
    index.postpone(indexed.id, custody.nowMs, custody.nowMs + unreadablePauseMs);
    index.forgetRequest(indexed.id); // else it would be tried at every claim
  }

  readonly #isFree = (id: string): boolean => !this.#options.custody.has(id);
}
