/**
 * `pinrelay status`: does the relay run, and what waits? Exit status 0 if both compartments live, 1 if not.
 *
 * Whether something runs is told by its lock, which the operating system gives up when its holder dies: process ids are
 * used again, and compartments may run without a supervisor.
 */
import type { Command } from "commander";
import { join } from "node:path";
import { countQueue } from "../spool/directory/queue-reader.ts";
import { spoolFolders } from "../spool/directory/folders.ts";
import { isLocked } from "../spool/directory/lock.ts";
import { lockFile, readState, type RelayState } from "../supervisor/state.ts";
import { configOption, examples, findSpool, jsonOption, newCommand } from "./command.ts";
import { CliError, formatTable, type Output } from "./output.ts";
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
  /** The version of the configuration in force, where a supervisor knows it; and of the files as they are now. */
  readonly policy: string | null;
  readonly policyOfFiles: string | null;
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
      const status = await readStatus(path, config?.hostname ?? null, config?.version ?? null);
      output.out(options.json === true ? `${JSON.stringify(status, null, 2)}\n` : statusText(status, now));
      if (!status.running) {
        const idle = !status.receiver && !status.deliverer;
        throw new CliError(1, idle ? "start it with pinrelay start" : "one of its processes does not run: see the log");
      }
    });
}

async function readStatus(spoolPath: string, hostname: string | null, policyOfFiles: string | null): Promise<Status> {
  const folders = spoolFolders(spoolPath);
  const state = isLocked(lockFile(spoolPath)) ? await readState(spoolPath) : undefined;
  const receiver = isLocked(join(folders.incoming, "lock.sqlite"));
  const deliverer = isLocked(join(folders.queue, "lock.sqlite"));
  return {
    running: receiver && deliverer,
    hostname,
    receiver,
    deliverer,
    startedAt: state?.startedAt ?? null,
    compartments: state?.compartments ?? [],
    queue: await countQueue(spoolPath),
    policy: state?.policy ?? null,
    policyOfFiles,
  };
}

function statusText(status: Status, now: Date): string {
  const { running, hostname, receiver, deliverer, startedAt, compartments, queue, policy, policyOfFiles } = status;
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
    policy !== null && policyOfFiles !== null && policy !== policyOfFiles
      ? "the configuration has changed since the start: restart the relay to use it\n"
      : "",
  ].join("");
}
