/**
 * How every command is made: one way to write, to end and to find the configuration.
 *
 * Promises: commander never ends the process and never writes but through {@link Output}. Fails with {@link CliError}.
 */
import { dirname, resolve } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { defaultCaDirectory } from "../certs/places.ts";
import { formatProblem, loadConfig } from "../config/load.ts";
import type { ConfigProblem, RelayConfig } from "../config/relay-config.ts";
import { parseSource, readBounded, valueOf } from "../config/source.ts";
import { CliError, type Output } from "./output.ts";

/** A command that writes to `output` and throws where commander would exit. */
export function newCommand(name: string, output: Output): Command {
  return new Command(name)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.err(text),
      getOutHelpWidth: () => helpColumns,
      getErrHelpWidth: () => helpColumns,
    })
    .showSuggestionAfterError();
}

const helpColumns = 100;

/** `--config FILE`, which every command takes. */
export function configOption(): Option {
  return new Option("--config <file>", "the relay's configuration").env("PINRELAY_CONFIG").default("config/relay.yaml");
}

/** `--ca DIR`; {@link caDirectory} knows the default. */
export function caOption(): Option {
  return new Option("--ca <dir>", "the folder of the CA (default: certs beside the configuration's folder)");
}

export function jsonOption(): Option {
  return new Option("--json", "write JSON");
}

export function caDirectory(options: { readonly config: string; readonly ca?: string }): string {
  return options.ca ?? defaultCaDirectory(options.config);
}

/** The configuration in force; where it is invalid, all its problems are written and the command ends with 2. */
export async function loadValidConfig(file: string, now: Date, output: Output): Promise<RelayConfig> {
  const result = await loadConfig(file, now);
  switch (result.kind) {
    case "loaded":
      return result.config;
    case "invalid":
      for (const problem of result.problems) output.err(`${formatProblem(problem)}\n`);
      throw new CliError(2, "the configuration is invalid: correct what is listed above");
  }
}

/** What can be told of the spool although the configuration may be invalid at the moment: somebody may be editing it. */
export interface SpoolPlace {
  readonly path: string;
  /** Undefined where the configuration is invalid. */
  readonly config: RelayConfig | undefined;
}

/** Where the spool is. An invalid configuration is warned about, as long as it says that much. */
export async function findSpool(file: string, now: Date, output: Output): Promise<SpoolPlace> {
  const result = await loadConfig(file, now);
  if (result.kind === "loaded") return { path: result.config.spool.path, config: result.config };
  const bytes = await readBounded(file);
  const root = "fault" in bytes ? undefined : parseSource(resolve(file), bytes, []);
  if (root === undefined) return { path: (await loadValidConfig(file, now, output)).spool.path, config: undefined };
  const spool = valueOf(root, "spool");
  const path = spool === undefined ? undefined : valueOf(spool, "path");
  const written = path?.kind === "scalar" && typeof path.value === "string" ? path.value : "../var/spool";
  output.err(
    "pinrelay: the configuration is invalid at the moment, see pinrelay check; this is the spool that it names\n",
  );
  return { path: resolve(dirname(file), written), config: undefined };
}

/**
 * One text at the top of relay.yaml, for what must be known before the whole can be valid (the host name, while its
 * certificate does not exist yet). Undefined where it is not there.
 */
export async function readConfigText(file: string, key: string): Promise<string | undefined> {
  const bytes = await readBounded(file);
  if ("fault" in bytes) throw new CliError(2, `${file} ${bytes.fault}: name the configuration with --config`);
  const problems: ConfigProblem[] = [];
  const root = parseSource(resolve(file), bytes, problems);
  const [problem] = problems;
  if (root === undefined && problem !== undefined) throw new CliError(2, formatProblem(problem));
  const node = root === undefined ? undefined : valueOf(root, key);
  return node?.kind === "scalar" && typeof node.value === "string" ? node.value : undefined;
}

/** A whole number of days, for an option. */
export function parseDays(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new InvalidArgumentError("It is a whole number of days, as 365.");
  return Number(text);
}

/** Examples at the end of a command's help, one a line; a line that begins with a blank goes on with the one before. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line.startsWith(" ") ? " " : "$"} ${line}\n`).join("")}`;
}
