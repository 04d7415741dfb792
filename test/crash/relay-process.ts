/**
 * The relay as its operator runs it, in processes of its own, to be killed.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RelayState } from "../../src/supervisor/state.ts";

const script = join(import.meta.dirname, "../../scripts/pinrelay.mjs");
const readyDeadlineMs = 60_000;
const pollMs = 20;

export type Victim = "receiver" | "deliverer" | "everything";

export class RelayProcess {
  readonly #configFile: string;
  readonly #spool: string;
  #supervisor: ChildProcess | undefined;
  /** What it has said, for a failure; the end of it. */
  #output = "";

  /** @param folder the folder of `makeRelayFolder`. */
  constructor(folder: { readonly path: string; readonly configFile: string }) {
    this.#configFile = folder.configFile;
    this.#spool = join(folder.path, "spool");
  }

  /** Starts it in a process group of its own, and resolves when it is ready. */
  async start(): Promise<RelayState> {
    const supervisor = spawn(process.execPath, ["--no-warnings", script, "start", "--config", this.#configFile], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#supervisor = supervisor;
    for (const stream of [supervisor.stdout, supervisor.stderr]) {
      stream.on("data", (text: Buffer) => (this.#output = `${this.#output}${text.toString()}`.slice(-20_000)));
    }
    return this.ready();
  }

  /** Resolves when all compartments that live are ready, and none of them is `not`. */
  async ready(not?: number): Promise<RelayState> {
    const deadline = performance.now() + readyDeadlineMs;
    while (performance.now() < deadline) {
      const state = await this.state();
      const isOurs = state?.pid === this.#supervisor?.pid;
      if (isOurs && state?.compartments.every(({ ready, pid }) => ready && pid !== null && pid !== not) === true)
        return state;
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
    throw new Error(`the relay is not ready; it said:\n${this.#output}`);
  }

  async state(): Promise<RelayState | undefined> {
    try {
      return JSON.parse(await readFile(join(this.#spool, "relay.json"), "utf8")) as RelayState; // the relay's own file
    } catch {
      return undefined; // not yet
    }
  }

  /** Kills -9, and resolves when it is ready again, with the moment of the kill. */
  async kill(victim: Victim): Promise<number> {
    const state = await this.ready();
    if (victim === "everything") {
      const gone = new Promise((resolve) => this.#supervisor?.once("exit", resolve));
      process.kill(-state.pid, "SIGKILL");
      const killedAtMs = performance.now();
      await gone;
      await this.start();
      return killedAtMs;
    }
    const pid = state.compartments.find(({ name }) => name === victim)?.pid;
    if (typeof pid !== "number") throw new Error(`there is no ${victim} to be killed`);
    process.kill(pid, "SIGKILL");
    const killedAtMs = performance.now();
    await this.ready(pid);
    return killedAtMs;
  }

  /** Ends it in order; gives its exit status. */
  async stop(): Promise<number | null> {
    const supervisor = this.#supervisor;
    if (supervisor === undefined || supervisor.exitCode !== null || supervisor.signalCode !== null) return null;
    const exit = new Promise<number | null>((resolve) => supervisor.once("exit", resolve));
    supervisor.kill("SIGTERM");
    return exit;
  }

  /** For the end of a test that has failed: nothing of it survives. */
  end(): void {
    const pid = this.#supervisor?.pid;
    if (pid === undefined || this.#supervisor?.exitCode !== null || this.#supervisor.signalCode !== null) return;
    process.kill(-pid, "SIGKILL");
  }

  get output(): string {
    return this.#output;
  }
}
