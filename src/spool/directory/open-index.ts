/**
 * Opens the queue index for the deliverer. One that is damaged goes to `corrupt/`, and a new one is made: the batches say
 * what is left, only schedules and attempt histories are gone.
 */
import { join } from "node:path";
import { SpoolFault } from "../spool.ts";
import { CorruptFolder } from "./corrupt.ts";
import type { Disk } from "./disk.ts";
import type { SpoolFolders } from "./folders.ts";
import { QueueIndex } from "./queue-index.ts";

export function indexFile(folders: SpoolFolders): string {
  return join(folders.queue, "index.sqlite");
}

export async function openIndex(
  folders: SpoolFolders,
  disk: Disk,
  onRebuilt: (file: string, reason: string) => void,
): Promise<QueueIndex> {
  const file = indexFile(folders);
  const opened = tryToOpen(file);
  if (typeof opened !== "string") return opened;
  const corrupt = new CorruptFolder(disk, folders.corrupt);
  // The log first, and durably: what it holds must never be taken for the log of the new index.
  for (const suffix of ["-wal", "-shm", ""]) {
    if ((await disk.sizeOf(`${file}${suffix}`)) !== undefined) await corrupt.move(`${file}${suffix}`, opened);
  }
  onRebuilt(file, opened);
  return new QueueIndex(file);
}

/** The index, or what is wrong with it. */
function tryToOpen(file: string): QueueIndex | string {
  let index: QueueIndex | undefined;
  try {
    index = new QueueIndex(file);
    if (index.isIntact()) return index;
    index.close();
    return "its quick check failed";
  } catch (error) {
    index?.close();
    if (error instanceof SpoolFault && error.kind === "damaged") return error.message;
    throw error;
  }
}
