/**
 * Runs the compartments as processes of their own, and starts again whichever dies, with back-off. The processes share
 * files and nothing else; what they tell the supervisor over their channel is for `pinrelay status`.
 *
 * All of them work by one configuration, which stands in a snapshot beside the spool: a file that is being edited keeps no
 * compartment from coming back. A reload takes a new configuration into force everywhere, or nowhere:
 *
 * | step                              | dies here: supervisor (and with it all)  | dies here: a compartment               |
 * | 1 the files are loaded, checked   | starts anew from the files               | starts with the old snapshot           |
 * | 2 the new snapshot is written     | the same; what was written is removed    | the same                               |
 * | 3 the receiver takes it           | the same                                 | refused: the old one stays everywhere  |
 * | 4 the deliverer takes it          | the same                                 | refused: the receiver is taken back    |
 * | 5 it replaces the old snapshot    | the same                                 | starts with either, is told the new    |
 *
 * Promises: an invalid configuration or an address that cannot be had ends the start with the reason, before anything is
 * promised to anybody; the death of one compartment touches no other; SIGTERM lets messages in flight end; a compartment
 * that works by another configuration than the one in force is told, and if it does not obey it is started again.
 */
import { rename, rm } from "node:fs/promises";
import { describeChanges } from "../config/change.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { syncDirectory, writeFileDurably } from "../files/durable.ts";
import type { Log } from "../log/log.ts";
import { prepareFolders } from "../spool/directory/folders.ts";
import { takeLock, type Lock } from "../spool/directory/lock.ts";
import { Compartment, type OrderResult } from "./compartment.ts";
import { lockFile, nextSnapshotFile, snapshotFile, stateFile, type LastReload, type RelayState } from "./state.ts";

/** A configuration that was loaded and found valid, and can be written as a snapshot. */
export interface Candidate {
  readonly config: RelayConfig;
  /** One line each. */
  readonly warnings: readonly string[];
  write(snapshot: string): Promise<void>;
}

/** What the files say now. Problems are one line each, with file and line. */
export type Loaded<C extends Candidate> =
  | { readonly kind: "valid"; readonly candidate: C }
  | { readonly kind: "invalid"; readonly problems: readonly string[] };

export interface SupervisorOptions<C extends Candidate> {
  /** The script that is `pinrelay`, and the configuration file for it. */
  readonly script: string;
  readonly configFile: string;
  readonly spoolPath: string;
  /** What is started. */
  readonly initial: C;
  /** Reads the files again, and judges whether they can take the place of what is in force. */
  readonly load: (inForce: C) => Promise<Loaded<C>>;
  readonly log: Log;
}

export class Supervisor<C extends Candidate> {
  readonly #options: SupervisorOptions<C>;
  readonly #receiver: Compartment;
  readonly #deliverer: Compartment;
  readonly #startedAt = new Date();
  #inForce: C;
  #lastReload: LastReload | undefined;
  #writing: Promise<void> = Promise.resolve();
  #lock: Lock | undefined;
  #phase: "starting" | "running" | "stopping" = "starting";
  #isReloadWanted = false;
  /** The reload that is under way, or the correction of a compartment: one at a time. */
  #busy: Promise<void> | undefined;

  constructor(options: SupervisorOptions<C>) {
    this.#options = options;
    this.#inForce = options.initial;
    const { script, configFile, spoolPath, log } = options;
    const onChanged = (): void => {
      void this.#writeState();
      this.#work();
    };
    const compartment = { script, configFile, snapshotFile: snapshotFile(spoolPath), log, onChanged };
    this.#receiver = new Compartment("receiver", compartment);
    this.#deliverer = new Compartment("deliverer", compartment);
  }

  /** The deliverer first: it makes the spool ready, and nothing is lost if nothing comes in yet. */
  get #compartments(): readonly Compartment[] {
    return [this.#deliverer, this.#receiver];
  }

