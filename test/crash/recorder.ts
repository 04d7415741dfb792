/**
 * A disk that does what it is told, on the real one, and writes down what was done and when: each operation with the moment
 * it began and the moment it had ended, and between them whatever else happened. From this log, `disk-model.ts` builds the
 * disks that a crash may leave.
 *
 * A file is known by a number from its creation on, whatever name it has, like an inode.
 */
import { nodeDisk, type Disk } from "../../src/spool/directory/disk.ts";

/** What was done to a file or to a name. Paths are relative to the spool. */
export type Act =
  | { readonly kind: "create"; readonly file: number; readonly path: string }
  | { readonly kind: "rename"; readonly file: number; readonly from: string; readonly to: string }
  | { readonly kind: "unlink"; readonly file: number; readonly path: string }
  | { readonly kind: "write"; readonly file: number; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: "sync"; readonly file: number }
  | { readonly kind: "syncDirectory"; readonly path: string };

/** The index's files at a moment between two of its transactions. */
export interface IndexCopy {
  readonly database: Buffer | undefined;
  readonly log: Buffer | undefined;
}

export type Event =
  | { readonly kind: "begin"; readonly operation: number; readonly act: Act }
  | { readonly kind: "end"; readonly operation: number }
  | { readonly kind: "index"; readonly copy: IndexCopy }
  | { readonly kind: "note"; readonly note: Note };

/** What the two ends of the spool know: this is what must still be true after a crash. */
export type Note =
  | { readonly kind: "commit begun"; readonly id: string }
  | { readonly kind: "accepted"; readonly id: string; readonly recipients: number; readonly content: Buffer }
  /** From `settling` on they may be settled, from `settled` on they are. */
  | { readonly kind: "settling" | "settled"; readonly id: string; readonly recipients: readonly number[] }
  /** Put back: the index has it. */
  | { readonly kind: "deferred"; readonly id: string; readonly attempts: number }
  | { readonly kind: "held"; readonly id: string }
  /** About to be. */
  | { readonly kind: "released"; readonly id: string }
  /** The operator has asked for it; it may be done at any time from now on. */
  | { readonly kind: "removing"; readonly id: string };

export class Recorder {
  readonly events: Event[] = [];
  readonly #root: string;
  readonly #names = new Map<string, number>();
  #operations = 0;
  #files = 0;

  /** @param root the spool's folder. */
  constructor(root: string) {
    this.#root = root;
  }

  note(note: Note): void {
    this.events.push({ kind: "note", note });
  }

  noteIndex(copy: IndexCopy): void {
    this.events.push({ kind: "index", copy });
  }

  readonly disk: Disk = {
    makeFolder: (path) => nodeDisk.makeFolder(path),
    list: (path) => nodeDisk.list(path),
    sizeOf: (path) => nodeDisk.sizeOf(path),
    openForReading: (path) => nodeDisk.openForReading(path),
    create: async (path) => {
      if (path.endsWith("/ballast")) return nodeDisk.create(path); // half a mebibyte of nothing
      const file = (this.#files += 1);
      const opened = await this.#record({ kind: "create", file, path: this.#relative(path) }, () =>
        nodeDisk.create(path),
      );
      this.#names.set(path, file);
      let at = 0;
      return {
        write: async (pieces) => {
          const bytes = Buffer.concat(pieces);
          const act: Act = { kind: "write", file, at, bytes };
          at += bytes.length;
          await this.#record(act, () => opened.write(pieces));
        },
        sync: () => this.#record({ kind: "sync", file }, () => opened.sync()),
        close: () => opened.close(),
      };
    },
    rename: async (from, to) => {
      const file = this.#names.get(from);
      if (file === undefined) return nodeDisk.rename(from, to);
      const act: Act = { kind: "rename", file, from: this.#relative(from), to: this.#relative(to) };
      await this.#record(act, () => nodeDisk.rename(from, to));
      this.#names.delete(from);
      this.#names.set(to, file);
    },
    unlink: async (path) => {
      const file = this.#names.get(path);
      if (file === undefined) return nodeDisk.unlink(path);
      await this.#record({ kind: "unlink", file, path: this.#relative(path) }, () => nodeDisk.unlink(path));
      this.#names.delete(path);
    },
    syncDirectory: (path) =>
      this.#record({ kind: "syncDirectory", path: this.#relative(path) }, () => nodeDisk.syncDirectory(path)),
    openMarks: (path) => {
      const file = this.#names.get(path);
      if (file === undefined) throw new Error(`nobody has created ${path}`);
      const opened = nodeDisk.openMarks(path);
      return {
        write: (position, mark) => {
          const operation = this.#begin({ kind: "write", file, at: position, bytes: Buffer.from(mark) });
          opened.write(position, mark);
          this.events.push({ kind: "end", operation });
        },
        sync: () => this.#record({ kind: "sync", file }, () => opened.sync()),
        close: () => opened.close(),
      };
    },
  };

  #begin(act: Act): number {
    const operation = (this.#operations += 1);
    this.events.push({ kind: "begin", operation, act });
    return operation;
  }

  async #record<T>(act: Act, work: () => Promise<T>): Promise<T> {
    const operation = this.#begin(act);
    const result = await work();
    this.events.push({ kind: "end", operation });
    return result;
  }

  #relative(path: string): string {
    return path.slice(this.#root.length + 1);
  }
}
