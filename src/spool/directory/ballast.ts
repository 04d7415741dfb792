/**
 * A file that takes room, to be thrown overboard: on a disk that is full to the last octet a deliverer could not open its
 * index, nor write into it what it has delivered, and it is the deliverer that makes room.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { SpoolFault } from "../spool.ts";
import type { Disk } from "./disk.ts";

const ballastBytes = 512 * 1024;

export class Ballast {
  readonly #disk: Disk;
  readonly #file: string;

  constructor(disk: Disk, queue: string) {
    this.#disk = disk;
    this.#file = join(queue, "ballast");
  }

  /** Does the work; if there is no room for it, once more without the ballast. */
  async without<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof SpoolFault) || error.kind !== "full") throw error;
      await this.throwOverboard();
      return work();
    }
  }

  async throwOverboard(): Promise<void> {
    await this.#disk.unlink(this.#file);
  }

  /** Takes it aboard, if there is room. */
  async load(): Promise<void> {
    try {
      if ((await this.#disk.sizeOf(this.#file)) === ballastBytes) return;
      await this.#disk.unlink(this.#file);
      const file = await this.#disk.create(this.#file);
      try {
        await file.write([randomBytes(ballastBytes)]); // nothing that a file system could make smaller
      } finally {
        await file.close();
      }
    } catch {
      await this.#disk.unlink(this.#file).catch(() => undefined); // no room: whoever needs it gets all there is
    }
  }
}
