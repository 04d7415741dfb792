/**
 * Programs, ports and events for the interop tests: run a program to its end, start one that stays, find a free port,
 * wait for something that another process will do.
 *
 * Nothing here waits for time: `until` looks again until the event has happened, and fails with what was seen last once
 * the deadline has passed. What is started is ended by its own process id, and a guard ends it when this process dies.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

export interface Finished {
  /** The exit status; null when a signal ended the program. */
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface RunOptions {
  input?: Buffer | string;
  cwd?: string;
  deadlineMs?: number;
}

const pollIntervalMs = 20;

/** Runs a program to its end, whatever its exit status. Throws if it cannot be started or outlives the deadline. */
export async function run(program: string, args: string[], options: RunOptions = {}): Promise<Finished> {
  const { deadlineMs = 60_000 } = options;
  const child = spawn(program, args, {
    cwd: options.cwd,
    stdio: ["pipe", "pipe", "pipe"],
    timeout: deadlineMs,
    killSignal: "SIGKILL",
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  // A program that ends before it has read its input is judged by its exit status, not by our broken pipe.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const finished = { code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() };
  if (code === null) {
    throw new Error(`${program} was ended by ${child.signalCode} (deadline ${deadlineMs} ms): ${finished.stderr}`);
  }
  return finished;
}

/** Runs a program that must succeed, and returns what it printed. */
export async function output(program: string, args: string[], options: RunOptions = {}): Promise<Buffer> {
  const { code, stdout, stderr } = await run(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: exit status ${code}\n${stderr}${stdout.toString()}`);
  return stdout;
}

/**
 * Looks until `look` returns something other than undefined. Past the deadline it throws, naming what was waited for and
 * what `report` then says.
 */
export async function until<Found>(
  what: string,
  look: () => Promise<Found | undefined>,
  options: { deadlineMs?: number; report?: () => Promise<string> } = {},
): Promise<Found> {
  const { deadlineMs = 30_000 } = options;
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) {
      const report = options.report ? `\n${await options.report()}` : "";
      throw new Error(`${what}: not within ${deadlineMs} ms${report}`);
    }
    await pause(pollIntervalMs);
  }
}

/** A port that was free a moment ago on this address. Another process may take it first: whoever uses it must cope. */
export async function freePort(address: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port: 0, exclusive: true }, resolve);
  });
  const bound = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (bound === null || typeof bound === "string") throw new Error(`no port on ${address}`);
  return bound.port;
}

/** Has another process taken this port since? */
export async function portIsTaken(address: string, port: number): Promise<boolean> {
  const server = createServer();
  const taken = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(true));
    server.listen({ host: address, port, exclusive: true }, () => resolve(false));
  });
  if (!taken) await new Promise<void>((resolve) => server.close(() => resolve()));
  return taken;
}

/** A fresh directory that other users of the machine (the mail servers' own accounts) may enter. */
export async function temporaryDirectory(name: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), `pinrelay-${name}-`));
  await chmod(directory, 0o755);
  return directory;
}

/**
 * Is anything alive of the process group that this leader began? Zombies are not: a container's first process may take a
 * second to collect them, and until then signals still find them.
 */
export async function groupIsAlive(leader: number): Promise<boolean> {
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = await readFile(`/proc/${entry}/stat`, "latin1").catch(() => ""); // Gone since we looked.
    // proc(5): pid (program) state ppid pgrp …; the program's name may hold spaces and parentheses.
    const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (Number(group) === leader && state !== "Z" && state !== "X") return true;
  }
  return false;
}

/**
 * Ends the process group and removes the directory if this process dies without having done so, even by SIGKILL: the
 * guard's standard input then ends without the line that dismisses it.
 */
export class Guard {
  readonly #child: ChildProcess;

  constructor(leader: number, directory: string) {
    const script = 'read -r dismissed || { kill -s TERM -- "-$1" 2>/dev/null; rm -rf -- "$2"; }';
    this.#child = spawn("sh", ["-c", script, "sh", String(leader), directory], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    this.#child.stdin?.on("error", () => undefined);
    this.#child.unref();
  }

  dismiss(): void {
    this.#child.stdin?.end("dismissed\n");
  }
}
