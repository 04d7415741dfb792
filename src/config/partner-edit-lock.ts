/**
 * One editor of a partner's file at a time: a lock file beside it, `.NAME.yaml.lock`, with the process that holds it.
 *
 * Promises: who finds it held waits for a while; the lock of a process that is dead is taken over. Between two who take
 * over at the same moment the lock may fail to decide, which is why the editor looks again before it replaces the file.
 * Fails with the system's error where the folder may not be written to, and with {@link LockHeld}.
 */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Somebody else edits the file, and goes on doing so. In one line, without the file's name. */
export class LockHeld extends Error {
  override readonly name = "LockHeld";
}

const pollMs = 25;

/**
 * Runs `work` with the lock of `file`.
 * @param patienceMs how long to wait for whoever holds it.
 */
export async function withEditLock<T>(file: string, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const lock = join(dirname(file), `.${basename(file)}.lock`);
  const claim = `${process.pid} ${randomBytes(8).toString("hex")}\n`;
  const draft = `${lock}.${randomBytes(6).toString("hex")}.tmp`;
  // Written beside its place and linked into it: nobody ever reads a lock without its process.
  await writeFile(draft, claim, { flag: "wx", mode: 0o644 });
  try {
    await take(lock, draft, patienceMs);
  } finally {
    await unlink(draft);
  }
  try {
    return await work();
  } finally {
    // Whoever took us for dead has it by now.
    if ((await contentOf(lock)) === claim) await unlink(lock).catch(() => undefined);
  }
}

async function take(lock: string, draft: string, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    try {
      await link(draft, lock);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    const content = await contentOf(lock);
    const pid = pidOf(content);
    if (content !== undefined && (pid === undefined || !isAlive(pid))) await remove(lock, content);
    else if (performance.now() > deadlineMs) {
      throw new LockHeld(
        `is being edited by process ${pid ?? "?"}: try again, or remove ${lock} if that is no pinrelay`,
      );
    } else await sleep(pollMs);
  }
}

/** Removes the lock if it is the one that was read: another may stand there by now. */
async function remove(lock: string, content: string): Promise<void> {
  const aside = `${lock}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    await rename(lock, aside);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
    throw error;
  }
  if ((await contentOf(aside)) !== content) await link(aside, lock).catch(() => undefined); // it was alive: put it back
  await unlink(aside);
}

async function contentOf(lock: string): Promise<string | undefined> {
  try {
    return await readFile(lock, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function pidOf(content: string | undefined): number | undefined {
  const digits = /^(\d{1,10}) [0-9a-f]+\n$/.exec(content ?? "")?.[1];
  return digits === undefined ? undefined : Number(digits);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH"); // EPERM: another user's
  }
}
