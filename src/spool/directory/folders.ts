/**
 * The folders of a spool: made when they are missing, and refused when others could write to them.
 */
import { mkdir, lstat } from "node:fs/promises";
import { join } from "node:path";
import { SpoolFault } from "../spool.ts";

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
export async function prepareFolders(path: string): Promise<SpoolFolders> {
  const folders = spoolFolders(path);
  for (const folder of [folders.root, folders.incoming, folders.queue, folders.corrupt]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const status = await lstat(folder);
    if (!status.isDirectory()) throw new SpoolFault("io", `${folder} is not a folder: move it out of the way`);
    if ((status.mode & 0o002) !== 0) {
      throw new SpoolFault("io", `everybody may write to ${folder}: run chmod o-rwx ${folder}`);
    }
  }
  return folders;
}
