/**
 * The folders of a spool: made when they are missing, and refused when others could write to them. A folder that was made
 * is on stable storage before anything is put into it: a message would be lost with the folder it is in.
 */
import { lstat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { SpoolFault } from "../spool.ts";
import { nodeDisk, systemCode, type Disk } from "./disk.ts";

export interface SpoolFolders {
  readonly root: string;
  readonly incoming: string;
  readonly queue: string;
  readonly corrupt: string;
}

export function spoolFolders(path: string): SpoolFolders {
  return {
    root: path,
    incoming: join(path, "incoming"),
    queue: join(path, "queue"),
    corrupt: join(path, "corrupt"),
  };
}

/** Makes what is missing, and throws a SpoolFault if one of the folders is a link, a file, or open to everybody. */
export async function prepareFolders(path: string, disk: Disk = nodeDisk): Promise<SpoolFolders> {
  const folders = spoolFolders(resolve(path));
  for (const folder of [folders.root, folders.incoming, folders.queue, folders.corrupt]) {
    await makeDurably(folder, disk);
    const status = await lstat(folder);
    if (!status.isDirectory()) throw new SpoolFault("io", `${folder} is not a folder: move it out of the way`);
    if ((status.mode & 0o002) !== 0) {
      throw new SpoolFault("io", `everybody may write to ${folder}: run chmod o-rwx ${folder}`);
    }
  }
  return folders;
}

async function makeDurably(folder: string, disk: Disk): Promise<void> {
  const parent = dirname(folder);
  if ((await disk.sizeOf(folder)) !== undefined) {
    // Whoever made it a moment ago may not have synced it. Not ours to insist on: the parent may be closed to us.
    await disk.syncDirectory(parent).catch(() => undefined);
    return;
  }
  try {
    await disk.makeFolder(folder);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    await makeDurably(parent, disk);
    await disk.makeFolder(folder);
  }
  await disk.syncDirectory(parent);
}
