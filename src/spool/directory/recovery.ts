/**
 * What a deliverer finds when it starts: what one before it had taken and not finished, was writing, or had settled and not
 * cleared away. Costs one listing of each folder and no reading; what is not named by a batch is removed.
 */
import { join } from "node:path";
import type { BatchStore } from "./batch-store.ts";
import type { Disk } from "./disk.ts";
import type { SpoolFolders } from "./folders.ts";
import { batchesAmong, batchFile, readName } from "./names.ts";
import type { QueueIndex } from "./queue-index.ts";

export interface RecoveryOptions {
  readonly disk: Disk;
  readonly folders: SpoolFolders;
  readonly store: BatchStore;
  readonly index: QueueIndex;
}

/** Gives the batches in `queue/` that have to be read, oldest first: those of which the index does not know everything. */
export async function recoverQueue(options: RecoveryOptions): Promise<string[]> {
  const { disk, folders, index } = options;
  await retakeUndone(options);
  const names = await disk.list(folders.queue);
  const examined = index.examinedBatches();
  const unread: string[] = [];
  for (const name of names) {
    const file = readName(name);
    switch (file?.kind) {
      case "batch":
        if (!examined.has(file.batch)) unread.push(file.batch);
        break;
      case "content":
        if (await isLeftOver(file.batch, file.id, examined, options)) await disk.unlink(join(folders.queue, name));
        break;
      case "draft":
        await disk.unlink(join(folders.queue, name));
        break;
      case undefined:
        break; // the index, the lock, or nothing of ours
    }
  }
  return unread.toSorted();
}

/** Before anybody looks for them in `queue/`. */
async function retakeUndone({ disk, folders, store, index }: RecoveryOptions): Promise<void> {
  const arrived = await disk.list(folders.incoming);
  for (const batch of batchesAmong(arrived)) {
    if (!index.knowsBatch(batch) || (await store.hasBatch(batch))) continue;
    const ids = arrived
      .map(readName)
      .flatMap((file) => (file?.kind === "content" && file.batch === batch ? file.id : []));
    await store.retake(batch, ids);
  }
}

/**
 * Is a content in `queue/` no longer needed? Where its batch is there, it is if the index says so; a batch that is not examined
 * will be read, and tells itself. Where its batch is not there, it may still be in the drop-box: contents are taken first.
 */
async function isLeftOver(
  batch: string,
  id: string,
  examined: ReadonlySet<string>,
  { disk, folders, store, index }: RecoveryOptions,
): Promise<boolean> {
  if (examined.has(batch) && index.batchOf(id) === batch) return false; // the most of them: nothing is asked of the disk
  if (await store.hasBatch(batch)) return examined.has(batch);
  return (await disk.sizeOf(join(folders.incoming, batchFile(batch)))) === undefined;
}
