/**
 * Runs the compartments as processes of their own, and starts again whichever dies, with back-off. The processes share
 * files and nothing else; what they tell the supervisor over their channel is for `pinrelay status`.
 *
 * Promises: an invalid configuration or an address that cannot be had ends the start with the reason, before anything is
 * promised to anybody; the death of one compartment touches no other; SIGTERM lets messages in flight end.
 */
import { fork, type ChildProcess } from "node:child_process";
import { rm } from "node:fs/promises";
import { writeFileDurably } from "../files/durable.ts";
import type { Log } from "../log/log.ts";
import { prepareFolders } from "../spool/directory/folders.ts";
import { takeLock, type Lock } from "../spool/directory/lock.ts";
import { lockFile, stateFile, type CompartmentState, type RelayState } from "./state.ts";

export type CompartmentName = "receiver" | "deliverer";

/** What a compartment tells its supervisor. */
export type CompartmentNews = { readonly kind: "ready"; readonly listening: readonly string[] };

export interface SupervisorOptions {
  /** The script that is `pinrelay`, and the configuration file for it. */
  readonly script: string;
  readonly configFile: string;
  readonly spoolPath: string;
  /** The version of the configuration that is started. */
  readonly policy: string;
  readonly log: Log;
}

const commands = { receiver: "receive", deliverer: "deliver" } as const satisfies Record<CompartmentName, string>;
const firstPauseMs = 500;
const longestPauseMs = 30_000;
/** Who ran this long was not dying at once: the back-off begins anew. */
const healthyAfterMs = 60_000;
/** How long a compartment has to end by itself after SIGTERM. */
const drainTimeoutMs = 90_000;

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #compartments: readonly Compartment[];
  readonly #startedAt = new Date();
  #writing: Promise<void> = Promise.resolve();
  #lock: Lock | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    const changed = () => void this.#writeState();
    // The deliverer first: it makes the spool ready, and nothing is lost if nothing comes in yet.
    this.#compartments = (["deliverer", "receiver"] as const).map((name) => new Compartment(name, options, changed));
  }

  /** Starts all; fails if one of them ends before it is ready, or, with a SpoolFault, if another supervisor is at work. */
  async start(): Promise<void> {
    const { root } = await prepareFolders(this.#options.spoolPath);
    this.#lock = takeLock(lockFile(root), "another relay is at work on this spool");
    for (const compartment of this.#compartments) await compartment.start();
    await this.#writeState();
  }

  /** Stops the receiver, and then the deliverer, each when it has finished what is in flight. */
  async stop(): Promise<void> {
    // What ends from now on ends because it shall: a signal to the whole group reaches the compartments as well.
    for (const compartment of this.#compartments) compartment.expectEnd();
    for (const compartment of this.#compartments.toReversed()) await compartment.stop();
    await this.#writing;
    if (this.#lock === undefined) return; // the state is another's
    await rm(stateFile(this.#options.spoolPath), { force: true });
    this.#lock.release();
  }

  #writeState(): Promise<void> {
    const state: RelayState = {
      pid: process.pid,
      startedAt: this.#startedAt.toISOString(),
      policy: this.#options.policy,
      configFile: this.#options.configFile,
      compartments: this.#compartments.map((compartment) => compartment.state),
    };
    this.#writing = this.#writing
      .then(() => writeFileDurably(stateFile(this.#options.spoolPath), `${JSON.stringify(state, null, 2)}\n`, 0o600))
      .catch((error: unknown) => {
        this.#options.log.error({
          event: "state not written",
          error: error instanceof Error ? error.message : String(error),
        });
      });
    return this.#writing;
  }
}

class Compartment {
  readonly #name: CompartmentName;
  readonly #options: SupervisorOptions;
  readonly #changed: () => void;
  #child: ChildProcess | undefined;
  #startedAtMs = 0;
  #restarts = 0;
  #failuresInRow = 0;
  #listening: readonly string[] = [];
  #ready = false;
  #stopping = false;
  #restartTimer: NodeJS.Timeout | undefined;

  constructor(name: CompartmentName, options: SupervisorOptions, changed: () => void) {
    this.#name = name;
    this.#options = options;
    this.#changed = changed;
  }

  get state(): CompartmentState {
    return {
      name: this.#name,
      pid: this.#child?.pid ?? null,
      ready: this.#ready,
      restarts: this.#restarts,
      listening: this.#listening,
    };
  }

  /** Resolves when the compartment says that it is ready; fails if it ends before. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = this.#spawn();
      child.once("exit", (code) => {
        if (!this.#ready) reject(new CompartmentFailed(this.#name, code));
      });
      child.on("message", () => {
        if (this.#ready) resolve();
      });
    });
  }

  expectEnd(): void {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
  }

  async stop(): Promise<void> {
    this.expectEnd();
    const child = this.#child;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), drainTimeoutMs);
    await ended;
    clearTimeout(timer);
  }

  #spawn(): ChildProcess {
    const { script, configFile, log } = this.#options;
    const child = fork(script, [commands[this.#name], "--config", configFile], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child = child;
    this.#ready = false;
    this.#startedAtMs = Date.now();
    child.on("message", (news: unknown) => this.#note(news));
    child.on("error", (error) =>
      log.error({ event: "compartment failed", compartment: this.#name, error: error.message }),
    );
    child.once("exit", (code, signal) => this.#ended(code, signal));
    log.info({ event: "compartment started", compartment: this.#name, child: child.pid });
    return child;
  }

  #note(news: unknown): void {
    if (!isNews(news)) return;
    this.#ready = true;
    this.#listening = news.listening;
    this.#changed();
  }

  #ended(code: number | null, signal: NodeJS.Signals | null): void {
    const wasReady = this.#ready;
    this.#child = undefined;
    this.#ready = false;
    if (this.#stopping) return;
    const { log } = this.#options;
    log.error({ event: "compartment ended", compartment: this.#name, code, signal });
    this.#changed();
    // Never ready at its first start: `start` fails, and the operator is told at once.
    if (!wasReady && this.#restarts === 0) return;
    this.#failuresInRow = Date.now() - this.#startedAtMs > healthyAfterMs ? 0 : this.#failuresInRow + 1;
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.max(0, this.#failuresInRow - 1));
    this.#restartTimer = setTimeout(() => {
      this.#restarts += 1;
      this.#spawn();
    }, pauseMs);
  }
}

export class CompartmentFailed extends Error {
  /** Its exit status: 2 for an invalid configuration. */
  readonly code: number | null;
  constructor(name: CompartmentName, code: number | null) {
    super(`the ${name} could not start (exit status ${code ?? "none"}): the reason stands above`);
    this.name = "CompartmentFailed";
    this.code = code;
  }
}

function isNews(value: unknown): value is CompartmentNews {
  return (
    typeof value === "object" &&
    value !== null &&
    "kind" in value &&
    value.kind === "ready" &&
    "listening" in value &&
    Array.isArray(value.listening)
  );
}
