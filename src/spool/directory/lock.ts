/**
 * One process at a time: an exclusive lock that the operating system gives up when its holder dies, however it dies.
 * Node has no call for file locks; SQLite takes one (fcntl) for a transaction, and this keeps a transaction open.
 */
import { DatabaseSync } from "node:sqlite";
import { SpoolFault } from "../spool.ts";
import { reasonOf, sqliteCode } from "./fault.ts";

export interface Lock {
  release(): void;
}

const busy = 5; // SQLITE_BUSY

/** Takes the lock, or throws a SpoolFault: of kind `locked`, with the text `held`, if another process has it. */
export function takeLock(file: string, held: string): Lock {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file);
    database.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE");
  } catch (error) {
    database?.close();
    if (sqliteCode(error) === busy) throw new SpoolFault("locked", `${held} (${file} is locked)`, error);
    throw new SpoolFault("io", `the lock ${file} cannot be taken: ${reasonOf(error)}`, error);
  }
  const holder = database;
  return { release: () => holder.close() };
}
