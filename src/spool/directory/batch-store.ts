/**
 * The batches in `queue/`: taking them from the drop-box, reading them, and removing what is settled. Knows files, and
 * nothing of schedules.
 *
 * Promises: a batch that stands in `queue/` has its contents there, whatever dies when; nothing of the deliverer's is ever
 * replaced by a file of the receiver's; no more is read than a batch may hold; what fails a check ends in `corrupt/`, and
 * no other message is touched by that. Fails with SpoolFault.
 */
import { join } from "node:path";
import { SpoolFault } from "../spool.ts";
import { batchBytesMax, decodeBatch, decodeRecord, type BatchRecord } from "./batch.ts";
import { CorruptFolder } from "./corrupt.ts";
import { systemCode, type Disk } from "./disk.ts";
import { spoolFault } from "./fault.ts";
import type { SpoolFolders } from "./folders.ts";
import { batchesAmong, batchFile, contentFile, isOwnBatch, readName } from "./names.ts";

/** A record that may be believed, with its content if that is not in a file of its own. */
export type LoadedRecord = Extract<BatchRecord, { kind: "record" }> & { readonly content: Buffer | undefined };

export interface LoadedBatch {
  readonly name: string;
  /** Octets of all its files. */
  readonly bytes: number;
  readonly records: readonly LoadedRecord[];
}

/** `gone`: withdrawn by the receiver, or set aside. `unreadable`: not now; it stands in `queue/` if it is taken. */
export type Loading =
  | { readonly kind: "loaded"; readonly batch: LoadedBatch }
  | { readonly kind: "gone" }
  | { readonly kind: "unreadable"; readonly fault: SpoolFault; readonly taken: boolean };

/** Where a record stands. */
export interface RecordLocation {
  readonly batch: string;
  readonly offset: number;
  readonly length: number;
}

type DamagedRecord = Extract<BatchRecord, { kind: "damaged" }>;

export class BatchStore {
  readonly #disk: Disk;
  readonly #folders: SpoolFolders;
  readonly #corrupt: CorruptFolder;
  readonly #onDamage: (file: string, reason: string) => void;

  constructor(disk: Disk, folders: SpoolFolders, onDamage: (file: string, reason: string) => void) {
    this.#disk = disk;
    this.#folders = folders;
    this.#corrupt = new CorruptFolder(disk, folders.corrupt);
    this.#onDamage = onDamage;
  }