  /** Starts all; fails if one of them ends before it is ready, or, with a SpoolFault, if another supervisor is at work. */
  async start(): Promise<void> {
    const { spoolPath, initial } = this.#options;
    const { root } = await prepareFolders(spoolPath);
    this.#lock = takeLock(lockFile(root), "another relay is at work on this spool");
    // What a killed predecessor has left: its process id may be somebody else's by now.
    for (const file of [stateFile(spoolPath), nextSnapshotFile(spoolPath)]) await rm(file, { force: true });
    await initial.write(snapshotFile(spoolPath));
    for (const compartment of this.#compartments) await compartment.start();
    await this.#writeState();
    this.#phase = "running";
    this.#work();
  }

  /** Has the files read again, once more if they are being read already. What comes of it stands in the state. */
  reload(): void {
    this.#isReloadWanted = true;
    this.#work();
  }

  /** Stops the receiver, and then the deliverer, each when it has finished what is in flight. */
  async stop(): Promise<void> {
    this.#phase = "stopping";
    // What ends from now on ends because it shall: a signal to the whole group reaches the compartments as well.
    for (const compartment of this.#compartments) compartment.expectEnd();
    for (const compartment of this.#compartments.toReversed()) await compartment.stop();
    await this.#busy;
    await this.#writing;
    if (this.#lock === undefined) return; // the state is another's
    await rm(stateFile(this.#options.spoolPath), { force: true });
    this.#lock.release();
  }

  /** Does what there is to do, one after the other. */
  #work(): void {
    if (this.#busy !== undefined || this.#phase !== "running") return;
    const stray = this.#compartments.find(({ policy }) => policy !== undefined && policy !== this.#policy);
    if (!this.#isReloadWanted && stray === undefined) return;
    const work = this.#isReloadWanted || stray === undefined ? this.#reload() : this.#correct(stray);
    this.#busy = work.finally(() => {
      this.#busy = undefined;
      this.#work();
    });
  }

  get #policy(): string {
    return this.#inForce.config.version;
  }

  /** One that was starting while another configuration came into force. */
  async #correct(stray: Compartment): Promise<void> {
    const result = await stray.reload(snapshotFile(this.#options.spoolPath));
    if (stray.policy === undefined || stray.policy === this.#policy) return;
    const reason = result.kind === "refused" ? result.reason : "it works by another one all the same";
    this.#options.log.error({ event: "compartment not reloaded", compartment: stray.name, reason });
    stray.restart();
  }

  async #reload(): Promise<void> {
    this.#isReloadWanted = false;
    const begunAt = new Date().toISOString();
    const { log } = this.#options;
    let outcome: Pick<LastReload, "kind" | "changes" | "problems">;
    try {
      outcome = await this.#tryReload();
    } catch (error) {
      // The disk, mostly: a full one takes no snapshot.
      outcome = refused([error instanceof Error ? error.message : String(error)]);
    }
    for (const problem of outcome.problems) {
      if (outcome.kind === "refused") log.error({ event: "reload refused", problem });
      else log.warn({ event: "reload", problem });
    }
    const changes = outcome.changes.length > 0 ? outcome.changes : ["nothing has changed"];
    log.info({
      event: outcome.kind === "reloaded" ? "reloaded" : "configuration kept",
      policy: this.#policy.slice(0, 12),
      ...(outcome.kind === "reloaded" ? { changes } : {}),
    });
    this.#lastReload = { ...outcome, begunAt, at: new Date().toISOString(), policy: this.#policy };
    await this.#writeState();
  }

  async #tryReload(): Promise<Pick<LastReload, "kind" | "changes" | "problems">> {
    const { load, spoolPath } = this.#options;
    const [current, next] = [snapshotFile(spoolPath), nextSnapshotFile(spoolPath)];
    const loaded = await load(this.#inForce);
    if (loaded.kind === "invalid") return refused(loaded.problems);
    const { candidate } = loaded;
    const changes = describeChanges(this.#inForce.config, candidate.config);
    await candidate.write(next);
    if (changes.length > 0) {
      const problem = await this.#tellAll(current, next);
      if (problem !== undefined) {
        await rm(next, { force: true });
        return refused([problem]);
      }
    }
    try {
      await rename(next, current);
    } catch (error) {
      await this.#takeBack(this.#compartments, current);
      throw error;
    }
    this.#inForce = candidate;
    await syncDirectory(spoolPath);
    return { kind: "reloaded", changes, problems: candidate.warnings };
  }

  /** @returns why it was refused. The receiver comes first: an address that cannot be had is what can be refused. */
  async #tellAll(current: string, next: string): Promise<string | undefined> {
    const told: Compartment[] = [];
    for (const compartment of [this.#receiver, this.#deliverer]) {
      const result: OrderResult = await compartment.reload(next);
      if (result.kind === "refused") {
        await this.#takeBack(told, current);
        return result.reason;
      }
      if (result.kind === "applied") told.push(compartment);
    }
    return undefined;
  }

  /** Who does not obey is found to work by another configuration than the one in force, and corrected. */
  async #takeBack(told: readonly Compartment[], current: string): Promise<void> {
    for (const compartment of told) await compartment.reload(current);
  }

  #writeState(): Promise<void> {
    const state: RelayState = {
      pid: process.pid,
      startedAt: this.#startedAt.toISOString(),
      policy: this.#policy,
      configFile: this.#options.configFile,
      compartments: this.#compartments.map((compartment) => compartment.state),
      ...(this.#lastReload === undefined ? {} : { lastReload: this.#lastReload }),
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

function refused(problems: readonly string[]): Pick<LastReload, "kind" | "changes" | "problems"> {
  return { kind: "refused", changes: [], problems };
}
