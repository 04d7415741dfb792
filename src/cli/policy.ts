/**
 * `pinrelay policy diff`: what would have become of the mail of past days under another configuration. It asks the
 * receiver's own code; it opens no connection and changes nothing.
 *
 * Exit status: 0 nothing would change, 1 something would, 2 it cannot be told.
 */
import { InvalidArgumentError, Option, type Command } from "commander";
import { recordedDays } from "../audit/decision-reader.ts";
import { dayMs, decisionsFolder } from "../audit/decision-record.ts";
import { period, Refused } from "../config/formats.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { shownPath } from "../config/text.ts";
import { Replay } from "../receiver/replay.ts";
import { configOption, examples, jsonOption, loadValidConfig, newCommand } from "./command.ts";
import { readHistory } from "./explain.ts";
import { CliError, fitText, formatTable, jsonText, printable, type Output } from "./output.ts";
import { findChanges, type Change, type Counts, type Side } from "./policy-changes.ts";
import { groundText } from "./places.ts";

interface DiffOptions {
  readonly config: string;
  readonly against?: string;
  readonly since: number;
  readonly json?: true;
}

/** @param clock tests pass their own. */
export function policyCommand(output: Output, clock: () => Date = () => new Date()): Command {
  return newCommand("policy", output)
    .description("the rules, tried on the mail of past days")
    .addCommand(diffCommand(output, clock));
}

function diffCommand(output: Output, clock: () => Date): Command {
  return newCommand("diff", output)
    .description("replays what the relay decided, and lists what this configuration would decide otherwise")
    .option("--against <old-config>", "compare with what this configuration decides, not with what was decided")
    .addOption(
      new Option("--since <period>", "how many days back, today included (UTC)")
        .argParser(parsePeriod)
        .default(7 * dayMs, "7d"),
    )
    .addOption(jsonOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay policy diff",
        "pinrelay policy diff --since 30d --json",
        "pinrelay policy diff --against config/relay.yaml --config config.new/relay.yaml",
      ),
    )
    .action((options: DiffOptions) => diff(options, clock(), output));
}

async function diff(options: DiffOptions, now: Date, output: Output): Promise<void> {
  const { against, since, json } = options;
  const config = await loadValidConfig(options.config, now, output);
  const old = against === undefined ? undefined : await loadValidConfig(against, now, output);
  const from = new Date(Math.min(now.getTime(), now.getTime() - since + dayMs));
  const recorded = await recordedBy(config, old, from);
  const history = await readHistory(recorded.spool.path, output);
  const progress = progressOn(output);
  const { counts, changes } = await findChanges({
    auditPath: recorded.audit.path,
    since: from,
    before: old === undefined ? undefined : new Replay(old, history),
    after: new Replay(config, history),
    progress: progress.tell,
  });
  progress.clear();
  if (json === true) {
    for (const change of changes) output.out(jsonText(change, 0));
    output.out(`${JSON.stringify({ summary: counts })}\n`);
  } else {
    for (const text of tableOf(changes)) output.out(text);
    output.out(summaryOf(counts, changes.length));
  }
  if (changes.length > 0) throw new CliError(1, "the mail of past days would not all fare as it did");
}

/** The relay that has recorded something: a draft of a configuration may lie elsewhere, and so may an old copy. */
async function recordedBy(config: RelayConfig, old: RelayConfig | undefined, from: Date): Promise<RelayConfig> {
  const candidates = old === undefined ? [config] : [config, old];
  for (const candidate of candidates) {
    const days = await recordedDays(candidate.audit.path);
    if (days.some((day) => (day + 1) * dayMs > from.getTime())) return candidate;
  }
  const folders = [...new Set(candidates.map(({ audit }) => shownPath(decisionsFolder(audit.path), process.cwd())))];
  throw new CliError(
    2,
    `no decisions are recorded in ${folders.join(" or ")} since ${from.toISOString().slice(0, 10)}: the relay records them while it runs; look further back with --since, or set audit.path`,
  );
}

function progressOn(output: Output): { readonly tell: (decisions: number) => void; readonly clear: () => void } {
  if (!process.stderr.isTTY) return { tell: () => undefined, clear: () => undefined };
  return {
    tell: (decisions) => output.err(`\r${decisions} decisions replayed`),
    clear: () => output.err(`\r${fitText("", 40)}\r`),
  };
}

const header = ["count", "partner", "address", "from", "to", "was", "would be"];

/** So many fit their columns to each other: a table of a million rows would fill the memory. */
const rowsPerTable = 500;

/** A line for each change, with the certificate and the rules below it, which are not cut. */
function* tableOf(changes: readonly Change[]): Generator<string> {
  const columns = Math.max(80, process.stdout.columns ?? 120);
  for (let from = 0; from < changes.length; from += rowsPerTable) {
    const some = changes.slice(from, from + rowsPerTable);
    const [head = "", ...lines] = formatTable(some.map(row), header, columns).split("\n");
    if (from === 0) yield `${head}\n`;
    for (const [index, change] of some.entries()) yield `${lines[index] ?? ""}\n${detailsOf(change)}`;
  }
}

function detailsOf({ subject, before, after }: Change): string {
  const details = [
    ...(subject === null ? [] : [`certificate: ${subject}`]),
    `was: ${sideText(before)}`,
    `would be: ${sideText(after)}`,
  ];
  return details.map((detail) => `  ${printable(detail)}\n`).join("");
}

function row({ count, stage, address, from, to, before, after }: Change): string[] {
  const isSamePartner = before.partner === after.partner;
  const partner = isSamePartner ? (before.partner ?? "-") : `${before.partner ?? "-"} → ${after.partner ?? "-"}`;
  const sender = from === "" ? "<>" : (from ?? "-");
  return [String(count), partner, address, stage === "greeting" ? "-" : sender, to ?? "-", codes(before), codes(after)];
}

/** `550 5.7.1` */
function codes({ reply }: Side): string {
  return /^\d{3}(?: \d\.\d{1,3}\.\d{1,3})?/.exec(reply)?.[0] ?? reply;
}

function sideText({ reply, rule }: Side): string {
  return rule === null ? reply : `${reply}; ${groundText(rule)}`;
}

function summaryOf(counts: Counts, different: number): string {
  const { days, replayed, changed, limited, withoutCertificate, unrecorded, unreadableLines } = counts;
  const lines = [
    `${replayed} decisions of ${days} ${days === 1 ? "day" : "days"} replayed, ${changed} would change${different > 0 && different < changed ? ` (${different} distinct)` : ""}`,
    ...(limited > 0 ? [`${limited} more were refused by limits and quotas, which are not part of this`] : []),
    ...(withoutCertificate > 0
      ? [`${withoutCertificate} more cannot be replayed: their certificate is not in the log`]
      : []),
    ...(unrecorded > 0 ? [`${unrecorded} more found no place in the log`] : []),
    ...(unreadableLines > 0 ? [`${unreadableLines} lines of the log cannot be read`] : []),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function parsePeriod(text: string): number {
  const value = period.parse(text);
  if (value instanceof Refused) throw new InvalidArgumentError("It is a number with a unit, as 12h or 7d.");
  return value;
}
