/**
 * `pinrelay start`, `receive` and `deliver`: the commands that stay.
 *
 * Promises: nothing starts on an invalid configuration; SIGTERM and SIGINT end in order; SIGHUP reads the files again.
 */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { RelayConfig } from "../config/relay-config.ts";
import { Deliverer } from "../deliverer/deliverer.ts";
import { ExpiryMail } from "../deliverer/expiry-mail.ts";
import { createLog } from "../log/log.ts";
import { ServerCertificateFault, startReceiver } from "../receiver/receiver.ts";
import { openDirectorySpool } from "../spool/directory/directory-spool.ts";
import { SpoolFault } from "../spool/spool.ts";
import { CompartmentFailed } from "../supervisor/compartment.ts";
import { Supervisor } from "../supervisor/supervisor.ts";
import { firstCandidate, nextCandidate, type CheckedCandidate } from "./candidate.ts";
import { configOption, examples, newCommand } from "./command.ts";
import {
  loadCompartmentConfig,
  serveReloads,
  snapshotOption,
  systemHint,
  type CompartmentOptions,
} from "./compartment-config.ts";
import { CliError, type Output } from "./output.ts";

export function startCommand(output: Output): Command {
  return newCommand("start", output)
    .description("runs the relay: receiver and deliverer, each in a process of its own")
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay start", "pinrelay start --config /etc/pinrelay/relay.yaml"))
    .action(async (options: { config: string }) => {
      const candidate = await firstCandidate(options.config, output);
      const { config } = candidate;
      const log = createLog("supervisor");
      const script = process.argv[1];
      if (script === undefined) throw new Error("the program's own path is unknown");
      const supervisor = new Supervisor({
        script,
        configFile: resolve(options.config),
        spoolPath: config.spool.path,
        initial: candidate,
        load: (inForce: CheckedCandidate) => nextCandidate(options.config, inForce),
        log,
      });
      const stopped = untilSignal();
      process.on("SIGHUP", () => supervisor.reload());
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

export function receiveCommand(output: Output): Command {
  return newCommand("receive", output)
    .description("runs the receiver alone: takes mail from partners into the spool")
    .addOption(configOption())
    .addOption(snapshotOption())
    .action(async (options: CompartmentOptions) => {
      const config = await loadCompartmentConfig(options, output);
      const stopped = untilSignal();
      const log = createLog("receiver");
      const receiver = await startReceiver(config, log).catch(explain);
      serveReloads(options, config, {
        log,
        reload: (next) => receiver.reload(next),
        listening: () =>
          receiver.addresses.map(
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
    .addOption(snapshotOption())
    .action(async (options: CompartmentOptions) => {
      const config = await loadCompartmentConfig(options, output);
      const stopped = untilSignal();
      await deliverUntil(options, config, stopped).catch(explain);
    });
}

async function deliverUntil(options: CompartmentOptions, config: RelayConfig, stopped: Promise<void>): Promise<void> {
  const log = createLog("deliverer");
  const spool = await openDirectorySpool({
    path: config.spool.path,
    report: (problem) => log.error({ event: "spool problem", ...problem }),
    honoured: (id, action) => log.info({ event: "operator's request", id, action }),
  });
  const deliverer = new Deliverer({ config, spool, log });
  let inForce = config;
  const expiryMail = new ExpiryMail({ config: () => inForce, dropBox: spool.dropBox, log });
  deliverer.start();
  expiryMail.start();
  serveReloads(options, config, {
    log,
    reload: (next) => {
      deliverer.reload(next);
      inForce = next;
    },
    listening: () => [],
  });
  await stopped;
  await expiryMail.stop();
  await deliverer.stop();
  await spool.close();
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
    process.on("SIGHUP", () => undefined); // a terminal that closes does not stop a relay; who can, reloads
    process.once("disconnect", () => resolveSignal());
  });
}

/** What an operator can mend gets one line; the rest shows its stack. */
function explain(error: unknown): never {
  if (error instanceof SpoolFault) {
    const more = error.kind === "locked" ? ": a relay is running already, see pinrelay status" : "";
    throw new CliError(1, `${error.message}${more}`, { cause: error });
  }
  if (error instanceof ServerCertificateFault) throw new CliError(1, `${error.message}; run pinrelay check`);
  if (error instanceof Error && "code" in error && /^ERR_(?:OSSL|SSL)/.test(String(error.code))) {
    throw new CliError(1, `the server's certificate and key cannot be used (${error.message}): run pinrelay check`, {
      cause: error,
    });
  }
  if (error instanceof Error && "code" in error && "syscall" in error)
    throw new CliError(1, systemHint(error), { cause: error });
  throw error;
}
