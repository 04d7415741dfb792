/**
 * One process at a time: an exclusive lock that the operating system gives up when its holder dies, however it dies.
 * Node has no call for file locks; SQLite takes one (fcntl) for a transaction, and this keeps a transaction open.
 */
import { lstatSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { SpoolFault } from "../spool.ts";
import { reasonOf, sqliteCode } from "./fault.ts";
import { makePrivate } from "./private-file.ts";

export interface Lock {
  release(): void;
}

const busy = 5; // SQLITE_BUSY
const cannotOpen = 14; // SQLITE_CANTOPEN

/** Takes the lock, or throws a SpoolFault: of kind `locked`, with the text `held`, if another process has it. */
export function takeLock(file: string, held: string): Lock {
  let database: DatabaseSync | undefined;
  try {
    makePrivate(file);
    database = new DatabaseSync(file);
    // A moment's patience, for who only looks whether it is held. Nothing is ever written, so the journal may be in memory:
    // on a full disk there is no room for another.
    database.exec("PRAGMA busy_timeout = 250; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    database?.close();
    if (sqliteCode(error) === busy) throw new SpoolFault("locked", `${held} (${file} is locked)`, error);
    throw new SpoolFault("io", `the lock ${file} cannot be taken: ${reasonOf(error)}`, error);
  }
  const holder = database;
  return { release: () => holder.close() };
}

/** Does a process hold the lock? A file that is not there is held by nobody. */
export function isLocked(file: string): boolean {
  // A lock is an empty file. What is anything else was put there by somebody, and is not opened.
  const status = lstatSync(file, { throwIfNoEntry: false });
  if (status?.isFile() !== true || status.size > 0) return false;
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { readOnly: true });
    database.exec("PRAGMA busy_timeout = 0");
    database.prepare("SELECT count(*) FROM sqlite_schema").get();
    return false;
  } catch (error) {
    if (sqliteCode(error) === busy) return true;
    if (sqliteCode(error) === cannotOpen) return false;
    throw error;
  } finally {
    database?.close();
  }
}
