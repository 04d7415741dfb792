/**
 * The deliverer's index of what was not settled at the first attempt: when each recipient is due, how often it was tried,
 * and what was said. And what an operator wants done with a message, until the deliverer has done it.
 *
 * The index decides *when*; the marks in the batch files decide *whether*. It can be rebuilt without it (docs/spool.md).
 * Its queries cost the logarithm of the queue's length.
 */
import type { AttemptRecord, Deferral, MessageMeta } from "../spool.ts";
import { stringOf } from "./index-database.ts";
import { IndexReader, readAction, type RequestedAction } from "./index-reader.ts";

export interface Lane {
  readonly route: string;
  readonly partner: string;
}

/** What is written into the index together with whatever else there is to be written at that moment. */
export type IndexChange =
  | PutBackChange
  /** The index knows all that is left of the batch. */
  | { readonly kind: "examined"; readonly batch: string }
  /** Nothing is left of the batch. */
  | { readonly kind: "retired"; readonly batch: string };

/** One message's change: the recipients that stay, those that are settled, and the request that is answered by it. */
export interface PutBackChange {
  readonly kind: "put back";
  readonly meta: MessageMeta;
  readonly place: {
    readonly batch: string;
    readonly batchBytes: number;
    readonly offset: number;
    readonly length: number;
  };
  readonly deferred: readonly Deferral[];
  readonly attempts: readonly AttemptRecord[];
  readonly delayReported: boolean;
  readonly answered: RequestedAction | undefined;
  readonly nowMs: number;
}

const textMax = 2_000;
export class QueueIndex extends IndexReader {
  /** Opens the index, or makes it. Throws a SpoolFault. */
  constructor(file: string) {
    super(file, "make");
  }

  // ── what was put back ──────────────────────────────────────────────────────────────────────────────────────────────

  /** Writes all changes in one transaction: durable when it returns, all or none. */
  apply(changes: readonly IndexChange[]): void {
    this.database.transaction(() => {
      for (const change of changes) {
        switch (change.kind) {
          case "put back":
            this.#putBack(change);
            break;
          case "examined":
            this.database.run("UPDATE batch SET examined = 1 WHERE name = ?", change.batch);
            break;
          case "retired":
            this.database.run("DELETE FROM batch WHERE name = ?", change.batch);
            break;
        }
      }
    });
  }

