/**
 * The names of the driver's files. A name says what a file is and whose: a large content bears the name of its batch, so
 * that what a crash left over is known by its name alone, and nobody's content can be taken for another's.
 *
 * ```
 * ID.part                a large content that is being written     ID.tmp     a batch that is being written
 * BATCH.batch            a committed batch                         BATCH      the id of its first message, and `-own` if the
 * BATCH.ID.content       a large content of that batch                        deliverer itself wrote it (a report)
 * ```
 * Pure.
 */
export type SpoolFile =
  | { readonly kind: "draft" }
  | { readonly kind: "batch"; readonly batch: string }
  | { readonly kind: "content"; readonly batch: string; readonly id: string };

const draftName = /^[0-9a-z]{18}\.(?:part|tmp)$/;
const batchName = /^([0-9a-z]{18}(?:-own)?)\.batch$/;
const contentName = /^([0-9a-z]{18}(?:-own)?)\.([0-9a-z]{18})\.content$/;
const ownSuffix = "-own";

/** What a file of `incoming/` or `queue/` is; undefined: nothing of ours. */
export function readName(name: string): SpoolFile | undefined {
  if (draftName.test(name)) return { kind: "draft" };
  const [, batch] = batchName.exec(name) ?? [];
  if (batch !== undefined) return { kind: "batch", batch };
  const [, owner, id] = contentName.exec(name) ?? [];
  return owner === undefined || id === undefined ? undefined : { kind: "content", batch: owner, id };
}

/** The batches among these names, oldest first. */
export function batchesAmong(names: readonly string[]): string[] {
  const files = names.map(readName);
  return files.flatMap((file) => (file?.kind === "batch" ? [file.batch] : [])).toSorted();
}

export function batchFile(batch: string): string {
  return `${batch}.batch`;
}

export function contentFile(batch: string, id: string): string {
  return `${batch}.${id}.content`;
}

/** The name of a batch that the deliverer writes itself. No file of the receiver's is ever taken under such a name. */
export function ownBatch(id: string): string {
  return `${id}${ownSuffix}`;
}

export function isOwnBatch(batch: string): boolean {
  return batch.endsWith(ownSuffix);
}
