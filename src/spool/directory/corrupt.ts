/**
 * The folder `corrupt/`: keeps what failed a check for a person to look at, each with a note that says why.
 *
 * Promises: nothing is deleted or overwritten here; what was set aside is on stable storage before the call returns. Only
 * the deliverer writes here. Fails with the system's error, and then what was to be set aside is still where it was.
 */
import { basename, join } from "node:path";
import { systemCode, type Disk } from "./disk.ts";

export class CorruptFolder {
  readonly #disk: Disk;
  readonly #folder: string;

  constructor(disk: Disk, folder: string) {
    this.#disk = disk;
    this.#folder = folder;
  }

  /** Moves a file, or whatever it is, out of the way; what is not there leaves its note all the same. */
  async move(file: string, reason: string): Promise<void> {
    const target = await this.#freeName(basename(file));
    try {
      await this.#disk.rename(file, target);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
    }
    await this.#note(target, reason);
  }

  /** Keeps a part of a file that stays where it is, for its other parts. What is there already is not kept twice. */
  async keep(name: string, bytes: Buffer, reason: string): Promise<void> {
    if (await this.#holds(join(this.#folder, name), bytes)) return;
    const target = await this.#freeName(name);
    await this.#write(target, bytes);
    await this.#note(target, reason);
  }

  async #holds(file: string, bytes: Buffer): Promise<boolean> {
    if ((await this.#disk.sizeOf(file)) !== bytes.length) return false;
    const kept = await this.#disk.openForReading(file);
    try {
      return (await kept.read(0, bytes.length)).equals(bytes);
    } finally {
      await kept.close();
    }
  }

  async #freeName(name: string): Promise<string> {
    for (let count = 1; ; count += 1) {
      const path = join(this.#folder, count === 1 ? name : `${name}.${count}`);
      const taken = [await this.#disk.sizeOf(path), await this.#disk.sizeOf(noteOf(path))];
      if (taken.every((size) => size === undefined)) return path;
    }
  }

  /** The note is for convenience: the log has the reason too, and a full disk must not keep damage in the way. */
  async #note(target: string, reason: string): Promise<void> {
    await this.#write(noteOf(target), Buffer.from(`${reason}\n`)).catch(() => undefined);
    await this.#disk.syncDirectory(this.#folder);
  }

  async #write(path: string, bytes: Buffer): Promise<void> {
    const file = await this.#disk.create(path);
    try {
      try {
        await file.write([bytes]);
        await file.sync();
      } finally {
        await file.close();
      }
    } catch (error) {
      await this.#disk.unlink(path).catch(() => undefined); // the first failure is the one that tells
      throw error;
    }
  }
}

function noteOf(path: string): string {
  return `${path}.reason`;
}
