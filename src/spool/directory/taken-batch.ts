/**
 * A batch in the deliverer's hands, and the messages in it that have been claimed.
 *
 * Promises that a mark is written before `mark` returns, and that a content whose checksum does not match is never given
 * out to its end.
 */
import { createHash, hash } from "node:crypto";
import { join } from "node:path";
import {
  SpoolFault,
  type ClaimedMessage,
  type MessageMeta,
  type PendingRecipient,
  type RecipientIndex,
} from "../spool.ts";
import type { Mark, RecordPlace } from "./batch.ts";
import type { Disk, MarkFile } from "./disk.ts";
import { spoolFault } from "./group-commit.ts";

export class TakenBatch {
  readonly name: string;
  /** Claimed or waiting to be claimed, and not yet put back. */
  unfinished = 0;
  /** Does the index know all that is left of it? */
  examined: boolean;
  readonly #disk: Disk;
  readonly #path: string;
  #marks: MarkFile | undefined;

  constructor(disk: Disk, directory: string, name: string, examined: boolean) {
    this.name = name;
    this.examined = examined;
    this.#disk = disk;
    this.#path = join(directory, `${name}.batch`);
  }

  mark(position: number, mark: Mark): void {
    this.#marks ??= this.#disk.openMarks(this.#path);
    this.#marks.write(position, Buffer.from(mark));
  }

  async syncMarks(): Promise<void> {
    await this.#marks?.sync();
  }

  close(): void {
    this.#marks?.close();
    this.#marks = undefined;
  }
}

const pieceBytes = 256 * 1024;

export class ClaimedRecord implements ClaimedMessage {
  readonly meta: MessageMeta;
  readonly pending: readonly PendingRecipient[];
  readonly delayReported: boolean;
  readonly content: Buffer | undefined;
  readonly batch: TakenBatch;
  readonly place: RecordPlace;
  /** Is there a row for it in the index? */
  readonly indexed: boolean;
  /** What is not settled; shrinks as marks are set. */
  readonly unsettled: Set<RecipientIndex>;
  readonly #disk: Disk;
  readonly contentPath: string | undefined;

  constructor(
    disk: Disk,
    batch: TakenBatch,
    record: { readonly place: RecordPlace; readonly meta: MessageMeta },
    state: {
      readonly pending: readonly PendingRecipient[];
      readonly indexed: boolean;
      readonly delayReported: boolean;
      readonly content: Buffer | undefined;
      readonly contentPath: string | undefined;
    },
  ) {
    this.#disk = disk;
    this.batch = batch;
    this.meta = record.meta;
    this.place = record.place;
    this.pending = state.pending;
    this.indexed = state.indexed;
    this.delayReported = state.delayReported;
    this.content = state.content;
    this.contentPath = state.contentPath;
    this.unsettled = new Set(state.pending.map(({ index }) => index));
  }

  async *readContent(): AsyncGenerator<Buffer> {
    if (this.content !== undefined) {
      yield this.content;
      return;
    }
    if (this.contentPath === undefined) throw new SpoolFault("damaged", `message ${this.meta.id} has no content`);
    const file = await this.#disk.openForReading(this.contentPath).catch((error: unknown) => {
      throw spoolFault(error);
    });
    try {
      if (file.sizeBytes !== this.meta.wireBytes) {
        throw new SpoolFault("damaged", `the content of message ${this.meta.id} has the wrong length`);
      }
      const digest = createHash("sha256");
      for (let position = 0; position < file.sizeBytes; position += pieceBytes) {
        const piece = await file.read(position, Math.min(pieceBytes, file.sizeBytes - position));
        digest.update(piece);
        if (position + piece.length === file.sizeBytes) checkDigest(this.meta, digest.digest("hex"));
        yield piece;
      }
    } finally {
      await file.close();
    }
  }
}

/** Throws a SpoolFault of kind `damaged` unless the content is what the message had when it was committed. */
export function checkContent(meta: MessageMeta, content: Buffer): void {
  checkDigest(meta, hash("sha256", content, "hex"));
}

function checkDigest(meta: MessageMeta, digest: string): void {
  if (digest !== meta.sha256) {
    throw new SpoolFault("damaged", `the content of message ${meta.id} does not match its checksum`);
  }
}
