/**
 * The queue index as a file: SQLite, WAL with full syncs, so that a transaction that has returned is on stable storage, and
 * readers and the operator's commands work beside the deliverer. What stands in it is in `queue-index.ts`.
 *
 * Fails with SpoolFault: `damaged` if the file is no index any more, `full`, or `io`.
 */
import { existsSync } from "node:fs";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { SpoolFault } from "../spool.ts";
import { indexFault } from "./fault.ts";
import { makePrivate } from "./private-file.ts";

export type Row = Record<string, unknown>;

const version = 1;
const busyTimeoutMs = 5_000;
/** The log is moved into the database every mebibyte: on a disk that fills up, it must not take the last room. */
const logPagesMax = 256;
const logBytesMax = 4 * 1024 * 1024;

const settings = `
  PRAGMA busy_timeout = ${busyTimeoutMs};
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  PRAGMA foreign_keys = ON;
  PRAGMA wal_autocheckpoint = ${logPagesMax};
  PRAGMA journal_size_limit = ${logBytesMax};
`;

/** Sums are kept by triggers: a quota must not cost a walk through the queue. */
const schema = `
  CREATE TABLE IF NOT EXISTS batch (
    name TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
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
    deferred_at INTEGER NOT NULL,
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
  CREATE TABLE IF NOT EXISTS request (
    message TEXT PRIMARY KEY,
    action TEXT NOT NULL CHECK (action IN ('hold', 'remove', 'bounce'))
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS usage (
    kind TEXT NOT NULL CHECK (kind IN ('partner', 'batches')),
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TRIGGER IF NOT EXISTS message_counted AFTER INSERT ON message BEGIN
    INSERT OR IGNORE INTO usage VALUES ('partner', new.partner, 0);
    UPDATE usage SET bytes = bytes + new.bytes WHERE kind = 'partner' AND name = new.partner;
  END;
  CREATE TRIGGER IF NOT EXISTS message_discounted AFTER DELETE ON message BEGIN
    UPDATE usage SET bytes = bytes - old.bytes WHERE kind = 'partner' AND name = old.partner;
    DELETE FROM usage WHERE kind = 'partner' AND name = old.partner AND bytes = 0;
  END;
  CREATE TRIGGER IF NOT EXISTS batch_counted AFTER INSERT ON batch BEGIN
    INSERT OR IGNORE INTO usage VALUES ('batches', '', 0);
    UPDATE usage SET bytes = bytes + new.bytes WHERE kind = 'batches';
  END;
  CREATE TRIGGER IF NOT EXISTS batch_discounted AFTER DELETE ON batch BEGIN
    UPDATE usage SET bytes = bytes - old.bytes WHERE kind = 'batches';
  END;
  PRAGMA user_version = ${version};
`;

export const notMade = "no deliverer has made the queue index yet";

/** `make`: creates the file and its tables; `write` and `read` take what is there. */
export type IndexAccess = "make" | "write" | "read";

export class IndexDatabase {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(file: string, access: IndexAccess) {
    let database: DatabaseSync | undefined;
    try {
      // Whoever makes the file owns it, and that must be the deliverer: SQLite would make it for the operator too.
      if (access === "make") makePrivate(file);
      else if (!existsSync(file)) throw new SpoolFault("io", notMade);
      database = new DatabaseSync(file, { readOnly: access === "read" });
      database.exec(access === "read" ? `PRAGMA busy_timeout = ${busyTimeoutMs}` : settings);
      const found = Number(database.prepare("PRAGMA user_version").get()?.["user_version"]);
      if (found > version) throw new SpoolFault("io", `${file} was written by a newer version of pinrelay`);
      if (found < version) {
        if (access !== "make") throw new SpoolFault("io", notMade);
        const made = database.prepare("SELECT 1 FROM sqlite_schema LIMIT 1").get() !== undefined;
        if (made) throw new SpoolFault("damaged", `${file} has no version: it is not ours`);
        database.exec(`BEGIN IMMEDIATE; ${schema} COMMIT`);
      }
    } catch (error) {
      database?.close();
      throw indexFault(error);
    }
    this.#database = database;
  }

  isIntact(): boolean {
    return this.all("PRAGMA quick_check(1)").every((row) => row["quick_check"] === "ok");
  }

  close(): void {
    this.#database.close();
  }

  /** Durable when it returns, all or nothing. */
  transaction(work: () => void): void {
    this.#guard(() => {
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        work();
        this.#database.exec("COMMIT");
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
        throw error;
      }
    });
  }

  /** Gives the number of rows that were changed. */
  run(sql: string, ...values: SQLInputValue[]): number {
    return this.#guard(() => Number(this.#prepare(sql).run(...values).changes));
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#guard(() => this.#prepare(sql).get(...values));
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#guard(() => this.#prepare(sql).all(...values));
  }

  /** Visits the rows one by one until `visit` says that it has enough. */
  visit(sql: string, values: readonly SQLInputValue[], visit: (row: Row) => "more" | "enough"): void {
    this.#guard(() => {
      for (const row of this.#prepare(sql).iterate(...values)) {
        if (visit(row) === "enough") break;
      }
    });
  }

  #prepare(sql: string): StatementSync {
    const statement = this.#statements.get(sql) ?? this.#database.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw indexFault(error);
    }
  }
}

export function stringOf(value: unknown): string {
  if (typeof value !== "string") throw new SpoolFault("damaged", "the queue index holds a value of the wrong type");
  return value;
}
