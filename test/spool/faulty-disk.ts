/**
 * The real disk, but for the operations that a test wants to fail or to see. An operation is named as in `Disk`; those on an
 * open file are `write`, `sync`, `close`, `read`, `mark` and `syncMarks`, with the path that the file was opened by.
 */
import { nodeDisk, type Disk } from "../../src/spool/directory/disk.ts";

export type Operation =
  Exclude<keyof Disk, "openForReading"> | "openForReading" | "write" | "sync" | "close" | "read" | "mark" | "syncMarks";

/** Called before each operation: throws what the operation shall fail with. */
export type Watcher = (operation: Operation, path: string) => void;

export function faultyDisk(watch: Watcher): Disk {
  const plain =
    <A extends readonly unknown[], T>(operation: Operation, act: (path: string, ...rest: A) => Promise<T>) =>
    async (path: string, ...rest: A): Promise<T> => {
      watch(operation, path);
      return act(path, ...rest);
    };
  return {
    makeFolder: plain("makeFolder", (path) => nodeDisk.makeFolder(path)),
    rename: plain("rename", (from, to: string) => nodeDisk.rename(from, to)),
    unlink: plain("unlink", (path) => nodeDisk.unlink(path)),
    syncDirectory: plain("syncDirectory", (path) => nodeDisk.syncDirectory(path)),
    list: plain("list", (path) => nodeDisk.list(path)),
    sizeOf: plain("sizeOf", (path) => nodeDisk.sizeOf(path)),
    create: plain("create", async (path) => {
      const file = await nodeDisk.create(path);
      return {
        write: (pieces) => plain("write", () => file.write(pieces))(path),
        sync: () => plain("sync", () => file.sync())(path),
        async close() {
          await file.close(); // never leaked by a test's fault
          watch("close", path);
        },
      };
    }),
    openForReading: plain("openForReading", async (path) => {
      const file = await nodeDisk.openForReading(path);
      return {
        sizeBytes: file.sizeBytes,
        read: (position, length) => plain("read", () => file.read(position, length))(path),
        close: () => file.close(),
      };
    }),
    openMarks(path) {
      watch("openMarks", path);
      const file = nodeDisk.openMarks(path);
      return {
        write(position, mark) {
          watch("mark", path);
          file.write(position, mark);
        },
        sync: () => plain("syncMarks", () => file.sync())(path),
        close: () => file.close(),
      };
    },
  };
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made by a test`), { code });
}

/** Fails with `code` whenever the operation is done on a path that matches, as long as `on` is set. */
export function fault(
  code: string,
  operation: Operation,
  path: RegExp,
): { on: boolean; count: number; watch: Watcher } {
  const state = {
    on: true,
    count: 0,
    watch: (done: Operation, at: string) => {
      if (!state.on || done !== operation || !path.test(at)) return;
      state.count += 1;
      throw systemError(code);
    },
  };
  return state;
}
