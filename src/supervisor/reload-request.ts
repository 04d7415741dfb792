/**
 * Asks the running relay to read its files again, and waits for what came of it. For `pinrelay reload`, and for commands
 * that have changed a file and want it to count.
 *
 * Promises: only a process that holds the supervisor's lock is signalled; an outcome is that of files as they were read
 * after the request. Fails (throws) only on faults of the program and of the disk.
 */
import { setTimeout as delay } from "node:timers/promises";
import { isLocked } from "../spool/directory/lock.ts";
import { lockFile, readState } from "./state.ts";

export type ReloadResult =
  /** No supervisor is at work on this spool. Compartments that run without one are reloaded by SIGHUP to each. */
  | { readonly kind: "notRunning" }
  /** `changes` has one line for each thing that is another now; none: the files are what has been in force already. */
  | {
      readonly kind: "reloaded";
      readonly policy: string;
      readonly changes: readonly string[];
      readonly warnings: readonly string[];
    }
  /** What has been in force stays in force. Each problem is one line, with file and line where it has one. */
  | { readonly kind: "refused"; readonly problems: readonly string[] }
  /** The relay has not answered in time; it may do so later. */
  | { readonly kind: "timeout" };

export interface ReloadRequestOptions {
  readonly deadlineMs?: number;
  readonly now?: () => Date;
}

const usualDeadlineMs = 5 * 60_000; // thousands of partners on a busy host
const pollMs = 50;

export async function requestReload(spoolPath: string, options: ReloadRequestOptions = {}): Promise<ReloadResult> {
  const { deadlineMs = usualDeadlineMs, now = () => new Date() } = options;
  const askedAtMs = now().getTime();
  const lock = lockFile(spoolPath);
  const state = isLocked(lock) ? await readState(spoolPath) : undefined;
  if (state === undefined) return { kind: "notRunning" };
  try {
    process.kill(state.pid, "SIGHUP");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ESRCH") return { kind: "notRunning" };
    if (code !== "EPERM") throw error;
    const help = "run this as root or as the user that the relay runs as";
    return { kind: "refused", problems: [`process ${state.pid} may not be signalled by this user: ${help}`] };
  }
  for (const endMs = performance.now() + deadlineMs; performance.now() < endMs; await delay(pollMs)) {
    const last = (await readState(spoolPath))?.lastReload;
    if (last !== undefined && Date.parse(last.begunAt) >= askedAtMs) {
      return last.kind === "refused"
        ? { kind: "refused", problems: last.problems }
        : { kind: "reloaded", policy: last.policy, changes: last.changes, warnings: last.problems };
    }
    if (!isLocked(lock)) return { kind: "notRunning" };
  }
  return { kind: "timeout" };
}
