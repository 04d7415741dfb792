/**
 * `pinrelay start` as a process of its own, as an operator runs it: started with a configuration, found by its state file,
 * stopped by its own process id.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { resolve } from "node:path";
import { readState, type RelayState } from "../../src/supervisor/state.ts";

const script = resolve(import.meta.dirname, "../../scripts/pinrelay.mjs");
const startDeadlineMs = 30_000;

export interface RelayProcess {
  readonly child: ChildProcess;
  /** Ports as the system gave them, in the order of `listen`. */
  readonly ports: readonly number[];
  /** All that it has logged, parsed. */
  log(): Array<Record<string, unknown>>;
  state(): Promise<RelayState | undefined>;
  /** Its exit status, when it has ended. */
  readonly ended: Promise<number | null>;
  /** SIGTERM, and the exit status. */
  stop(): Promise<number | null>;
}

/** Runs `pinrelay` to its end; what it wrote, and its exit status. */
export async function runPinrelay(...args: string[]): Promise<{ status: number | null; text: string }> {
  const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece: Buffer) => (text += piece.toString()));
  const status = await new Promise<number | null>((done) => child.once("close", done));
  return { status, text };
}

/** In a process group of its own, so that a test can signal the group as a terminal does. */
export async function startRelayProcess(configFile: string, spoolPath: string): Promise<RelayProcess> {
  const child = spawn(process.execPath, [script, "start", "--config", configFile], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let written = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text: Buffer) => (written += text.toString()));
  const ended = new Promise<number | null>((done) => child.once("exit", done));
  const deadline = Date.now() + startDeadlineMs;
  for (;;) {
    const receiver = (await readState(spoolPath).catch(() => undefined))?.compartments.find(
      ({ name }) => name === "receiver",
    );
    if (receiver?.ready === true) {
      const ports = receiver.listening.map((place) => Number(/:(\d+)(?: \(TLS\))?$/.exec(place)?.[1]));
      return {
        child,
        ports,
        log: () =>
          written
            .split("\n")
            .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Record<string, unknown>] : [])),
        state: () => readState(spoolPath),
        ended,
        stop() {
          child.kill("SIGTERM");
          return ended;
        },
      };
    }
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`the relay did not start:\n${written}`);
    }
    await new Promise((next) => setTimeout(next, 50)); // its state file is the only sign that it is ready
  }
}
