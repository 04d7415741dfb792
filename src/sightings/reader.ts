/**
 * Reads what the receiver has seen, beside a receiver that goes on writing: each file is there whole, or not at all.
 * A spool in which nothing has been seen yet has no sightings; a damaged file is skipped. Fails with the system's error
 * if the folder may not be read.
 */
import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import {
  decodePinRecord,
  decodeQuarantineRecord,
  isRecordName,
  pinRecordName,
  pinSightings,
  quarantined,
  quarantineRecordName,
  recordBytesMax,
} from "./record.ts";
import type { PinSighting, Quarantined } from "./sightings.ts";

export { historyOf } from "./sightings.ts";

export interface SightingsFolders {
  readonly root: string;
  readonly pins: string;
  readonly quarantine: string;
}

export function sightingsFolders(spoolPath: string): SightingsFolders {
  const root = join(resolve(spoolPath), "sightings");
  return { root, pins: join(root, "pins"), quarantine: join(root, "quarantine") };
}

/** Certificates that let partners in, the latest first. */
export async function readPinSightings(spoolPath: string): Promise<PinSighting[]> {
  const records = await readRecords(sightingsFolders(spoolPath).pins, decodePinRecord, pinRecordName);
  return records.flatMap(pinSightings).toSorted((a, b) => b.lastSeenMs - a.lastSeenMs);
}

/** Certificates that nobody knows, the latest first. */
export async function readQuarantine(spoolPath: string): Promise<Quarantined[]> {
  const records = await readRecords(sightingsFolders(spoolPath).quarantine, decodeQuarantineRecord, ({ der }) =>
    quarantineRecordName(der),
  );
  return records.map(quarantined).toSorted((a, b) => b.lastSeenMs - a.lastSeenMs);
}

/** @param nameOf the name that a record's file must have: one under another's name is not believed. */
export async function readRecords<Record>(
  folder: string,
  decode: (text: string) => Record | undefined,
  nameOf: (record: Record) => string,
  onDamaged: (file: string) => void = () => undefined,
): Promise<Record[]> {
  const records: Record[] = [];
  for (const name of await namesIn(folder)) {
    if (!isRecordName(name)) continue;
    const file = join(folder, name);
    const text = await readRegularFile(file);
    const record = text.kind === "text" ? decode(text.text) : undefined;
    if (record !== undefined && nameOf(record) === name) records.push(record);
    else if (text.kind !== "gone") onDamaged(file);
  }
  return records;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

type FileText = { readonly kind: "text"; readonly text: string } | { readonly kind: "gone" | "unreadable" };

/** Not through a link, and never a FIFO, which would keep us waiting. */
async function readRegularFile(file: string): Promise<FileText> {
  try {
    const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const status = await handle.stat();
      if (!status.isFile() || status.size > recordBytesMax) return { kind: "unreadable" };
      return { kind: "text", text: await handle.readFile("utf8") };
    } finally {
      await handle.close();
    }
  } catch (error) {
    const isGone = error instanceof Error && "code" in error && error.code === "ENOENT"; // removed in between
    return { kind: isGone ? "gone" : "unreadable" };
  }
}
