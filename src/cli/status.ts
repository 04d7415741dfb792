/**
 * `pinrelay status`: does the relay run, what waits, and what runs out? Exit status 0 if both compartments live and nothing
 * has run out or is about to, 1 if not.
 *
 * Whether something runs is told by its lock, which the operating system gives up when its holder dies: process ids are
 * used again, and compartments may run without a supervisor.
 */
import type { Command } from "commander";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { readExpiry } from "../config/expiry.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { ExpiryItem } from "../partner/expiry.ts";
import { readQuarantine } from "../sightings/reader.ts";
import { countQueue } from "../spool/directory/queue-reader.ts";
import { spoolFolders } from "../spool/directory/folders.ts";
import { isLocked } from "../spool/directory/lock.ts";
import { lockFile, readState, type LastReload, type RelayState } from "../supervisor/state.ts";
import { configOption, examples, findSpool, jsonOption, newCommand } from "./command.ts";
import { expiryJson, expiryLine, urgentText } from "./expiry-table.ts";
import { CliError, formatTable, jsonText, printable, type Output } from "./output.ts";
import { duration } from "./queue.ts";

type Queue = Awaited<ReturnType<typeof countQueue>>;

interface Status {
  readonly running: boolean;
  /** Null where the configuration is invalid at the moment. */
  readonly hostname: string | null;
  readonly receiver: boolean;
  readonly deliverer: boolean;
  readonly startedAt: string | null;
  readonly compartments: RelayState["compartments"];
  readonly queue: Queue;
  /** Files that failed a check, kept in the spool's `corrupt` for a person. */
  readonly corrupt: number;
  /** Certificates that nobody knows, from partners' addresses. */
  readonly quarantine: number;
  /** The version of the configuration in force, where a supervisor knows it; and of the files as they are now. */
  readonly policy: string | null;
  readonly policyOfFiles: string | null;
  /** What came of the last reload; null: none since the start. */
  readonly lastReload: LastReload | null;
}

export function statusCommand(output: Output): Command {
  return newCommand("status", output)
    .description("does the relay run, and what waits in its spool")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", examples("pinrelay status", "pinrelay status --json"))
    .action(async (options: { config: string; json?: boolean }) => {
      const now = new Date();
      const { path, config } = await findSpool(options.config, now, output);
      const status = await readStatus(path, config);
      // Of a configuration that is invalid nobody can say what it depends on.
      const items = config === undefined ? null : (await readExpiry(config, now)).items;
      const json = { ...status, expiry: items?.map(expiryJson) ?? null };
      output.out(options.json === true ? jsonText(json) : statusText(status, items ?? [], now));
      if (!status.running) {
        const idle = !status.receiver && !status.deliverer;
        throw new CliError(1, idle ? "start it with pinrelay start" : "one of its processes does not run: see the log");
      }
      const urgent = urgentText(items ?? []);
      if (urgent !== undefined) throw new CliError(1, urgent);
    });
}

async function readStatus(spoolPath: string, config: RelayConfig | undefined): Promise<Status> {
  const folders = spoolFolders(spoolPath);
  const state = isLocked(lockFile(spoolPath)) ? await readState(spoolPath) : undefined;
  const receiver = isLocked(join(folders.incoming, "lock.sqlite"));
  const deliverer = isLocked(join(folders.queue, "lock.sqlite"));
  return {
    running: receiver && deliverer,
    hostname: config?.hostname ?? null,
    receiver,
    deliverer,
    startedAt: state?.startedAt ?? null,
    compartments: state?.compartments ?? [],
    queue: await countQueue(spoolPath),
    corrupt: await countCorrupt(folders.corrupt),
    quarantine: (await readQuarantine(spoolPath)).length,
    policy: state?.policy ?? null,
    policyOfFiles: config?.version ?? null,
    lastReload: state?.lastReload ?? null,
  };
}

/** Each has a note beside it, which says why. */
async function countCorrupt(folder: string): Promise<number> {
  try {
    return (await readdir(folder)).filter((name) => !name.endsWith(".reason")).length;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return 0; // no deliverer has run yet
    throw error;
  }
}

function statusText(status: Status, items: readonly ExpiryItem[], now: Date): string {
  const { running, hostname, receiver, deliverer, startedAt, compartments, queue, policy, policyOfFiles } = status;
  const { corrupt, quarantine, lastReload } = status;
  const since = startedAt === null ? "" : `, up ${duration(now.getTime() - Date.parse(startedAt))}`;
  const how = running ? `running${since}` : receiver || deliverer ? "running in part" : "not running";
  const alive = { receiver, deliverer };
  const rows = Object.entries(alive).map(([name, lives]) => {
    const known = compartments.find((compartment) => compartment.name === name);
    const pid = lives ? String(known?.pid ?? "") : "-";
    return [name, lives ? "alive" : "dead", pid, String(known?.restarts ?? ""), (known?.listening ?? []).join(", ")];
  });
  return [
    `${hostname ?? "the relay"}: ${how}\n`,
    formatTable(rows, ["compartment", "state", "pid", "restarts", "listening"]),
    `queue: ${queue.deferred} deferred, ${queue.held} held; batches: ${queue.batchesIncoming} not taken yet, ${queue.batchesTaken} being delivered\n`,
    corrupt === 0 ? "" : `corrupt: ${corrupt} set aside in the spool's folder corrupt, each with a note why\n`,
    quarantine === 0 ? "" : `quarantine: ${quarantine} waiting for a decision: pinrelay partner list --quarantine\n`,
    expiryLine(items),
    lastReload === null ? "" : reloadText(lastReload),
    policy !== null && policyOfFiles !== null && policy !== policyOfFiles
      ? "the files differ from what runs: pinrelay reload\n"
      : "",
  ].join("");
}

function reloadText({ kind, at, changes, problems }: LastReload): string {
  const when = `last reload: ${at.slice(0, 19)}Z`;
  if (kind === "reloaded")
    return `${when}, ${changes.length === 0 ? "nothing had changed" : printable(changes.join("; "))}\n`;
  return `${when}, refused, the configuration before stays in force:\n${problems.map((problem) => `  ${printable(problem)}\n`).join("")}`;
}
