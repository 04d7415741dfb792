/**
 * Group commit: messages that arrive while a sync is under way share the next one, without a timer.
 *
 * Promises that `add` resolves only when the batch file and its name are on stable storage, and that it rejects, with
 * nothing left under a committed name, when any step failed. A failed sync is never repeated on the same file.
 */
import { join } from "node:path";
import { SpoolFault } from "../spool.ts";
import { batchBytesMax, batchRecordsMax, encodeTable } from "./batch.ts";
import { systemCode, type Disk } from "./disk.ts";

interface Waiting {
  readonly id: string;
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (fault: SpoolFault) => void;
}

export class GroupCommit {
  readonly #disk: Disk;
  readonly #directory: string;
  #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;

  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /** Commits a record (see `batch.ts`) under the message's id. */
  add(id: string, pieces: readonly Buffer[]): Promise<void> {
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ id, pieces, bytes, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Resolves when nothing is waiting. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    // One turn of the event loop, so that messages which end in it share even the first sync.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const group = this.#nextGroup();
      try {
        await this.#commit(group);
        for (const message of group) message.resolve();
      } catch (error) {
        const fault = spoolFault(error);
        for (const message of group) message.reject(fault);
      }
    }
    this.#running = undefined;
  }

  #nextGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const message of this.#waiting) {
      bytes += message.bytes;
      if (count > 0 && (count === batchRecordsMax || bytes > batchBytesMax / 2)) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #commit(group: readonly Waiting[]): Promise<void> {
    const name = join(this.#directory, group[0]?.id ?? "");
    const draft = `${name}.tmp`;
    const committed = `${name}.batch`;
    try {
      const file = await this.#disk.create(draft);
      try {
        await file.write([...group.flatMap((message) => message.pieces), encodeTable(group.map(({ bytes }) => bytes))]);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#disk.rename(draft, committed);
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      // The senders are about to be told that we do not have it. If even this fails, the disk is gone: they will send
      // again, and what survives here is a duplicate.
      for (const path of [committed, draft]) await this.#disk.unlink(path).catch(() => undefined);
      throw error;
    }
  }
}

const fullCodes = new Set(["ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE"]);

/** A system's error as the spool's. */
export function spoolFault(error: unknown): SpoolFault {
  if (error instanceof SpoolFault) return error;
  const code = systemCode(error);
  const message = error instanceof Error ? error.message : String(error);
  return new SpoolFault(code !== undefined && fullCodes.has(code) ? "full" : "io", message, error);
}
