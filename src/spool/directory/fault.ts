/**
 * Errors of the system and of SQLite as faults of the spool, and what they mean for whoever meets them.
 */
import { SpoolFault, type SpoolFaultKind } from "../spool.ts";
import { systemCode } from "./disk.ts";

const fullCodes = new Set(["ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "ENOMEM"]);
/** What is wrong with one file, and will be tomorrow: it is set aside. */
const damageCodes = new Set(["EFTYPE", "ETRUNCATED", "ELOOP", "EISDIR", "ENXIO"]);
/** What is wrong with this process: no file is to blame. */
const ownCodes = new Set(["EMFILE", "ENFILE", "ENOMEM"]);

/** A system's error as the spool's. */
export function spoolFault(error: unknown): SpoolFault {
  if (error instanceof SpoolFault) return error;
  const code = systemCode(error) ?? "";
  const kind = damageCodes.has(code) ? "damaged" : fullCodes.has(code) ? "full" : "io";
  return new SpoolFault(kind, reasonOf(error), error);
}

const sqliteKinds = new Map<number, SpoolFaultKind>([
  [11, "damaged"], // SQLITE_CORRUPT
  [26, "damaged"], // SQLITE_NOTADB
  [13, "full"], // SQLITE_FULL
]);

/** An error of SQLite as the spool's; `damaged` stands for the index as a whole. */
export function indexFault(error: unknown): SpoolFault {
  if (error instanceof SpoolFault) return error;
  const kind = sqliteKinds.get(sqliteCode(error) ?? 0) ?? "io";
  return new SpoolFault(kind, `the queue index: ${reasonOf(error)}`, error);
}

/** SQLite's primary result code; undefined for other errors. */
export function sqliteCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("errcode" in error) || typeof error.errcode !== "number") return undefined;
  return error.errcode & 0xff;
}

/** Is it this one file that cannot be read now, while others may be? */
export function isLocal(error: unknown): boolean {
  const code = systemCode(error instanceof SpoolFault ? error.cause : error);
  return code !== undefined && !ownCodes.has(code);
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
