/**
 * A batch in the deliverer's hands, and the messages in it that have been claimed.
 *
 * Promises that a mark is in the file before `mark` returns, or else is kept and written as soon as the disk takes it; and
 * that a content whose checksum does not match is never given out to its end.
 */
import { createHash, hash } from "node:crypto";
import {
  SpoolFault,
  type ClaimedMessage,
  type MessageMeta,
  type PendingRecipient,
  type RecipientIndex,
} from "../spool.ts";
import type { Mark, RecordPlace } from "./batch.ts";
import { systemCode, type Disk, type MarkFile } from "./disk.ts";
import { spoolFault } from "./fault.ts";

export class TakenBatch {
  readonly name: string;
  /** Octets of all its files. */
  readonly bytes: number;
  /** Claimed or waiting to be claimed, and not yet put back. */
  unfinished = 0;
  /** Does the index count its octets? */
  known: boolean;
  readonly #disk: Disk;
  readonly #path: string;
  #file: MarkFile | undefined;
  readonly #owed = new Map<number, Mark>();

  constructor(disk: Disk, path: string, state: { name: string; bytes: number; known: boolean }) {
    this.#disk = disk;
    this.#path = path;
    this.name = state.name;
    this.bytes = state.bytes;
    this.known = state.known;
  }

  /** Before a message is given out: who could not write down that it was delivered would deliver it again and again. */
  openMarks(): void {
    try {
      this.#file ??= this.#disk.openMarks(this.#path);
    } catch (error) {
      throw spoolFault(error);
    }
  }

  mark(position: number, mark: Mark): void {
    this.#owed.set(position, mark);
    this.tryToPayMarks();
  }

  tryToPayMarks(): void {
    try {
      this.payMarks();
    } catch {
      // Kept; whoever claims next tries again, and hears of it.
    }
  }

  get owesMarks(): boolean {
    return this.#owed.size > 0;
  }

  /** Writes the marks that the disk has not taken yet; throws a SpoolFault if it still does not. */
  payMarks(): void {
    try {
      this.openMarks();
      for (const [position, mark] of this.#owed) {
        this.#file?.write(position, Buffer.from(mark));
        this.#owed.delete(position);
      }
    } catch (error) {
      const fault = spoolFault(error);
      if (systemCode(fault.cause) !== "ENOENT") throw fault;
      this.#owed.clear(); // the batch is gone, and whatever there was to mark in it
    }
  }

  /** Makes all marks durable, also those that a process before us wrote. */
  async syncMarks(): Promise<void> {
    this.payMarks();
    await this.#file?.sync();
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

const pieceBytes = 256 * 1024;

export interface ClaimState {
  readonly pending: readonly PendingRecipient[];
  readonly indexed: boolean;
  readonly delayReported: boolean;
  readonly request: "bounce" | undefined;
  readonly content: Buffer | undefined;
  readonly contentPath: string | undefined;
}

export class ClaimedRecord implements ClaimedMessage {
  readonly meta: MessageMeta;
  readonly pending: readonly PendingRecipient[];
  readonly delayReported: boolean;
  readonly request?: "bounce";
  readonly content: Buffer | undefined;
  readonly contentPath: string | undefined;
  readonly batch: TakenBatch;
  readonly place: RecordPlace;
  /** Is there a row for it in the index? */
  readonly indexed: boolean;
  /** What is not settled; shrinks as marks are set. */
  readonly unsettled: Set<RecipientIndex>;
  readonly #disk: Disk;
  #claimed = true;

  constructor(
    disk: Disk,
    batch: TakenBatch,
    record: { readonly place: RecordPlace; readonly meta: MessageMeta },
    state: ClaimState,
  ) {
    this.#disk = disk;
    this.batch = batch;
    this.meta = record.meta;
    this.place = record.place;
    this.pending = state.pending;
    this.indexed = state.indexed;
    this.delayReported = state.delayReported;
    if (state.request !== undefined) this.request = state.request;
    this.content = state.content;
    this.contentPath = state.contentPath;
    this.unsettled = new Set(state.pending.map(({ index }) => index));
  }

  get isClaimed(): boolean {
    return this.#claimed;
  }

  /** It is put back: whoever had it has no say in it any more. */
  release(): void {
    this.#claimed = false;
  }

  get location(): { readonly batch: string; readonly offset: number; readonly length: number } {
    const { offset, end } = this.place;
    return { batch: this.batch.name, offset, length: end - offset };
  }

  async *readContent(): AsyncGenerator<Buffer> {
    if (this.content !== undefined) {
      yield this.content;
      return;
    }
    if (this.contentPath === undefined) throw new SpoolFault("damaged", `message ${this.meta.id} has no content`);
    const file = await this.#disk.openForReading(this.contentPath).catch((error: unknown) => {
      if (systemCode(error) === "ENOENT")
        throw new SpoolFault("damaged", `the content of message ${this.meta.id} is missing`);
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
    } catch (error) {
      throw spoolFault(error);
    } finally {
      await file.close();
    }
  }
}

/** Is the content what the message had when it was committed? Undefined, or the reason why not. */
export function damageOf(meta: MessageMeta, content: Buffer): string | undefined {
  return hash("sha256", content, "hex") === meta.sha256 ? undefined : mismatch(meta);
}

function checkDigest(meta: MessageMeta, digest: string): void {
  if (digest !== meta.sha256) throw new SpoolFault("damaged", mismatch(meta));
}

function mismatch(meta: MessageMeta): string {
  return `the content of message ${meta.id} does not match its checksum`;
}
