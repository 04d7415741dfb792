/**
 * `pinrelay start`, `receive` and `deliver`: the commands that stay.
 *
 * Promises: nothing starts on an invalid configuration; SIGTERM and SIGINT end in order.
 */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { RelayConfig } from "../config/relay-config.ts";
import { Deliverer } from "../deliverer/deliverer.ts";
import { createLog } from "../log/log.ts";
import { startReceiver } from "../receiver/receiver.ts";
import { openDirectorySpool } from "../spool/directory/directory-spool.ts";
import { SpoolFault } from "../spool/spool.ts";
import { CompartmentFailed, Supervisor, type CompartmentNews } from "../supervisor/supervisor.ts";
import { runCheck } from "./check.ts";
import { configOption, examples, loadValidConfig, newCommand } from "./command.ts";
import { CliError, type Output } from "./output.ts";

export function startCommand(output: Output): Command {
  return newCommand("start", output)
    .description("runs the relay: receiver and deliverer, each in a process of its own")
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay start", "pinrelay start --config /etc/pinrelay/relay.yaml"))
    .action(async (options: { config: string }) => {
      const config = await checkedConfig(options.config, output);
      const log = createLog("supervisor");
      const script = process.argv[1];
      if (script === undefined) throw new Error("the program's own path is unknown");
      const supervisor = new Supervisor({
        script,
        configFile: resolve(options.config),
        spoolPath: config.spool.path,
        policy: config.version,
        log,
      });
      const stopped = untilSignal();
      try {
        await supervisor.start();
      } catch (error) {
        await supervisor.stop();
        if (error instanceof CompartmentFailed) throw new CliError(error.code === 2 ? 2 : 1, error.message);
        throw error;
      }
      log.info({
        event: "started",
        hostname: config.hostname,
        partners: config.partners.length,
        policy: config.version.slice(0, 12),
      });
      await stopped;
      await supervisor.stop();
      log.info({ event: "stopped" });
    });
}

/** What `pinrelay check` calls an error is one here: a key that others can read, or an expired certificate, starts nothing. */
async function checkedConfig(file: string, output: Output): Promise<RelayConfig> {
  const config = await loadValidConfig(file, new Date(), output);
  const checked = await runCheck(file, { json: false });
  if (checked.exitCode === 0) return config;
  output.err(checked.output);
  throw new CliError(2, "nothing is started: correct what is listed above");
}

export function receiveCommand(output: Output): Command {
  return newCommand("receive", output)
    .description("runs the receiver alone: takes mail from partners into the spool")
    .addOption(configOption())
    .action(async (options: { config: string }) => {
      const config = await loadValidConfig(options.config, new Date(), output);
      const stopped = untilSignal();
      const receiver = await startReceiver(config, createLog("receiver")).catch(explain);
      tell({
        kind: "ready",
        listening: receiver.addresses.map(
          ({ address, port, implicitTls }) => `${address}:${port}${implicitTls ? " (TLS)" : ""}`,
        ),
      });
      await stopped;
      await receiver.stop();
    });
}

export function deliverCommand(output: Output): Command {
  return newCommand("deliver", output)
    .description("runs the deliverer alone: sends what is in the spool to the next hops")
    .addOption(configOption())
    .action(async (options: { config: string }) => {
      const config = await loadValidConfig(options.config, new Date(), output);
      const stopped = untilSignal();
      await deliverUntil(config, stopped).catch(explain);
    });
}

async function deliverUntil(config: RelayConfig, stopped: Promise<void>): Promise<void> {
  const log = createLog("deliverer");
  const spool = await openDirectorySpool({
    path: config.spool.path,
    report: (problem) => log.error({ event: "spool problem", ...problem }),
    honoured: (id, action) => log.info({ event: "operator's request", id, action }),
  });
  const deliverer = new Deliverer({ config, spool, log });
  deliverer.start();
  tell({ kind: "ready", listening: [] });
  await stopped;
  await deliverer.stop();
  await spool.close();
}

/** Tells the supervisor, if there is one. */
function tell(news: CompartmentNews): void {
  process.send?.(news);
}

/**
 * Resolves at the first SIGTERM or SIGINT, or when the supervisor is gone. Further signals change nothing: Ctrl-C and
 * systemd signal a whole group, so that a compartment hears of it twice, and what is in flight is to end all the same.
 */
function untilSignal(): Promise<void> {
  return new Promise((resolveSignal) => {
    process.on("SIGTERM", () => resolveSignal());
    // Under a supervisor, Ctrl-C is for the supervisor, which then stops its compartments in order.
    process.on("SIGINT", () => {
      if (!process.connected) resolveSignal();
    });
    process.on("SIGHUP", () => undefined); // a terminal that closes does not stop a relay
    process.once("disconnect", () => resolveSignal());
  });
}

/** What an operator can mend gets one line; the rest shows its stack. */
function explain(error: unknown): never {
  if (error instanceof SpoolFault) {
    const more = error.kind === "locked" ? ": a relay is running already, see pinrelay status" : "";
    throw new CliError(1, `${error.message}${more}`, { cause: error });
  }
  if (error instanceof Error && "code" in error && /^ERR_(?:OSSL|SSL)/.test(String(error.code))) {
    throw new CliError(1, `the server's certificate and key cannot be used (${error.message}): run pinrelay check`, {
      cause: error,
    });
  }
  if (error instanceof Error && "code" in error && "syscall" in error)
    throw new CliError(1, hint(error), { cause: error });
  throw error;
}

function hint(error: Error & { code: unknown }): string {
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
