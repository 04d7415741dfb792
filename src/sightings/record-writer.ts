/**
 * Writes records behind the back of whoever keeps them in memory: what is new at once, what has changed a minute later,
 * one file after the other. Whoever puts a record waits for nothing and hears of no fault.
 *
 * Promises: a file is there whole or not at all; a file that has been put is written, or was removed again first; what the
 * disk does not take is logged once a minute and tried again, and meanwhile only the latest state of each file is kept.
 */
import { readdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeFolderDurably, syncDirectory, writeFileDurably } from "../files/durable.ts";
import type { Log } from "../log/log.ts";

export type WriteFile = (file: string, text: string, mode: number) => Promise<void>;

export interface RecordWriterOptions {
  readonly write?: WriteFile;
  /** Between two writes of what has changed, and between attempts. */
  readonly intervalMs?: number;
  /** What the log says of a fault: during what it happened. */
  readonly during?: string;
}

type Text = () => string;

export class RecordWriter {
  readonly #folders: readonly string[];
  readonly #log: Log;
  readonly #write: WriteFile;
  readonly #intervalMs: number;
  readonly #during: string;
  /** What is to be written now, and what with the next turn. No file is in both. */
  readonly #due = new Map<string, Text>();
  readonly #later = new Map<string, Text>();
  readonly #removals = new Set<string>();
  #state: "ready" | "failing" | "closed" = "ready";
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;

  constructor(folders: readonly string[], log: Log, options: RecordWriterOptions = {}) {
    this.#folders = folders;
    this.#log = log;
    this.#write = options.write ?? writeFileDurably;
    this.#intervalMs = options.intervalMs ?? 60_000;
    this.#during = options.during ?? "writing down what was seen";
  }

  /**
   * @param text asked for when the file is written: what has been put in between is in it.
   * @param urgency "now": as soon as the disk takes it; "later": with all others that have changed.
   */
  put(file: string, text: Text, urgency: "now" | "later"): void {
    if (this.#state === "closed") return;
    this.#removals.delete(file);
    if (this.#due.has(file)) return;
    if (urgency === "now" && this.#state === "ready") {
      this.#later.delete(file);
      this.#due.set(file, text);
      this.#run();
    } else {
      this.#later.set(file, text);
      this.#wait();
    }
  }

  /** The file goes with the next turn, if it is there at all. */
  remove(file: string): void {
    this.#due.delete(file);
    this.#later.delete(file);
    if (this.#state === "closed") return;
    this.#removals.add(file);
    if (this.#state === "ready" && this.#removals.size >= removalsMax) this.#run();
    else this.#wait();
  }

  /** Removes what a death has left of files that were being written. */
  async removeDrafts(): Promise<void> {
    for (const folder of this.#folders) {
      const names = await readdir(folder).catch(ifMissing);
      for (const name of names) if (draftForm.test(name)) await unlink(join(folder, name)).catch(ifMissing);
    }
  }

  /** Writes what has changed, once, and then nothing more. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#state === "closed") return;
    this.#state = "closed";
    await this.#running;
    this.#takeAll();
    await this.#pass();
  }

  #wait(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#state === "failing") this.#state = "ready";
      this.#takeAll();
      this.#run();
    }, this.#intervalMs).unref();
  }

  #takeAll(): void {
    for (const [file, text] of this.#later) this.#due.set(file, text);
    this.#later.clear();
  }

  #run(): void {
    this.#running ??= this.#pass().finally(() => {
      this.#running = undefined;
      if (this.#state === "ready" && this.#due.size > 0) this.#run();
    });
  }

  /** Removals first: a folder never holds more than is kept, and the one that is being written. */
  async #pass(): Promise<void> {
    if (this.#due.size === 0 && this.#removals.size === 0) return;
    let writing: [file: string, text: Text] | undefined;
    try {
      for (const folder of this.#folders) await makeFolderDurably(folder);
      await this.#removeAll();
      for (writing of this.#due) {
        const [file, text] = writing;
        this.#due.delete(file);
        await this.#write(file, text(), 0o600);
        writing = undefined;
        await this.#removeAll();
      }
    } catch (error) {
      for (const [file, text] of this.#due) this.#later.set(file, text);
      this.#due.clear();
      // Last: if it is this one file that cannot be written, the others are.
      if (writing !== undefined && !this.#later.has(writing[0]) && !this.#removals.has(writing[0])) {
        this.#later.set(...writing);
      }
      this.#fail(error);
    }
  }

  async #removeAll(): Promise<void> {
    const folders = new Set<string>();
    for (const file of this.#removals) {
      await unlink(file).catch(ifMissing);
      this.#removals.delete(file);
      folders.add(dirname(file));
    }
    for (const folder of folders) await syncDirectory(folder);
  }

  #fail(error: unknown): void {
    const err = error instanceof Error ? error : new Error(String(error));
    this.#log.error({ event: "fault", during: this.#during, err });
    if (this.#state === "closed") return;
    this.#state = "failing";
    this.#wait();
  }
}

const removalsMax = 100;
/** As `writeFileDurably` names its drafts. */
const draftForm = /^\..*\.tmp$/;

function ifMissing(error: unknown): never[] {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
  throw error;
}
