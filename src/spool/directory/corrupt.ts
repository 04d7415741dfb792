/**
 * Keeps what failed a check for a person to look at, with a note that says why. Nothing is ever deleted here.
 */
import { copyFile, lstat, rename, rm, constants } from "node:fs/promises";
import { basename, join } from "node:path";
import { writeFileDurably, syncDirectory } from "../../files/durable.ts";
import { systemCode } from "./disk.ts";

/**
 * @param how "move" the file out of the way, or "keep" it where it is, for its other records, and copy it.
 */
export async function setAsideFile(folder: string, file: string, reason: string, how: "move" | "keep"): Promise<void> {
  const target = join(folder, basename(file));
  try {
    if (how === "move") {
      await rename(file, target);
    } else if ((await lstat(file)).isFile()) {
      await copyFile(file, target, constants.COPYFILE_FICLONE);
    }
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error; // a missing file leaves its note all the same
  }
  await rm(`${target}.reason`, { force: true });
  await writeFileDurably(`${target}.reason`, `${reason}\n`, 0o600);
  await syncDirectory(folder);
}
