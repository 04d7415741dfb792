/**
 * Files that are there whole or not at all, whatever dies in between: written beside their place, synced, renamed into
 * it, and the folder synced. Fails with the system's error: then nothing has changed at the place, or, if it was the last
 * sync that failed, the new file is there and may be the old one again after a loss of power.
 */
import { randomBytes } from "node:crypto";
import { link, mkdir, open, rename, unlink, type FileHandle } from "node:fs/promises";
import { constants } from "node:fs";
import { basename, dirname, join } from "node:path";

/** How a new file takes the place of an old one. */
export interface Succession {
  /** Whom the new file shall belong to. Fails with EPERM where this user may not give it to them. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Called when all is written, right before the new file takes its place: what it throws keeps the old one there. */
  readonly allow?: () => Promise<void>;
}

/**
 * Writes `data` to `file` and returns once it is on stable storage.
 * @param mode permission bits of a new file, for instance 0o600.
 * @param onExisting "replace" the file, or "refuse": fails with EEXIST and leaves it as it is.
 */
export async function writeFileDurably(
  file: string,
  data: string | Uint8Array,
  mode: number,
  onExisting: "replace" | "refuse" = "replace",
  { owner, allow }: Succession = {},
): Promise<void> {
  const draft = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    // The permission model of Node denies fs.fsync but not a FileHandle's own sync.
    const handle = await open(
      draft,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      mode,
    );
    try {
      await chown(handle, owner);
      await handle.chmod(mode); // whatever the umask
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await allow?.();
    if (onExisting === "refuse") {
      await link(draft, file); // rename would replace, link fails with EEXIST
      await unlink(draft).catch(() => undefined); // a second name does no harm
    } else {
      await rename(draft, file);
    }
  } catch (error) {
    await unlink(draft).catch(() => undefined); // it may not exist; the first error is the one that tells
    throw error;
  }
  await syncDirectory(dirname(file));
}

/** Makes the folder, and those above it that are missing, for us alone. One that is there stays as it is. */
export async function makeFolderDurably(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EEXIST") return;
    if (code !== "ENOENT" || dirname(folder) === folder) throw error;
    await makeFolderDurably(dirname(folder));
    return makeFolderDurably(folder); // another process may have made it by now
  }
  await syncDirectory(dirname(folder));
}

async function chown(handle: FileHandle, owner: Succession["owner"]): Promise<void> {
  if (owner === undefined) return;
  const { uid, gid } = await handle.stat();
  if (uid !== owner.uid || gid !== owner.gid) await handle.chown(owner.uid, owner.gid);
}

/** Makes the entries of a folder durable: what was created, renamed or unlinked in it before the call. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
