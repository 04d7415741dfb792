/**
 * `pinrelay status`: does the relay run, and what waits? Exit status 0 if all compartments live, 1 if not.
 */
import type { Command } from "commander";
import { countQueue } from "../spool/directory/queue-reader.ts";
import { readState } from "../supervisor/state.ts";
import { configOption, examples, jsonOption, loadValidConfig, newCommand } from "./command.ts";
import { CliError, formatTable, type Output } from "./output.ts";
import { duration } from "./queue.ts";

export function statusCommand(output: Output): Command {
  return newCommand("status", output)
    .description("does the relay run, and what waits in its spool")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", examples("pinrelay status", "pinrelay status --json"))
    .action(async (options: { config: string; json?: boolean }) => {
      const now = new Date();
      const config = await loadValidConfig(options.config, now, output);
      const state = await readState(config.spool.path);
      const queue = await countQueue(config.spool.path);
      const compartments = (state?.compartments ?? []).map((compartment) => ({
        ...compartment,
        alive: compartment.pid !== null && isAlive(compartment.pid),
      }));
      const running =
        state !== undefined &&
        isAlive(state.pid) &&
        compartments.length > 0 &&
        compartments.every(({ alive, ready }) => alive && ready);
      const startedAt = state?.startedAt;
      if (options.json === true) {
        output.out(
          `${JSON.stringify({ running, hostname: config.hostname, startedAt, compartments, queue, policy: config.version }, null, 2)}\n`,
        );
      } else {
        const since = startedAt === undefined ? "" : `, up ${duration(now.getTime() - Date.parse(startedAt))}`;
        output.out(`${config.hostname}: ${running ? `running${since}` : "not running as it should"}\n`);
        if (compartments.length > 0) {
          const rows = compartments.map(({ name, pid, alive, ready, restarts, listening }) => [
            name,
            alive ? String(pid) : "-",
            alive ? (ready ? "ready" : "starting") : "dead",
            String(restarts),
            listening.join(", "),
          ]);
          output.out(formatTable(rows, ["compartment", "pid", "state", "restarts", "listening"]));
        }
        output.out(
          `queue: ${queue.deferred} deferred, ${queue.held} held; files to be read: ${queue.batchesIncoming} incoming, ${queue.batchesTaken} taken\n`,
        );
      }
      if (!running)
        throw new CliError(1, "the relay does not run as it should: see its log, or start it with pinrelay start");
    });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"; // another user's, but alive
  }
}
