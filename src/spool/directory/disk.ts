/**
 * Every file operation of the directory driver, behind one small interface, so that tests can record them, rebuild what a
 * crash would leave, and make them fail. `nodeDisk` is the real one. (The index is SQLite's own affair.)
 *
 * All opens are O_NOFOLLOW and refuse what is not a regular file: a link planted in the spool is never followed.
 * Fails with the system's error (`code`).
 */
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { lstat, mkdir, open, readdir, rename, unlink, type FileHandle } from "node:fs/promises";
import { syncDirectory } from "../../files/durable.ts";

export interface Disk {
  /** Makes a folder, mode 0700, whose parent exists; false: it was there. */
  makeFolder(path: string): Promise<boolean>;
  /** Creates a file that must not exist, for writing, mode 0600. */
  create(path: string): Promise<DraftFile>;
  rename(from: string, to: string): Promise<void>;
  /** A file that is not there is no failure. */
  unlink(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  list(path: string): Promise<string[]>;
  /** Octets of what stands there, without following a link; undefined: nothing does. */
  sizeOf(path: string): Promise<number | undefined>;
  openForReading(path: string): Promise<StoredFile>;
  /** Opens a file whose marks are overwritten in place. */
  openMarks(path: string): MarkFile;
}

export interface DraftFile {
  write(pieces: readonly Buffer[]): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface StoredFile {
  readonly sizeBytes: number;
  /** Reads exactly `length` bytes from `position`, or fails. */
  read(position: number, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

export interface MarkFile {
  write(position: number, mark: Buffer): void;
  /** What was written to the file, by whatever handle, is on stable storage afterwards. */
  sync(): Promise<void>;
  close(): void;
}

export const nodeDisk: Disk = {
  makeFolder: (path) =>
    mkdir(path, { mode: 0o700 }).then(
      () => true,
      (error: unknown) => {
        if (systemCode(error) === "EEXIST") return false;
        throw error;
      },
    ),
  async create(path) {
    const handle = await open(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    return {
      write: (pieces) => writeAll(handle, pieces),
      sync: () => handle.datasync(),
      close: () => handle.close(),
    };
  },
  rename,
  async unlink(path) {
    await unlink(path).catch((error: unknown) => {
      if (systemCode(error) !== "ENOENT") throw error;
    });
  },
  syncDirectory,
  list: (path) => readdir(path),
  sizeOf: (path) =>
    lstat(path).then(
      ({ size }) => size,
      (error: unknown) => {
        if (systemCode(error) === "ENOENT") return undefined;
        throw error;
      },
    ),
  async openForReading(path) {
    // Before it is opened: opening a device may do something, and a socket cannot be opened at all.
    if (!(await lstat(path)).isFile()) throw notRegular(path);
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const status = await handle.stat();
      if (!status.isFile()) throw notRegular(path);
      return {
        sizeBytes: status.size,
        read: (position, length) => readExactly(handle, position, length),
        close: () => handle.close(),
      };
    } catch (error) {
      await handle.close();
      throw error;
    }
  },
  openMarks(path) {
    const descriptor = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    return {
      write(position, mark) {
        if (writeSync(descriptor, mark, 0, mark.length, position) !== mark.length) throw new Error("short write");
      },
      sync: () => syncFile(path),
      close: () => closeSync(descriptor),
    };
  },
};

/** The system's name of a failure, as ENOSPC; undefined for other errors. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

function notRegular(path: string): Error {
  return Object.assign(new Error(`${path} is not a regular file`), { code: "EFTYPE" });
}

/** Syncs a file by a handle of its own: what was written to it through any other is flushed too. */
async function syncFile(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

const vectorsMax = 1024; // IOV_MAX

async function writeAll(handle: FileHandle, pieces: readonly Buffer[]): Promise<void> {
  for (let from = 0; from < pieces.length; from += vectorsMax) {
    const group = pieces.slice(from, from + vectorsMax);
    const wantedBytes = group.reduce((sum, piece) => sum + piece.length, 0);
    const { bytesWritten } = await handle.writev(group);
    // A short write is how a full disk or a file size limit shows first.
    if (bytesWritten !== wantedBytes) await handle.writeFile(Buffer.concat(group).subarray(bytesWritten));
  }
}

async function readExactly(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) throw Object.assign(new Error("file is shorter than its records say"), { code: "ETRUNCATED" });
    filled += bytesRead;
  }
  return buffer;
}
