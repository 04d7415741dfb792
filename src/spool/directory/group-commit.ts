/**
 * Group commit: messages that arrive while a sync is under way share the next one, without a timer.
 *
 * Promises that `add` resolves only when the batch file, the large contents that belong to it, and all their names are on
 * stable storage, and that it rejects, with nothing left under a committed name, when any step failed. A failed sync is
 * never repeated on the same file.
 */
import { join } from "node:path";
import type { MessageMeta } from "../spool.ts";
import { batchRecordsMax, encodeTable, recordBytesMax } from "./batch.ts";
import type { Disk } from "./disk.ts";
import { spoolFault } from "./fault.ts";
import { batchFile, contentFile } from "./names.ts";

/** A message that is ready to be committed. */
export interface CommitRequest {
  readonly meta: MessageMeta;
  /** Its record, see `batch.ts`. */
  readonly record: readonly Buffer[];
  /** Where its content stands, synced, if it has a file of its own. */
  readonly contentPart: string | undefined;
}

/** What has been committed: for whoever counts, and for the deliverer that wrote it itself. */
export interface CommittedBatch {
  readonly name: string;
  /** Octets of all its files. */
  readonly bytes: number;
  readonly messages: readonly MessageMeta[];
}

export interface GroupCommitOptions {
  readonly disk: Disk;
  readonly directory: string;
  /** The batch's name, by the id of its first message. */
  readonly nameBatch: (id: string) => string;
  readonly onCommitted: (batch: CommittedBatch) => void;
}

interface Waiting extends CommitRequest {
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (fault: Error) => void;
}

export class GroupCommit {
  readonly #options: GroupCommitOptions;
  #waiting: Waiting[] = [];
  #running = false;

  constructor(options: GroupCommitOptions) {
    this.#options = options;
  }

  add(request: CommitRequest): Promise<void> {
    const bytes = request.record.reduce((sum, piece) => sum + piece.length, 0);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...request, bytes, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    this.#running = true;
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
    this.#running = false;
  }

  #nextGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const message of this.#waiting) {
      bytes += message.bytes;
      if (count > 0 && (count === batchRecordsMax || bytes > recordBytesMax)) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #commit(group: readonly Waiting[]): Promise<void> {
    const { disk, directory, nameBatch, onCommitted } = this.#options;
    const id = group[0]?.meta.id ?? "";
    const name = nameBatch(id);
    const draft = join(directory, `${id}.tmp`);
    const committed = join(directory, batchFile(name));
    const contents = group.flatMap(({ meta, contentPart }) =>
      contentPart === undefined ? [] : [{ part: contentPart, content: join(directory, contentFile(name, meta.id)) }],
    );
    const table = encodeTable(group.map(({ bytes }) => bytes));
    try {
      const file = await disk.create(draft);
      try {
        await file.write([...group.flatMap(({ record }) => record), table]);
        await file.sync();
      } finally {
        await file.close();
      }
      // Contents first: whoever sees the batch sees what it names.
      for (const { part, content } of contents) await disk.rename(part, content);
      await disk.rename(draft, committed);
      await disk.syncDirectory(directory);
    } catch (error) {
      // The senders are about to be told that we do not have it. If even this fails, the disk is gone: they will send
      // again, and what survives here is a duplicate. The batch first: it must not be found without its contents.
      const paths = [committed, draft, ...contents.map(({ content }) => content)];
      for (const path of paths) await disk.unlink(path).catch(() => undefined);
      throw error;
    }
    const contentBytes = group.reduce((sum, { meta, contentPart }) => sum + (contentPart ? meta.wireBytes : 0), 0);
    onCommitted({
      name,
      bytes: contentBytes + table.length + group.reduce((sum, { bytes }) => sum + bytes, 0),
      messages: group.map(({ meta }) => meta),
    });
  }
}
