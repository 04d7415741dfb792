/**
 * `pinrelay reload`: has the running relay read its files again, and says what came of it. Exit status 0: the files are in
 * force; 1: they are not: the relay does not run, or keeps the old configuration, and why.
 */
import type { Command } from "commander";
import { requestReload, type ReloadResult } from "../supervisor/reload-request.ts";
import { configOption, examples, findSpool, jsonOption, newCommand } from "./command.ts";
import { CliError, printable, type Output } from "./output.ts";

export function reloadCommand(output: Output): Command {
  return newCommand("reload", output)
    .description("has the running relay read its files again, all or nothing")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", examples("pinrelay reload", "pinrelay reload --config /etc/pinrelay/relay.yaml"))
    .action(async (options: { config: string; json?: boolean }) => {
      const { path } = await findSpool(options.config, new Date(), output);
      const result = await requestReload(path);
      if (options.json === true) output.out(`${JSON.stringify(result, null, 2)}\n`);
      report(result, options.json === true, output, path);
    });
}

function report(result: ReloadResult, isJson: boolean, output: Output, spoolPath: string): void {
  switch (result.kind) {
    case "reloaded": {
      const changes = result.changes.length === 0 ? "nothing has changed" : result.changes.join("; ");
      if (!isJson) for (const warning of result.warnings) output.err(`${printable(warning)}\n`);
      if (!isJson) output.out(`policy ${result.policy.slice(0, 12)} is in force: ${printable(changes)}\n`);
      return;
    }
    case "refused":
      if (!isJson) for (const problem of result.problems) output.err(`${printable(problem)}\n`);
      throw new CliError(1, "the relay keeps its old configuration: correct what is listed above and reload again");
    case "notRunning":
      throw new CliError(
        1,
        `no relay runs on ${spoolPath}: pinrelay start reads the files; a receiver or deliverer alone reloads on SIGHUP`,
      );
    case "timeout":
      throw new CliError(1, "the relay has not answered yet: see pinrelay status, and the log");
  }
}
