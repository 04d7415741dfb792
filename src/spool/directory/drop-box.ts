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
import { spoolFault } from "./fault.ts";
import { GroupCommit, type CommittedBatch } from "./group-commit.ts";
import { takeLock, type Lock } from "./lock.ts";
import { batchesAmong, readName } from "./names.ts";

export const inlineBytesMax = 64 * 1024;
const writeBytesMin = 256 * 1024;

export interface DropBoxOptions {
  /** The folder `incoming`. */
  readonly directory: string;
  readonly disk?: Disk;
  readonly now?: () => number;
  /** A batch's name, by the id of its first message; the id itself unless told otherwise. */
  readonly nameBatch?: (id: string) => string;
  /** Called when a batch is on stable storage, before the commits resolve. */
  readonly onCommitted?: (batch: CommittedBatch) => void;
}

export class DirectoryDropBox implements DropBox {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #now: () => number;
  readonly #group: GroupCommit;
  readonly #drafts = new Set<DirectoryDraft>();
  #lock: Lock | undefined;
  #closed = false;

  constructor(options: DropBoxOptions) {
    this.#disk = options.disk ?? nodeDisk;
    this.#directory = options.directory;
    this.#now = options.now ?? Date.now;
    this.#group = new GroupCommit({
      disk: this.#disk,
      directory: this.#directory,
      nameBatch: options.nameBatch ?? ((id) => id),
      onCommitted: options.onCommitted ?? (() => undefined),
    });
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
    await Promise.all([...this.#drafts].map((draft) => draft.end()));
    this.#lock?.release();
    this.#lock = undefined;
  }

  /**
   * Removes what a receiver that died left of messages whose senders never got a 250. To be called before `receive`.
   * From then on until `close` the drop-box is this process's alone: a second receiver would remove what this one is
   * writing, and fails with a SpoolFault of kind `locked`.
   */
  async removeLeftovers(): Promise<number> {
    this.#lock ??= takeLock(join(this.#directory, "lock.sqlite"), "another receiver is at work on this spool");
    const names = await this.#disk.list(this.#directory);
    const batches = new Set(batchesAmong(names));
    const leftovers = names.filter((name) => {
      const file = readName(name);
      // The deliverer takes contents before their batch: if the batch is not here, a content of it was never committed.
      return file?.kind === "draft" || (file?.kind === "content" && !batches.has(file.batch));
    });
    for (const name of leftovers) await this.#disk.unlink(join(this.#directory, name));
    return leftovers.length;
  }
}

type DraftPhase =
  | { readonly kind: "open" }
  | { readonly kind: "committing"; readonly done: Promise<unknown> }
  | { readonly kind: "discarding"; readonly done: Promise<void> }
  | { readonly kind: "ended" };

class DirectoryDraft implements Draft {
  readonly id: string;
  readonly #part: string;
  readonly #disk: Disk;
  readonly #group: GroupCommit;
  readonly #ended: () => void;
  readonly #hash: Hash = createHash("sha256");
  #phase: DraftPhase = { kind: "open" };
  /** What is not written yet: TLS gives pieces of 16 KiB, and a write of each would cost more than the bytes. */
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  #wireBytes = 0;
  /** Set when the draft has outgrown memory: all its writes, in order. */
  #file: Promise<DraftFile> | undefined;
  /** The first write that failed: nothing is taken after it. */
  #failure: SpoolFault | undefined;

  constructor(id: string, directory: string, disk: Disk, group: GroupCommit, ended: () => void) {
    this.id = id;
    this.#part = join(directory, `${id}.part`);
    this.#disk = disk;
    this.#group = group;
    this.#ended = ended;
  }

  write(wire: Buffer): Promise<void> | undefined {
    if (this.#phase.kind !== "open") return Promise.reject(this.#closedFault());
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#hash.update(wire);
    this.#wireBytes += wire.length;
    this.#pieces.push(wire);
    this.#pieceBytes += wire.length;
    if (this.#pieceBytes <= (this.#file === undefined ? inlineBytesMax : writeBytesMin)) return undefined;
    return this.#flush();
  }

  commit(message: DraftMessage): Promise<MessageMeta> {
    if (this.#phase.kind !== "open") return Promise.reject(this.#closedFault());
    const done = this.#commit(message);
    this.#phase = { kind: "committing", done: done.catch(() => undefined) }; // the caller has the failure
    return done;
  }

  async discard(): Promise<void> {
    if (this.#phase.kind === "open") this.#phase = { kind: "discarding", done: this.#discard() };
    if (this.#phase.kind === "discarding") await this.#phase.done;
  }

  /** For the close of the drop-box: a commit under way is waited for, whatever else there is is given up. */
  async end(): Promise<void> {
    if (this.#phase.kind === "committing") await this.#phase.done;
    else await this.discard();
  }

  async #commit(message: DraftMessage): Promise<MessageMeta> {
    const meta: MessageMeta = {
      ...message,
      id: this.id,
      wireBytes: this.#wireBytes,
      sha256: this.#hash.digest("hex"),
    };
    try {
      if (this.#file !== undefined) {
        await this.#flush();
        await finish(await this.#file);
      }
      await this.#group.add({
        meta,
        record: encodeRecord(meta, this.#file === undefined ? this.#pieces : undefined),
        contentPart: this.#file === undefined ? undefined : this.#part,
      });
      return meta;
    } catch (error) {
      await this.#removePart();
      throw spoolFault(error);
    } finally {
      this.#end();
    }
  }

  async #discard(): Promise<void> {
    if (this.#file !== undefined) {
      await this.#file.then((file) => file.close()).catch(() => undefined); // a failed write has closed it already
      await this.#removePart();
    }
    this.#end();
  }

  /** Writes what is waiting to the draft's own file, which is made for the first of it. */
  #flush(): Promise<void> {
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#pieceBytes = 0;
    return this.#append(this.#file ?? this.#disk.create(this.#part), pieces);
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
      this.#failure ??= spoolFault(error);
      throw this.#failure;
    });
  }

  async #removePart(): Promise<void> {
    if (this.#file === undefined) return;
    await this.#disk.unlink(this.#part).catch(() => undefined); // swept at the next start
  }

  #end(): void {
    this.#phase = { kind: "ended" };
    this.#pieces = [];
    this.#ended();
  }

  #closedFault(): SpoolFault {
    return new SpoolFault("closed", `message ${this.id} has been given up or committed already`);
  }
}

async function finish(file: DraftFile): Promise<void> {
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
