/**
 * A configuration as it was read, in one file: with it the relay's processes start again, all on the same configuration,
 * also while somebody edits the files.
 *
 * Promises: a snapshot loads as the files did, with the same paths, lines and version; it is there whole or not at all;
 * nobody but the relay's user reads it; the server's private key is not in it. Reading fails, with a
 * {@link SnapshotFault}, where the file is no snapshot.
 */
import { resolve } from "node:path";
import { readFile } from "node:fs/promises";
import { writeFileDurably } from "../files/durable.ts";
import { diskFiles, type FileFault, type FileSource } from "./file-source.ts";
import { loadConfig } from "./load.ts";
import type { LoadResult } from "./relay-config.ts";
import { systemFault } from "./text.ts";

const format = 1;

type Kept<T> = Map<string, T | FileFault>;

/** Reads each file once, and keeps it: whoever reads it again gets the same. */
export class RecordingFiles implements FileSource {
  readonly #from: FileSource;
  readonly #files = new Map<string, Promise<Buffer | FileFault>>();
  readonly #folders = new Map<string, Promise<readonly string[] | FileFault>>();

  constructor(from: FileSource = diskFiles) {
    this.#from = from;
  }

  read(file: string): Promise<Buffer | FileFault> {
    return keep(this.#files, resolve(file), () => this.#from.read(file));
  }

  list(folder: string): Promise<readonly string[] | FileFault> {
    return keep(this.#folders, resolve(folder), () => this.#from.list(folder));
  }

  /** Writes what was read so far. `loadedAt` is the time by which it was judged. */
  async write(snapshotFile: string, loadedAt: Date): Promise<void> {
    const files: unknown[] = [];
    for (const [file, reading] of this.#files) {
      const bytes = await reading;
      files.push([file, "fault" in bytes ? bytes : bytes.toString("base64")]);
    }
    const folders: unknown[] = [];
    for (const [folder, reading] of this.#folders) folders.push([folder, await reading]);
    const text = JSON.stringify({ format, loadedAt: loadedAt.toISOString(), files, folders });
    await writeFileDurably(snapshotFile, `${text}\n`, 0o600);
  }
}

function keep<T>(kept: Map<string, Promise<T>>, key: string, read: () => Promise<T>): Promise<T> {
  const known = kept.get(key);
  if (known !== undefined) return known;
  const reading = read();
  kept.set(key, reading);
  return reading;
}

/** The snapshot cannot be used; the text names the file. */
export class SnapshotFault extends Error {
  constructor(file: string, what: string, cause?: unknown) {
    super(`${file} ${what}: restart the relay with pinrelay start, which writes it anew`, { cause });
    this.name = "SnapshotFault";
  }
}

/** A snapshot, read. */
export interface Snapshot {
  /** What is not in it does not exist. */
  readonly source: FileSource;
  /** When it was loaded. By that time it is judged again, or one that was valid would be invalid when a date has passed. */
  readonly loadedAt: Date;
}

export async function readSnapshot(snapshotFile: string): Promise<Snapshot> {
  const value = await readJson(snapshotFile);
  if (!isRecord(value) || value.format !== format) throw new SnapshotFault(snapshotFile, notOurs);
  const { loadedAt, files: fileList, folders: folderList } = value;
  if (typeof loadedAt !== "string" || !Array.isArray(fileList) || !Array.isArray(folderList)) {
    throw new SnapshotFault(snapshotFile, notOurs);
  }
  const files = keptOf(fileList, snapshotFile, (bytes) =>
    typeof bytes === "string" ? Buffer.from(bytes, "base64") : undefined,
  );
  const folders = keptOf(folderList, snapshotFile, (names) =>
    Array.isArray(names) && names.every((name) => typeof name === "string") ? names : undefined,
  );
  const missing = { fault: "does not exist" };
  return {
    source: {
      read: (file) => Promise.resolve(files.get(resolve(file)) ?? missing),
      list: (folder) => Promise.resolve(folders.get(resolve(folder)) ?? missing),
    },
    loadedAt: new Date(loadedAt),
  };
}

/** Loads relay.yaml and all that it names out of the snapshot. */
export async function loadSnapshot(snapshotFile: string, configFile: string): Promise<LoadResult> {
  const { source, loadedAt } = await readSnapshot(snapshotFile);
  return loadConfig(configFile, loadedAt, source);
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw new SnapshotFault(file, error instanceof SyntaxError ? notOurs : systemFault(error), error);
  }
}

const notOurs = "is no snapshot of a configuration, or of another version of pinrelay";

function keptOf<T>(entries: readonly unknown[], file: string, parse: (value: unknown) => T | undefined): Kept<T> {
  const kept: Kept<T> = new Map();
  for (const entry of entries) {
    const [name, value]: unknown[] = Array.isArray(entry) ? entry : [];
    const parsed = isRecord(value) && typeof value.fault === "string" ? { fault: value.fault } : parse(value);
    if (typeof name !== "string" || parsed === undefined) throw new SnapshotFault(file, notOurs);
    kept.set(name, parsed);
  }
  return kept;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
