/**
 * `npm run mint-test-ca`: a CA and a certificate for the relay, so that it can start on a test bench.
 *
 * Promises: what exists is kept and said so; the configuration need not be valid yet, for it names files that are made
 * here. Fails like `certs` (1), and with {@link CliError} (2) where no host name is to be found.
 */
import type { Command } from "commander";
import { mintTestCa } from "../certs/mint.ts";
import { shown } from "./certificate-text.ts";
import { caDirectory, caOption, configOption, examples, newCommand, readConfigText } from "./command.ts";
import { CliError, printable, type Output } from "./output.ts";

/** @param clock tests pass their own. */
export function mintTestCaCommand(output: Output, clock: () => Date = () => new Date()): Command {
  return newCommand("mint-test-ca", output)
    .description("makes a test CA, and a certificate for the relay; what exists is kept")
    .option("--hostname <name>", "the relay's name (default: hostname of the configuration)")
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText("after", examples("npm run mint-test-ca", "npm run mint-test-ca -- --hostname mx.corp.example"))
    .action(async (options: { config: string; ca?: string; hostname?: string }) => {
      const hostname = options.hostname ?? (await readConfigText(options.config, "hostname"));
      if (hostname === undefined) {
        throw new CliError(2, `${options.config} has no hostname: set it there, or give it with --hostname`);
      }
      const steps = await mintTestCa({ directory: caDirectory(options), hostname, now: clock() });
      for (const { kind, files, what, warnings } of steps) {
        output.out(`${kind} ${files.map(shown).join(" and ")}: ${what}\n`);
        for (const warning of warnings) output.err(`warning: ${printable(warning)}\n`);
      }
    });
}
