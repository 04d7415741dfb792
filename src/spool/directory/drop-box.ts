/**
 * The receiver's side of the directory driver: drafts, and their commit.
 *
 * A draft stays in memory up to `inlineBytesMax` and is then streamed to a file of its own, so that no large message is
 * ever in memory as a whole. Fails with SpoolFault; what failed leaves no message behind.
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { newQueueId } from "../queue-id.ts";
import { SpoolFault, type Draft, type DraftMessage, type DropBox, type MessageMeta } from "../spool.ts";
import { encodeRecord } from "./batch.ts";
import { nodeDisk, type Disk, type DraftFile } from "./disk.ts";
import { GroupCommit, spoolFault } from "./group-commit.ts";

export const inlineBytesMax = 64 * 1024;

export interface DropBoxOptions {
  /** The folder `incoming`. */
  readonly directory: string;
  readonly disk?: Disk;
  readonly now?: () => number;
}

export class DirectoryDropBox implements DropBox {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #now: () => number;
  readonly #group: GroupCommit;
  readonly #drafts = new Set<DirectoryDraft>();
  #closed = false;

  constructor(options: DropBoxOptions) {
    this.#disk = options.disk ?? nodeDisk;
    this.#directory = options.directory;
    this.#now = options.now ?? Date.now;
    this.#group = new GroupCommit(this.#disk, this.#directory);
  }

  receive(): Draft {
    if (this.#closed) throw new SpoolFault("closed", "the spool is shutting down");
    const draft = new DirectoryDraft(newQueueId(this.#now()), this.#directory, this.#disk, this.#group, () =>
      this.#drafts.delete(draft),
    );
    this.#drafts.add(draft);
    return draft;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#group.idle();
    await Promise.all([...this.#drafts].map((draft) => draft.discard()));
  }

  /** Removes what a receiver that died left of messages whose senders never got a 250. To be called before `receive`. */
  async removeLeftovers(): Promise<number> {
    const names = (await this.#disk.list(this.#directory)).filter((name) => /\.(?:part|tmp)$/.test(name));
    for (const name of names) await this.#disk.unlink(join(this.#directory, name));
    return names.length;
  }
}

class DirectoryDraft implements Draft {
  readonly id: string;
  readonly #path: string;
  readonly #disk: Disk;
  readonly #group: GroupCommit;
  readonly #ended: () => void;
  readonly #hash: Hash = createHash("sha256");
  #pieces: Buffer[] = [];
  #wireBytes = 0;
  /** Set when the draft has outgrown memory: all its writes, in order. */
  #file: Promise<DraftFile> | undefined;

  constructor(id: string, directory: string, disk: Disk, group: GroupCommit, ended: () => void) {
    this.id = id;
    this.#path = join(directory, id);
    this.#disk = disk;
    this.#group = group;
    this.#ended = ended;
  }

  write(wire: Buffer): Promise<void> | undefined {
    this.#hash.update(wire);
    this.#wireBytes += wire.length;
    if (this.#file === undefined) {
      this.#pieces.push(wire);
      if (this.#wireBytes <= inlineBytesMax) return undefined;
      const pieces = this.#pieces;
      this.#pieces = [];
      return this.#append(this.#disk.create(`${this.#path}.part`), pieces);
    }
    return this.#append(this.#file, [wire]);
  }

  async commit(message: DraftMessage): Promise<MessageMeta> {
    const meta: MessageMeta = {
      ...message,
      id: this.id,
      wireBytes: this.#wireBytes,
      sha256: this.#hash.digest("hex"),
    };
    try {
      if (this.#file !== undefined) await this.#finishFile(this.#file);
      await this.#group.add(this.id, encodeRecord(meta, this.#file === undefined ? this.#pieces : undefined));
      return meta;
    } catch (error) {
      await this.#removeFiles();
      throw spoolFault(error);
    } finally {
      this.#pieces = [];
      this.#ended();
    }
  }

  async discard(): Promise<void> {
    this.#pieces = [];
    if (this.#file !== undefined) {
      await this.#file.then((file) => file.close()).catch(() => undefined); // a failed write has closed it already
      await this.#removeFiles();
    }
    this.#ended();
  }

  async #append(opened: Promise<DraftFile>, pieces: readonly Buffer[]): Promise<void> {
    const written = opened.then(async (file) => {
      try {
        await file.write(pieces);
        return file;
      } catch (error) {
        await file.close().catch(() => undefined); // the first failure is the one that tells
        throw error;
      }
    });
    this.#file = written;
    await written.catch((error: unknown) => {
      throw spoolFault(error);
    });
  }

  async #finishFile(opened: Promise<DraftFile>): Promise<void> {
    const file = await opened;
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#disk.rename(`${this.#path}.part`, `${this.#path}.content`);
  }

  async #removeFiles(): Promise<void> {
    for (const suffix of [".part", ".content"]) {
      await this.#disk.unlink(`${this.#path}${suffix}`).catch(() => undefined); // swept at the next start
    }
  }
}
