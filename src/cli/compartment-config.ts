/**
 * The configuration of a compartment: under a supervisor the snapshot that it names, else the files; and how the
 * compartment is given another one while it runs, by its supervisor's order or by SIGHUP.
 *
 * Promises: another configuration is taken whole or not at all; each order is answered.
 */
import { Option } from "commander";
import { formatProblem, loadConfig } from "../config/load.ts";
import type { LoadResult, RelayConfig } from "../config/relay-config.ts";
import { loadSnapshot } from "../config/snapshot.ts";
import type { Log } from "../log/log.ts";
import { orderOf, type CompartmentNews, type ReloadOrder } from "../supervisor/channel.ts";
import { restartProblems } from "./candidate.ts";
import { loadValidConfig } from "./command.ts";
import { CliError, type Output } from "./output.ts";

export interface CompartmentOptions {
  readonly config: string;
  /** Given by the supervisor. */
  readonly snapshot?: string;
}

/** For the supervisor alone. */
export function snapshotOption(): Option {
  return new Option("--snapshot <file>", "the configuration as it was last found valid").hideHelp();
}

export async function loadCompartmentConfig(options: CompartmentOptions, output: Output): Promise<RelayConfig> {
  if (options.snapshot === undefined) return loadValidConfig(options.config, new Date(), output);
  return validOf(await loadSnapshot(options.snapshot, options.config));
}

/** A compartment at work. */
export interface ReloadableCompartment {
  readonly log: Log;
  /** Takes another configuration, or fails, and then nothing has changed. */
  reload(config: RelayConfig): Promise<void> | void;
  /** As `192.0.2.1:25`. */
  listening(): readonly string[];
}

/** Tells the supervisor, if there is one, that the compartment is ready, and takes orders from then on. */
export function serveReloads(
  options: CompartmentOptions,
  initial: RelayConfig,
  compartment: ReloadableCompartment,
): void {
  let config = initial;
  let work: Promise<void> = Promise.resolve();
  const take = async (next: RelayConfig): Promise<void> => {
    await compartment.reload(next);
    config = next;
  };
  const inTurn = (task: () => Promise<void>): void => {
    work = work.then(task).catch((error: unknown) => {
      compartment.log.error({ event: "reload refused", problem: errorText(error) });
    });
  };
  process.on("message", (value: unknown) => {
    const order = orderOf(value);
    if (order !== undefined) inTurn(async () => tell(await obey(order)));
  });
  const obey = async ({ order, snapshot }: ReloadOrder): Promise<CompartmentNews> => {
    try {
      await take(validOf(await loadSnapshot(snapshot, options.config)));
      return { kind: "reloaded", order, listening: compartment.listening(), policy: config.version };
    } catch (error) {
      return { kind: "refused", order, reason: errorText(error) };
    }
  };
  process.on("SIGHUP", () => {
    // Under a supervisor it is the supervisor's: a terminal signals the whole group.
    if (options.snapshot === undefined) inTurn(() => reloadFiles(options.config, config, take, compartment.log));
  });
  tell({ kind: "ready", listening: compartment.listening(), policy: config.version });
}

async function reloadFiles(
  file: string,
  before: RelayConfig,
  take: (config: RelayConfig) => Promise<void>,
  log: Log,
): Promise<void> {
  const result = await loadConfig(file);
  const problems =
    result.kind === "invalid"
      ? result.problems.filter(({ severity }) => severity === "error").map((problem) => formatProblem(problem))
      : await restartProblems(before, result.config);
  for (const problem of problems) log.error({ event: "reload refused", problem });
  if (result.kind === "loaded" && problems.length === 0) await take(result.config);
  else log.info({ event: "configuration kept", policy: before.version.slice(0, 12) });
}

function validOf(result: LoadResult): RelayConfig {
  if (result.kind === "loaded") return result.config;
  const [first] = result.problems;
  // It was valid when it was written: another version of the program reads it, or somebody has written into it.
  const why = first === undefined ? "unknown" : formatProblem(first);
  throw new CliError(2, `the snapshot of the configuration is not valid any more (${why}): restart the relay`);
}

function tell(news: CompartmentNews): void {
  if (process.connected) process.send?.(news);
}

function errorText(error: unknown): string {
  if (error instanceof Error && "code" in error && "syscall" in error) return systemHint(error);
  return error instanceof Error ? error.message : String(error);
}

/** Errors of the system, with what the operator can do. */
export function systemHint(error: Error & { code: unknown }): string {
  switch (error.code) {
    case "EADDRINUSE":
      return `${error.message}: another program listens there; see ss -ltnp`;
    case "EADDRNOTAVAIL":
      return `${error.message}: this host has no such address; see ip addr`;
    case "EACCES":
      return `${error.message}: run as root, or give the file or port to this user`;
    default:
      return error.message;
  }
}
