/**
 * The deliverer's index of what was not settled at the first attempt: when each recipient is due, how often it was tried,
 * and what was said. SQLite, one file, WAL with full syncs: a transaction that has returned is on stable storage.
 *
 * The index decides *when*; the marks in the batch files decide *whether*. It can be rebuilt without it (docs/spool.md).
 * Its queries cost the logarithm of the queue's length.
 */
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import type { AttemptRecord, Deferral, MessageMeta, RecipientIndex } from "../spool.ts";

const schema = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  PRAGMA foreign_keys = ON;
  PRAGMA busy_timeout = 5000;
  CREATE TABLE IF NOT EXISTS batch (
    name TEXT PRIMARY KEY,
    examined INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS message (
    id TEXT PRIMARY KEY,
    batch TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    partner TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    delay_reported INTEGER NOT NULL DEFAULT 0
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS message_batch ON message (batch);
  CREATE TABLE IF NOT EXISTS recipient (
    message TEXT NOT NULL REFERENCES message ON DELETE CASCADE,
    position INTEGER NOT NULL,
    route TEXT NOT NULL,
    partner TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, position)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS recipient_due ON recipient (held, route, partner, next_attempt_at);
  CREATE TABLE IF NOT EXISTS attempt (
    message TEXT NOT NULL REFERENCES message ON DELETE CASCADE,
    at INTEGER NOT NULL,
    recipients TEXT NOT NULL,
    server TEXT,
    text TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS attempt_message ON attempt (message);
`;

/** Where a message stands, and whose it is. */
export interface IndexedMessage {
  readonly id: string;
  readonly batch: string;
  readonly offset: number;
  readonly length: number;
  readonly held: boolean;
  readonly delayReported: boolean;
}

export interface IndexedRecipient {
  readonly index: RecipientIndex;
  readonly route: string | null;
  readonly attempts: number;
  readonly nextAttemptAtMs: number;
}

/** One message's change: the recipients that stay, and those that are settled. */
export interface IndexChange {
  readonly meta: MessageMeta;
  readonly place: { readonly batch: string; readonly offset: number; readonly length: number };
  readonly deferred: readonly Deferral[];
  readonly attempts: readonly AttemptRecord[];
  readonly delayReported: boolean;
}

export class QueueIndex {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, ReturnType<DatabaseSync["prepare"]>>();

  /** Opens or creates the index. Throws what SQLite throws; `isIntact` tells a damaged one. */
  constructor(file: string, options: { readonly readOnly?: boolean } = {}) {
    this.#database = new DatabaseSync(file, { readOnly: options.readOnly ?? false });
    this.#database.exec(options.readOnly === true ? "PRAGMA busy_timeout = 5000" : schema);
  }

  isIntact(): boolean {
    return this.#all("PRAGMA quick_check(1)").every((row) => row["quick_check"] === "ok");
  }

  close(): void {
    this.#database.close();
  }

  /** Writes all changes in one transaction: durable when it returns, all or none. */
  apply(changes: readonly IndexChange[]): void {
    this.#transaction(() => {
      for (const change of changes) this.#apply(change);
    });
  }

  #apply({ meta, place, deferred, attempts, delayReported }: IndexChange): void {
    if (deferred.length === 0) {
      this.#run("DELETE FROM message WHERE id = ?", meta.id);
      return;
    }
    const partner = meta.partner ?? "";
    this.#run("INSERT INTO batch (name, examined) VALUES (?, 0) ON CONFLICT DO NOTHING", place.batch);
    this.#run(
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
    const held = this.#get("SELECT held FROM message WHERE id = ?", meta.id)?.["held"] === 1 ? 1 : 0;
    this.#run("DELETE FROM recipient WHERE message = ?", meta.id);
    for (const { index, route, attempts: count, nextAttemptAtMs } of deferred) {
      this.#run(
        `INSERT INTO recipient (message, position, route, partner, attempts, next_attempt_at, held)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
        meta.id,
        index,
        route ?? "",
        partner,
        count,
        Math.round(nextAttemptAtMs),
        held,
      );
    }
    for (const { atMs, recipients, server, text } of attempts) {
      this.#run(
        "INSERT INTO attempt (message, at, recipients, server, text) VALUES (?, ?, ?, ?, ?)",
        meta.id,
        atMs,
        JSON.stringify(recipients),
        server,
        text,
      );
    }
  }

  /** Keeps a message from being tried until an operator releases it. */
  hold(id: string): void {
    this.#transaction(() => {
      this.#run("UPDATE message SET held = 1 WHERE id = ?", id);
      this.#run("UPDATE recipient SET held = 1 WHERE message = ?", id);
    });
  }

  has(id: string): boolean {
    return this.#get("SELECT 1 FROM message WHERE id = ?", id) !== undefined;
  }

  /** Batches of which the index alone knows what is left. */
  examinedBatches(): Set<string> {
    return new Set(this.#all("SELECT name FROM batch WHERE examined = 1").map((row) => stringOf(row["name"])));
  }

  markExamined(batch: string): void {
    this.#run("UPDATE batch SET examined = 1 WHERE name = ?", batch);
  }

  batchIsInUse(batch: string): boolean {
    return this.#get("SELECT 1 FROM message WHERE batch = ? LIMIT 1", batch) !== undefined;
  }

  knowsBatch(batch: string): boolean {
    return this.#get("SELECT 1 FROM batch WHERE name = ?", batch) !== undefined;
  }

  forgetBatch(batch: string): void {
    this.#run("DELETE FROM batch WHERE name = ?", batch);
  }

  /** Every route and partner that has something deferred and not held; skips from one to the next in the index. */
  lanes(): Array<{ route: string; partner: string }> {
    const found: Array<{ route: string; partner: string }> = [];
    let last: { route: string; partner: string } | undefined;
    for (;;) {
      const row =
        last === undefined
          ? this.#get("SELECT route, partner FROM recipient WHERE held = 0 ORDER BY route, partner LIMIT 1")
          : this.#get(
              `SELECT route, partner FROM recipient WHERE held = 0 AND (route, partner) > (?, ?)
               ORDER BY route, partner LIMIT 1`,
              last.route,
              last.partner,
            );
      if (row === undefined) return found;
      last = { route: stringOf(row["route"]), partner: stringOf(row["partner"]) };
      found.push(last);
    }
  }

  /** Ids of messages of one lane that are due, the longest due first. */
  due(lane: { readonly route: string; readonly partner: string }, nowMs: number, countMax: number): string[] {
    return this.#all(
      `SELECT message FROM recipient WHERE held = 0 AND route = ? AND partner = ? AND next_attempt_at <= ?
       ORDER BY next_attempt_at LIMIT ?`,
      lane.route,
      lane.partner,
      nowMs,
      countMax,
    ).map((row) => stringOf(row["message"]));
  }

  nextDueAtMs(): number | undefined {
    let earliest: number | undefined;
    for (const { route, partner } of this.lanes()) {
      const row = this.#get(
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

  counts(): { deferred: number; held: number } {
    const row = this.#get("SELECT count(*) AS all_messages, total(held) AS held FROM message");
    const held = Number(row?.["held"]);
    return { deferred: Number(row?.["all_messages"]) - held, held };
  }

  message(id: string): IndexedMessage | undefined {
    const row = this.#get("SELECT * FROM message WHERE id = ?", id);
    return row === undefined ? undefined : readMessage(row);
  }

  /** All messages, oldest first, a page at a time. */
  messagesAfter(id: string, countMax: number): IndexedMessage[] {
    return this.#all("SELECT * FROM message WHERE id > ? ORDER BY id LIMIT ?", id, countMax).map(readMessage);
  }

  recipients(id: string): IndexedRecipient[] {
    return this.#all("SELECT * FROM recipient WHERE message = ? ORDER BY position", id).map((row) => ({
      index: Number(row["position"]),
      route: stringOf(row["route"]) === "" ? null : stringOf(row["route"]),
      attempts: Number(row["attempts"]),
      nextAttemptAtMs: Number(row["next_attempt_at"]),
    }));
  }

  attempts(id: string): AttemptRecord[] {
    return this.#all("SELECT * FROM attempt WHERE message = ? ORDER BY rowid", id).map((row) => ({
      atMs: Number(row["at"]),
      recipients: readPositions(stringOf(row["recipients"])),
      server: row["server"] === null ? null : stringOf(row["server"]),
      text: stringOf(row["text"]),
    }));
  }

  #transaction(work: () => void): void {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.#database.exec("COMMIT");
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  #run(sql: string, ...values: SQLInputValue[]): void {
    this.#prepare(sql).run(...values);
  }

  #get(sql: string, ...values: SQLInputValue[]): Record<string, unknown> | undefined {
    return this.#prepare(sql).get(...values);
  }

  #all(sql: string, ...values: SQLInputValue[]): Array<Record<string, unknown>> {
    return this.#prepare(sql).all(...values);
  }

  #prepare(sql: string): ReturnType<DatabaseSync["prepare"]> {
    const statement = this.#statements.get(sql) ?? this.#database.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }
}

function readMessage(row: Record<string, unknown>): IndexedMessage {
  return {
    id: stringOf(row["id"]),
    batch: stringOf(row["batch"]),
    offset: Number(row["offset"]),
    length: Number(row["length"]),
    held: row["held"] === 1,
    delayReported: row["delay_reported"] === 1,
  };
}

function readPositions(json: string): number[] {
  const value: unknown = JSON.parse(json);
  return Array.isArray(value) ? value.filter((position) => typeof position === "number") : [];
}

function stringOf(value: unknown): string {
  if (typeof value !== "string") throw new TypeError("the queue index holds a value of the wrong type");
  return value;
}
