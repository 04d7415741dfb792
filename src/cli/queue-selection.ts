/**
 * Which messages a `queue` command means: ids, or options that all have to apply. A command that changes something wants
 * at least one of them, or `--all` in so many words.
 */
import { InvalidArgumentError, Option, type Command } from "commander";
import { duration as durationFormat, Refused } from "../config/formats.ts";
import type { QueueSelection } from "../spool/spool.ts";
import { CliError } from "./output.ts";

export interface SelectionOptions {
  readonly partner?: string;
  readonly route?: string;
  readonly recipient?: string;
  readonly state?: "incoming" | "active" | "deferred" | "held";
  readonly olderThan?: number;
  readonly all?: boolean;
}

export function withSelection(command: Command, kind: "reads" | "changes"): Command {
  command
    .argument("[id...]", "queue ids")
    .option("--partner <name>", "from this partner; `report` stands for reports of our own")
    .option("--route <name>", "that wait for this route")
    .option("--recipient <address>", "for this recipient: an address, @domain, or postmaster")
    .addOption(new Option("--state <state>", "in this state").choices(["incoming", "active", "deferred", "held"]))
    .addOption(new Option("--older-than <duration>", "received longer ago, as 30m or 2d").argParser(parseDuration));
  return kind === "changes" ? command.option("--all", "all messages") : command;
}

/** @throws CliError 2 if a command that changes something is told nothing about which messages. */
export function selectionOf(
  ids: readonly string[],
  options: SelectionOptions,
  now: Date,
  kind: "reads" | "changes",
): QueueSelection {
  const { partner, route, recipient, state, olderThan } = options;
  const selection: QueueSelection = {
    ...(ids.length === 0 ? {} : { ids }),
    ...(partner === undefined ? {} : { partner: partner === "report" ? null : partner }),
    ...(route === undefined ? {} : { route }),
    ...(recipient === undefined ? {} : { recipient }),
    ...(state === undefined ? {} : { state }),
    ...(olderThan === undefined ? {} : { receivedBeforeMs: now.getTime() - olderThan }),
  };
  if (kind === "changes" && options.all !== true && Object.keys(selection).length === 0) {
    throw new CliError(
      2,
      "which messages? Name their ids, or select by --partner, --route, --recipient, --state or --older-than; --all means all",
    );
  }
  return selection;
}

function parseDuration(text: string): number {
  const value = durationFormat.parse(text);
  if (value instanceof Refused) throw new InvalidArgumentError("It is a number with a unit, as 30s, 5m, 4h or 2d.");
  return value;
}
