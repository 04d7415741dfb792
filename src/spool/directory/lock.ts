/**
 * One deliverer at a time: an exclusive lock that the operating system gives up when its holder dies, however it dies.
 * Node has no call for file locks; SQLite takes one (fcntl) for a transaction, and this keeps a transaction open.
 */
import { DatabaseSync } from "node:sqlite";
import { SpoolFault } from "../spool.ts";

export interface Lock {
  release(): void;
}

/** Takes the lock, or throws a SpoolFault of kind `locked` if another process has it. */
export function takeLock(file: string): Lock {
  const database = new DatabaseSync(file);
  try {
    database.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (error instanceof Error && /locked|busy/.test(error.message)) {
      throw new SpoolFault("locked", `another deliverer is at work on this spool (${file} is locked)`, error);
    }
    throw error;
  }
  return { release: () => database.close() };
}
