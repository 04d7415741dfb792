/**
 * `pinrelay`: all commands under one name. See `command.ts` for how each of them is made and `output.ts` for how they end.
 */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { caCommand } from "./ca.ts";
import { runCheck } from "./check.ts";
import { configOption, jsonOption, newCommand } from "./command.ts";
import { explainCommand } from "./explain.ts";
import { CliError, processOutput, runCommand, type Output } from "./output.ts";
import { partnerCommand } from "./partner.ts";
import { policyCommand } from "./policy.ts";
import { queueCommand } from "./queue.ts";
import { reloadCommand } from "./reload.ts";
import { deliverCommand, receiveCommand, startCommand } from "./run.ts";
import { statusCommand } from "./status.ts";

export function program(output: Output): Command {
  return newCommand("pinrelay", output)
    .description("a partner-facing mail relay: takes mail only over TLS from partners pinned by certificate")
    .version(packageVersion())
    .addCommand(startCommand(output))
    .addCommand(receiveCommand(output))
    .addCommand(deliverCommand(output))
    .addCommand(checkCommand(output))
    .addCommand(explainCommand(output))
    .addCommand(policyCommand(output))
    .addCommand(partnerCommand(output))
    .addCommand(caCommand(output))
    .addCommand(queueCommand(output))
    .addCommand(reloadCommand(output))
    .addCommand(statusCommand(output));
}

function checkCommand(output: Output): Command {
  return newCommand("check", output)
    .description("validates configuration, certificates, keys and permissions; opens no connection")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (options: { config: string; json?: boolean }) => {
      const result = await runCheck(options.config, { json: options.json === true });
      output.out(result.output);
      if (result.exitCode === 2) throw new CliError(2, "the configuration must be corrected");
      if (result.exitCode === 1) throw new CliError(1, "the configuration is valid, but something runs out: see above");
    });
}

function packageVersion(): string {
  const value: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return typeof value === "object" && value !== null && "version" in value ? String(value.version) : "unknown";
}

/** Runs the command line and sets the exit status. */
export async function main(args: readonly string[]): Promise<void> {
  process.stdout.on("error", endOnBrokenPipe);
  process.stderr.on("error", endOnBrokenPipe);
  const command = program(processOutput);
  process.exitCode = args.length === 0 ? 2 : 0;
  if (args.length === 0) processOutput.err(command.helpInformation());
  else process.exitCode = await runCommand(command, args, processOutput);
  // Under a supervisor the channel to it would keep the process.
  if (process.connected) process.disconnect();
}

/** `pinrelay queue list | head` is no failure. */
function endOnBrokenPipe(error: Error & { code?: string }): void {
  if (error.code === "EPIPE") process.exit();
  throw error;
}
