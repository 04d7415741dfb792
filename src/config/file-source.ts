/**
 * Where the files of a configuration come from: the disk, or what has been kept of it (`snapshot.ts`). All that is read
 * while a configuration is loaded is read through here, so that a configuration that was valid once can be loaded again,
 * whatever has become of the files since. The server's private key is not read here: it goes nowhere.
 */
import { readdir } from "node:fs/promises";
import { readBounded } from "./source.ts";
import { systemFault } from "./text.ts";

/** In words that follow the name of the file: `does not exist`. */
export interface FileFault {
  readonly fault: string;
}

export interface FileSource {
  /** The whole file, which is of bounded size. */
  read(file: string): Promise<Buffer | FileFault>;
  /** Names of what is in the folder, sorted. */
  list(folder: string): Promise<readonly string[] | FileFault>;
}

export const diskFiles: FileSource = {
  read: readBounded,
  async list(folder) {
    try {
      return (await readdir(folder)).toSorted();
    } catch (error) {
      return { fault: systemFault(error) };
    }
  },
};
