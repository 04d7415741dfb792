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
/** What somebody has done to a file. */
const permissionCodes = new Set(["EACCES", "EPERM"]);

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
/** SQLite found no room for the memory that it shares among processes, and calls that an error of the disk. */
const sharedMemoryFault = 4874; // SQLITE_IOERR_SHMSIZE

/** An error of SQLite as the spool's; `damaged` stands for the index as a whole. */
export function indexFault(error: unknown): SpoolFault {
  if (error instanceof SpoolFault) return error;
  if (sqliteCode(error) === undefined) return spoolFault(error);
  const isShort = error instanceof Error && "errcode" in error && error.errcode === sharedMemoryFault;
  const kind = isShort ? "full" : (sqliteKinds.get(sqliteCode(error) ?? 0) ?? "io");
  return new SpoolFault(kind, `the queue index: ${reasonOf(error)}`, error);
}

/** SQLite's primary result code; undefined for other errors. */
export function sqliteCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("errcode" in error) || typeof error.errcode !== "number") return undefined;
  return error.errcode & 0xff;
}

/** Is it this one file that cannot be read now, while others may be? */
export function isLocal(fault: SpoolFault): boolean {
  const code = systemCode(fault.cause);
  return code !== undefined && !ownCodes.has(code);
}

/** May it be the disk, and not only this file? */
export function isPerhapsDisk(fault: SpoolFault): boolean {
  return fault.kind !== "damaged" && !permissionCodes.has(systemCode(fault.cause) ?? "");
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