  /** Moves everything from the log into the database, and gives back the log's room, unless a reader is in the way. */
  emptyLog(): void {
    this.database.get("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  #putBack(change: PutBackChange): void {
    const { meta, deferred, attempts, answered } = change;
    if (answered !== undefined) {
      this.database.run("DELETE FROM request WHERE message = ? AND action = ?", meta.id, answered);
    }
    if (deferred.length === 0) {
      this.#delete(meta.id);
      return;
    }
    this.#put(change);
    for (const { atMs, recipients, server, text } of attempts) {
      this.database.run(
        "INSERT INTO attempt (message, at, recipients, server, text) VALUES (?, ?, ?, ?, ?)",
        meta.id,
        Math.round(atMs),
        JSON.stringify(recipients),
        server,
        text.slice(0, textMax),
      );
    }
  }

  #put({ meta, place, deferred, delayReported, nowMs }: PutBackChange): void {
    const partner = meta.partner ?? "";
    this.database.run(
      "INSERT INTO batch (name, bytes, examined) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
      place.batch,
      place.batchBytes,
    );
    this.database.run(
      `INSERT INTO message (id, batch, offset, length, partner, bytes, received_at, delay_reported)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET delay_reported = excluded.delay_reported`,
      meta.id,
      place.batch,
      place.offset,
      place.length,
      partner,
      meta.wireBytes,
      meta.receivedAtMs,
      delayReported ? 1 : 0,
    );
    this.#answerHold(meta.id);
    const held = this.database.get("SELECT held FROM message WHERE id = ?", meta.id)?.["held"] === 1 ? 1 : 0;
    this.database.run("DELETE FROM recipient WHERE message = ?", meta.id);
    for (const { index, route, attempts: count, nextAttemptAtMs } of deferred) {
      this.database.run(
        `INSERT INTO recipient (message, position, route, partner, attempts, deferred_at, next_attempt_at, held)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        meta.id,
        index,
        route ?? "",
        partner,
        count,
        Math.round(nowMs),
        Math.round(nextAttemptAtMs),
        held,
      );
    }
  }

  #answerHold(id: string): void {
    if (this.database.run("DELETE FROM request WHERE message = ? AND action = 'hold'", id) === 0) return;
    this.database.run("UPDATE message SET held = 1 WHERE id = ?", id);
    this.database.run("UPDATE recipient SET held = 1 WHERE message = ?", id);
  }

  #delete(id: string): void {
    this.database.run("DELETE FROM message WHERE id = ?", id);
    this.database.run("DELETE FROM request WHERE message = ?", id);
  }

  /** Takes messages out, whatever they wait for. */
  remove(ids: readonly string[]): void {
    this.database.transaction(() => {
      for (const id of ids) this.#delete(id);
    });
  }

  /** Puts the next attempt off for a message that cannot be read now. */
  postpone(id: string, nowMs: number, untilMs: number): void {
    this.database.run(
      "UPDATE recipient SET deferred_at = ?, next_attempt_at = max(next_attempt_at, ?) WHERE message = ?",
      Math.round(nowMs),
      Math.round(untilMs),
      id,
    );
  }

  // ── what is due ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Every route and partner that has something deferred and not held; skips from one to the next in the index. */
  lanes(): Lane[] {
    const found: Lane[] = [];
    for (let lane = this.#laneAfter(undefined); lane !== undefined; lane = this.#laneAfter(lane)) found.push(lane);
    return found;
  }

  #laneAfter(last: Lane | undefined): Lane | undefined {
    const [where, values] =
      last === undefined ? ["", []] : ["AND (route, partner) > (?, ?)", [last.route, last.partner]];
    const row = this.database.get(
      `SELECT route, partner FROM recipient WHERE held = 0 ${where} ORDER BY route, partner LIMIT 1`,
      ...values,
    );
    return row === undefined ? undefined : { route: stringOf(row["route"]), partner: stringOf(row["partner"]) };
  }

  /** Ids of messages of one lane that are due and free to be claimed, and for which nothing is asked; longest due first. */
  due({ route, partner }: Lane, nowMs: number, countMax: number, isFree: (id: string) => boolean): string[] {
    const found = new Set<string>();
    this.database.visit(
      `SELECT message FROM recipient WHERE held = 0 AND route = ? AND partner = ? AND next_attempt_at <= ?
         AND NOT EXISTS (SELECT 1 FROM request WHERE request.message = recipient.message)
       ORDER BY next_attempt_at`,
      [route, partner, nowMs],
      (row) => {
        const id = stringOf(row["message"]);
        if (isFree(id)) found.add(id);
        return found.size < countMax ? "more" : "enough";
      },
    );
    return [...found];
  }

  nextDueAtMs(): number | undefined {
    let earliest: number | undefined;
    for (const { route, partner } of this.lanes()) {
      const row = this.database.get(
        `SELECT next_attempt_at AS at FROM recipient WHERE held = 0 AND route = ? AND partner = ?
         ORDER BY next_attempt_at LIMIT 1`,
        route,
        partner,
      );
      const at = row?.["at"];
      if (typeof at === "number" && (earliest === undefined || at < earliest)) earliest = at;
    }
    return earliest;
  }

  /**
   * A wait that began after `latestMs` was set by a clock that has been set back since: it begins at `nowMs`. Reads every
   * recipient; gives how many were moved.
   */
  moveWaits(latestMs: number, nowMs: number): number {
    return this.database.run(
      `UPDATE recipient SET next_attempt_at = ?1 + max(0, next_attempt_at - deferred_at), deferred_at = ?1
       WHERE deferred_at > ?2`,
      Math.round(nowMs),
      Math.round(latestMs),
    );
  }

  // ── what the operator wants ────────────────────────────────────────────────────────────────────────────────────────

  /** Requests for messages that stand in the index and are free. */
  requests(countMax: number, isFree: (id: string) => boolean): Array<{ id: string; action: RequestedAction }> {
    const found: Array<{ id: string; action: RequestedAction }> = [];
    // CROSS: the requests are few, and the messages many.
    this.database.visit(
      "SELECT request.message AS id, action FROM request CROSS JOIN message ON message.id = request.message",
      [],
      (row) => {
        const id = stringOf(row["id"]);
        if (isFree(id)) found.push({ id, action: readAction(row["action"]) });
        return found.length < countMax ? "more" : "enough";
      },
    );
    return found;
  }

  /** Requests for messages that the index does not know, or not yet. */
  strayRequests(): string[] {
    return this.database
      .all("SELECT message FROM request WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = request.message)")
      .map((row) => stringOf(row["message"]));
  }

  forgetRequest(id: string): void {
    this.database.run("DELETE FROM request WHERE message = ?", id);
  }

  hold(id: string): void {
    this.database.transaction(() => this.#answerHold(id));
  }

  // ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Batches of which nothing waits. */
  idleBatches(): string[] {
    return this.database
      .all("SELECT name FROM batch WHERE NOT EXISTS (SELECT 1 FROM message WHERE batch = name)")
      .map((row) => stringOf(row["name"]));
  }

  isExamined(batch: string): boolean {
    return this.database.get("SELECT 1 FROM batch WHERE name = ? AND examined = 1", batch) !== undefined;
  }

  batchIsInUse(batch: string): boolean {
    return this.database.get("SELECT 1 FROM message WHERE batch = ? LIMIT 1", batch) !== undefined;
  }

  knowsBatch(batch: string): boolean {
    return this.database.get("SELECT 1 FROM batch WHERE name = ?", batch) !== undefined;
  }
}
