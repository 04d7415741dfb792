/**
 * `pinrelay partner`: who the partners are, and a new one among them.
 *
 * Promises: `list` and `show` write what is in force and change nothing; enrolment is the business of `partner-enrol`.
 * Fails with {@link CliError}: 1 where there is no such partner, 2 where the configuration is invalid.
 */
import { Option, type Command } from "commander";
import {
  caDirectory,
  caOption,
  configOption,
  examples,
  jsonOption,
  loadValidConfig,
  newCommand,
  parseDays,
} from "./command.ts";
import { CliError, formatTable, type Output } from "./output.ts";
import { enrol, type EnrolOptions } from "./partner-enrol.ts";
import { describePartner, knownEnd, partnerJson, partnerRow, partnerTableHeader } from "./partner-text.ts";

const certificateDays = 397;

/** @param clock tests pass their own. */
export function partnerCommand(output: Output, clock: () => Date = () => new Date()): Command {
  return newCommand("partner", output)
    .description("the partners and the certificates that identify them")
    .addCommand(listCommand(output, clock))
    .addCommand(showCommand(output, clock))
    .addCommand(enrolCommand(output, clock));
}

interface ShowOptions {
  readonly config: string;
  readonly ca?: string;
  readonly json?: true;
}

function listCommand(output: Output, clock: () => Date): Command {
  return newCommand("list", output)
    .description("lists the partners")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay partner list", "pinrelay partner list --json | jq '.[].name'"))
    .action(async (options: ShowOptions) => {
      const { partners } = await loadValidConfig(options.config, clock(), output);
      const directory = caDirectory(options);
      const known = await Promise.all(
        partners.map(async (partner) => ({ partner, end: await knownEnd(partner, directory) })),
      );
      if (options.json) {
        output.out(jsonText(known.map(({ partner, end }) => partnerJson(partner, end))));
      } else if (partners.length === 0) {
        output.out("There is no partner yet: pinrelay partner enrol --help tells how to add one.\n");
      } else {
        const rows = known.map(({ partner, end }) => partnerRow(partner, end));
        output.out(formatTable(rows, partnerTableHeader));
      }
    });
}

function showCommand(output: Output, clock: () => Date): Command {
  return newCommand("show", output)
    .description("shows one partner")
    .argument("<name>", "the partner's name")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay partner show acme", "pinrelay partner show acme --json"))
    .action(async (name: string, options: ShowOptions) => {
      const { partners } = await loadValidConfig(options.config, clock(), output);
      const partner = partners.find((candidate) => candidate.name === name);
      if (partner === undefined) {
        throw new CliError(1, `there is no partner '${name}': pinrelay partner list shows those there are`);
      }
      const end = await knownEnd(partner, caDirectory(options));
      output.out(options.json ? jsonText(partnerJson(partner, end)) : describePartner(partner, end));
    });
}

function enrolCommand(output: Output, clock: () => Date): Command {
  return newCommand("enrol", output)
    .alias("enroll")
    .description("adds a partner: writes its file, with a pin of its certificate")
    .argument("<name>", "lower-case letters, digits and hyphens; also the name of the file")
    .addOption(new Option("--cert <file>", "the partner's certificate, PEM or DER").conflicts("csr"))
    .option("--csr <file>", "its certificate request, which our CA signs")
    .requiredOption("--host <range...>", "addresses or networks that it connects from")
    .requiredOption("--from <rule...>", "senders it may use: user@domain, @domain or @*.domain")
    .requiredOption("--to <rule...>", "recipients it may write to, in our domains; as --from")
    .option("--contact <text>", "whom to ask there")
    .option("--description <text>", "who it is")
    .option("--pin-certificate", "pin this one certificate, not its key: a renewed one must be enrolled again")
    .addOption(
      new Option("--days <n>", "with --csr: how long the certificate is valid")
        .argParser(parseDays)
        .default(certificateDays),
    )
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay partner enrol acme --cert acme.pem --host 203.0.113.0/28 --from @acme.example \\",
        "    --to orders@corp.example @edi.corp.example --contact mail-ops@acme.example",
        "pinrelay partner enrol acme --csr acme.csr --host 203.0.113.5 2001:db8:1::/64 \\",
        '    --from @acme.example "@*.acme.example" --to orders@corp.example',
      ),
    )
    .action((name: string, options: EnrolOptions) => enrol(name, options, clock(), output));
}

function jsonText(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}
