/**
 * A er's spool for the tests of what goes wrong: with a disk that may fail, what has reported, and copies of as
 * a death at any moment would leave it.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, vi } from "vitest";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueIndex } from "../../src/spool/directory/queue-index.ts";
import { faultyDisk, type Watcher } from "./faulty-disk.ts";
import { temporaryFolder } from "./tools.ts";

export async function spoolWith(watch: Watcher = () => undefined) {
  const path = await temporaryFolder();
  const problems: SpoolProblem[] = [];
  const options = { path, disk: faultyDisk(watch), report: (problem: SpoolProblem) => problems.push(problem) };
  let spool = await openDirectorySpool(options);
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  onTestFinished(async () => {
    vi.restoreAllMocks();
    await dropBox.close();
    await spool.close();
  });
  const queue = join(path, "queue");
  return {
    path,
    queue,
    corrupt: join(path, "corrupt"),
    problems,
    dropBox,
    options,
    get spool() {
      return spool;
    },
    kinds: () => problems.map(({ kind }) => kind),
    files: async () => (await readdir(queue)).filter((name) => /\.(?:batch|content|tmp|part)$/.test(name)),
    reopen: async () => {
      await spool.close();
      spool = await openDirectorySpool(options);
      return spool;
    },
    /** As if the deliverer had been killed now: another one finds the files as they are. */
    afterDeath: () => openCopy(copySpool(path), options.report),
  };
}

/** The files as they are at this moment. */
export function copySpool(path: string): string {
  const copy = mkdtempSync(join(tmpdir(), "pinrelay-copy-"));
  for (const folder of ["incoming", "queue", "corrupt"]) {
    mkdirSync(join(copy, folder));
    for (const name of readdirSync(join(path, folder))) {
      if (!name.startsWith("lock.")) copyFileSync(join(path, folder, name), join(copy, folder, name));
    }
  }
  return copy;
}

export async function openCopy(path: string, report: (problem: SpoolProblem) => void) {
  const spool = await openDirectorySpool({ path, report });
  onTestFinished(async () => {
    await spool.close();
    await rm(path, { recursive: true });
  });
  const files = async () => (await readdir(join(path, "queue"))).filter((name) => /\.(?:batch|content)$/.test(name));
  return { spool, path, files };
}

/** An error as SQLite throws it. */
export function sqliteError(code: number, message: string): Error {
  return Object.assign(new Error(message), { code: "ERR_SQLITE_ERROR", errcode: code });
}

/** Makes the index refuse changes until it is told to take them again. */
export function failingIndex(code = 13, message = "database or disk is full") {
  const spy = vi.spyOn(QueueIndex.prototype, "apply").mockImplementation(() => {
    throw sqliteError(code, message);
  });
  return { mend: () => spy.mockRestore() };
}

export async function alter(file: string, from: string, to: string): Promise<void> {
  const bytes = await readFile(file, "latin1");
  expect(bytes).toContain(from);
  await writeFile(file, bytes.replace(from, to), "latin1");
}
