/**
 * One compartment as the supervisor sees it: a process that is started again, with back-off, when it dies, and that can
 * be told to work by another configuration.
 *
 * Promises: every order is answered, by the process, by its end or by the clock.
 */
import { fork, type ChildProcess } from "node:child_process";
import type { Log } from "../log/log.ts";
import { newsOf, type CompartmentNews, type ReloadOrder } from "./channel.ts";
import type { CompartmentState } from "./state.ts";

export type CompartmentName = "receiver" | "deliverer";

export interface CompartmentOptions {
  /** The script that is `pinrelay`, the configuration file, and the snapshot of it that is in force. */
  readonly script: string;
  readonly configFile: string;
  readonly snapshotFile: string;
  readonly log: Log;
  /** Something in `state` is another. */
  readonly onChanged: (compartment: Compartment) => void;
}

/** What came of an order. */
export type OrderResult =
  | { readonly kind: "applied" }
  | { readonly kind: "refused"; readonly reason: string }
  /** It does not run, or is starting: it begins with the snapshot that it finds. */
  | { readonly kind: "absent" };

const commands = { receiver: "receive", deliverer: "deliver" } as const satisfies Record<CompartmentName, string>;
const firstPauseMs = 500;
const longestPauseMs = 30_000;
/** Who ran this long was not dying at once: the back-off begins anew. */
const healthyAfterMs = 60_000;
/** How long a compartment has to end by itself after SIGTERM. */
const drainTimeoutMs = 90_000;
const orderTimeoutMs = 120_000;

export class Compartment {
  readonly name: CompartmentName;
  readonly #options: CompartmentOptions;
  #child: ChildProcess | undefined;
  #startedAtMs = 0;
  #restarts = 0;
  #failuresInRow = 0;
  #listening: readonly string[] = [];
  #policy: string | undefined;
  #ready = false;
  #ending = false;
  #stopping = false;
  #restartTimer: NodeJS.Timeout | undefined;
  #orders = 0;
  readonly #answers = new Map<number, (result: OrderResult) => void>();

  constructor(name: CompartmentName, options: CompartmentOptions) {
    this.name = name;
    this.#options = options;
  }

  get state(): CompartmentState {
    return {
      name: this.name,
      pid: this.#child?.pid ?? null,
      ready: this.#ready,
      restarts: this.#restarts,
      listening: this.#listening,
      policy: this.policy ?? null,
    };
  }

  /** The version of the configuration that it works by; undefined while it does not run, or is on its way out. */
  get policy(): string | undefined {
    return this.#ready && !this.#ending ? this.#policy : undefined;
  }

  /** Resolves when the compartment says that it is ready; fails if it ends before. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = this.#spawn();
      child.once("exit", (code) => {
        if (!this.#ready) reject(new CompartmentFailed(this.name, code));
      });
      child.on("message", () => {
        if (this.#ready) resolve();
      });
    });
  }

  /** Has it work by the configuration in this file. */
  reload(snapshot: string): Promise<OrderResult> {
    const child = this.#child;
    if (child === undefined || !this.#ready) return Promise.resolve({ kind: "absent" });
    this.#orders += 1;
    const order: ReloadOrder = { kind: "reload", order: this.#orders, snapshot };
    return new Promise((resolve) => {
      const settle = (result: OrderResult): void => {
        clearTimeout(timer);
        this.#answers.delete(order.order);
        resolve(result);
      };
      const timer = setTimeout(
        () => settle({ kind: "refused", reason: `the ${this.name} does not answer` }),
        orderTimeoutMs,
      );
      this.#answers.set(order.order, settle);
      child.send(order, (error) => {
        if (error !== null) settle({ kind: "refused", reason: `the ${this.name} cannot be told: ${error.message}` });
      });
    });
  }

  /** Ends the process, which is started again with the snapshot in force. */
  restart(): void {
    this.#ending = true;
    this.#child?.kill("SIGTERM");
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
    const { script, configFile, snapshotFile, log } = this.#options;
    const child = fork(script, [commands[this.name], "--config", configFile, "--snapshot", snapshotFile], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child = child;
    this.#ready = false;
    this.#ending = false;
    this.#startedAtMs = Date.now();
    child.on("message", (value: unknown) => {
      const news = newsOf(value);
      if (news !== undefined) this.#note(news);
    });
    child.on("error", (error) =>
      log.error({ event: "compartment failed", compartment: this.name, error: error.message }),
    );
    child.once("exit", (code, signal) => this.#ended(code, signal));
    log.info({ event: "compartment started", compartment: this.name, child: child.pid });
    return child;
  }

  #note(news: CompartmentNews): void {
    switch (news.kind) {
      case "ready":
      case "reloaded":
        this.#ready = true;
        this.#listening = news.listening;
        this.#policy = news.policy;
        if (news.kind === "reloaded") this.#answers.get(news.order)?.({ kind: "applied" });
        this.#options.onChanged(this);
        break;
      case "refused":
        this.#answers.get(news.order)?.({ kind: "refused", reason: news.reason });
        break;
    }
  }

  #ended(code: number | null, signal: NodeJS.Signals | null): void {
    const wasReady = this.#ready;
    this.#child = undefined;
    this.#ready = false;
    for (const answer of this.#answers.values()) {
      answer({ kind: "refused", reason: `the ${this.name} ended before it had taken the new configuration` });
    }
    if (this.#stopping) return;
    const { log } = this.#options;
    log.error({ event: "compartment ended", compartment: this.name, code, signal });
    this.#options.onChanged(this);
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