  /** Takes a batch out of the drop-box, and reads it. */
  async take(name: string): Promise<Loading> {
    const { incoming, queue } = this.#folders;
    const source = join(incoming, batchFile(name));
    const target = join(queue, batchFile(name));
    let taken = false;
    try {
      const decoded = await this.#decode(source);
      if (decoded === undefined) return { kind: "gone" }; // the receiver has withdrawn it: its last sync failed
      if (decoded.kind === "damaged") {
        await this.#setBatchAside(incoming, name, decoded.reason);
        return { kind: "gone" };
      }
      // Only we write in `queue/`, so that nothing can come in between.
      if ((await this.#disk.sizeOf(target)) !== undefined) {
        await this.#setBatchAside(incoming, name, "a batch of this name is taken already");
        return { kind: "gone" };
      }
      const large = decoded.records.flatMap((record) =>
        record.kind === "damaged" || record.inline ? [] : record.meta.id,
      );
      const contents = await this.#takeContents(name, large);
      try {
        await this.#disk.rename(source, target);
      } catch (error) {
        if (systemCode(error) !== "ENOENT") throw error;
        for (const content of contents) await this.#disk.unlink(content); // withdrawn, and so were they
        return { kind: "gone" };
      }
      taken = true;
      return { kind: "loaded", batch: await this.#sort(name, decoded) };
    } catch (error) {
      return { kind: "unreadable", fault: spoolFault(error), taken };
    }
  }

  /** Reads a batch in `queue/`. */
  async load(name: string): Promise<Loading> {
    try {
      const decoded = await this.#decode(this.batchPath(name));
      if (decoded?.kind === "decoded") return { kind: "loaded", batch: await this.#sort(name, decoded) };
      if (decoded?.kind === "damaged") await this.#setBatchAside(this.#folders.queue, name, decoded.reason);
      return { kind: "gone" };
    } catch (error) {
      return { kind: "unreadable", fault: spoolFault(error), taken: true };
    }
  }

  /** Reads one record. Fails with a SpoolFault of kind `damaged` if it is not what it was. */
  async loadRecord({ batch, offset, length }: RecordLocation): Promise<LoadedRecord> {
    try {
      const bytes = await this.#read(this.batchPath(batch), { offset, length });
      if (bytes === undefined) throw new SpoolFault("damaged", `the batch ${batch} is missing`);
      const record = trusted(batch, decodeRecord(bytes, 0, length));
      if (record.kind === "damaged") throw new SpoolFault("damaged", record.reason);
      const { place } = record;
      return {
        ...record,
        content: record.inline ? contentOf(bytes, record) : undefined,
        place: {
          ...place,
          offset,
          marksAt: place.marksAt + offset,
          contentAt: place.contentAt + offset,
          end: offset + length,
        },
      };
    } catch (error) {
      throw spoolFault(error);
    }
  }

  /** Keeps one message for a person: its record, and its content if it has a file of its own. */
  async keepMessage(location: RecordLocation, id: string, reason: string): Promise<void> {
    const { batch, offset, length } = location;
    const name = recordName(batch, offset);
    const bytes = await this.#read(this.batchPath(batch), { offset, length }).catch((error: unknown) => {
      if (spoolFault(error).kind !== "damaged") throw error;
      return undefined; // what is not there cannot be kept: the note has to do
    });
    if (bytes === undefined) await this.#corrupt.move(join(this.#folders.queue, name), reason);
    else await this.#corrupt.keep(name, bytes, reason);
    const content = this.contentPath(batch, id);
    if ((await this.#disk.sizeOf(content)) !== undefined) await this.#corrupt.move(content, reason);
    this.#onDamage(this.batchPath(batch), `message ${id}: ${reason}`);
  }

  async unlinkContent(batch: string, id: string): Promise<void> {
    await this.#disk.unlink(this.contentPath(batch, id));
  }

  async unlinkBatch(batch: string): Promise<void> {
    await this.#disk.unlink(this.batchPath(batch));
  }

  batchPath(batch: string): string {
    return join(this.#folders.queue, batchFile(batch));
  }

  contentPath(batch: string, id: string): string {
    return join(this.#folders.queue, contentFile(batch, id));
  }

  async hasContent(batch: string, id: string): Promise<boolean> {
    return (await this.#disk.sizeOf(this.contentPath(batch, id))) !== undefined;
  }

  async hasBatch(batch: string): Promise<boolean> {
    return (await this.#disk.sizeOf(this.batchPath(batch))) !== undefined;
  }

  async sizeOf(batch: string): Promise<number> {
    return (await this.#disk.sizeOf(this.batchPath(batch))) ?? 0;
  }

  /** Batches in the drop-box, oldest first. The deliverer's own are never there. */
  async arrived(): Promise<string[]> {
    return batchesAmong(await this.#disk.list(this.#folders.incoming)).filter((name) => !isOwnBatch(name));
  }

  /**
   * Takes a batch again that the index knows and that stands in the drop-box: a loss of power has undone its taking, which
   * is not synced, while what the index had written was.
   */
  async retake(batch: string, ids: readonly string[]): Promise<void> {
    await this.#takeContents(batch, ids);
    await this.#disk.rename(join(this.#folders.incoming, batchFile(batch)), this.batchPath(batch));
  }

  /**
   * Contents go before their batch, and durably: whoever finds the batch in `queue/` finds them there too, and whoever
   * finds a content in `incoming/` without its batch knows that it was never committed.
   */
  async #takeContents(name: string, ids: readonly string[]): Promise<string[]> {
    const taken: string[] = [];
    for (const id of ids) {
      const target = this.contentPath(name, id);
      if ((await this.#disk.sizeOf(target)) !== undefined) continue; // before a crash
      try {
        await this.#disk.rename(join(this.#folders.incoming, contentFile(name, id)), target);
        taken.push(target);
      } catch (error) {
        if (systemCode(error) !== "ENOENT") throw error; // whoever wants to read it will find it damaged
      }
    }
    if (taken.length > 0) await this.#disk.syncDirectory(this.#folders.queue);
    return taken;
  }

  async #decode(
    path: string,
  ): Promise<
    | { readonly kind: "decoded"; readonly file: Buffer; readonly records: readonly BatchRecord[] }
    | { readonly kind: "damaged"; readonly reason: string }
    | undefined
  > {
    try {
      const file = await this.#read(path);
      if (file === undefined) return undefined;
      const records = decodeBatch(file);
      return records === undefined
        ? { kind: "damaged", reason: "the end of the batch is missing or damaged" }
        : { kind: "decoded", file, records };
    } catch (error) {
      const fault = spoolFault(error);
      if (fault.kind === "damaged") return { kind: "damaged", reason: fault.message };
      throw fault;
    }
  }

  /** Sets the damaged records aside, and gives the others, with contents that do not keep the whole batch in memory. */
  async #sort(
    name: string,
    { file, records }: { readonly file: Buffer; readonly records: readonly BatchRecord[] },
  ): Promise<LoadedBatch> {
    const sound: LoadedRecord[] = [];
    const damaged: DamagedRecord[] = [];
    for (const record of records.map((found) => trusted(name, found))) {
      if (record.kind === "damaged") damaged.push(record);
      else sound.push({ ...record, content: record.inline ? Buffer.from(contentOf(file, record)) : undefined });
    }
    for (const { offset, end, reason } of damaged) {
      await this.#corrupt.keep(recordName(name, offset), file.subarray(offset, end), reason);
      this.#onDamage(this.batchPath(name), `record at ${offset}: ${reason}`);
    }
    const large = sound.filter(({ inline }) => !inline);
    if (damaged.length > 0) await this.#setContentsAside(name, new Set(large.map(({ meta }) => meta.id)));
    const bytes = large.reduce((sum, { meta }) => sum + meta.wireBytes, file.length);
    return { name, bytes, records: sound };
  }

  /** Contents that only a damaged record knew. */
  async #setContentsAside(batch: string, known: ReadonlySet<string>): Promise<void> {
    for (const name of await this.#disk.list(this.#folders.queue)) {
      const file = readName(name);
      if (file?.kind !== "content" || file.batch !== batch || known.has(file.id)) continue;
      await this.#corrupt.move(join(this.#folders.queue, name), `its record in batch ${batch} is damaged`);
    }
  }

  /** A batch that cannot be told apart into messages; its contents first, so that nobody takes them for leftovers. */
  async #setBatchAside(folder: string, batch: string, reason: string): Promise<void> {
    for (const name of await this.#disk.list(folder)) {
      const file = readName(name);
      if (file?.kind === "content" && file.batch === batch) await this.#corrupt.move(join(folder, name), reason);
    }
    const path = join(folder, batchFile(batch));
    await this.#corrupt.move(path, reason);
    this.#onDamage(path, reason);
  }

  /** The whole file or a part of it; undefined: it is not there. */
  async #read(path: string, part?: { offset: number; length: number }): Promise<Buffer | undefined> {
    try {
      const file = await this.#disk.openForReading(path);
      try {
        const length = part?.length ?? file.sizeBytes;
        if (length > batchBytesMax) throw new SpoolFault("damaged", `${length} octets are more than a batch may have`);
        return await file.read(part?.offset ?? 0, length);
      } finally {
        await file.close();
      }
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }
}

/**
 * A receiver can bring in mail, for any recipient, in any partner's name: that is its work. What it cannot do is to speak
 * for us, and so choose by which partner's servers a message leaves.
 */
function trusted(batch: string, record: BatchRecord): BatchRecord {
  if (record.kind === "damaged" || record.meta.toPartner === null || isOwnBatch(batch)) return record;
  const { offset, end } = record.place;
  return { kind: "damaged", offset, end, reason: "it comes from the receiver and claims to be a report of ours" };
}

function recordName(batch: string, offset: number): string {
  return `${batch}.${offset}.record`;
}

function contentOf(bytes: Buffer, { place }: Extract<BatchRecord, { kind: "record" }>): Buffer {
  return bytes.subarray(place.contentAt, place.contentAt + place.contentBytes);
}
