/**
 * `pinrelay partner`: the life of a partner's identity, as it is typed. What each command does is in a file of its own.
 *
 * Promises: what changes a partner says what is to be done next. Fails with {@link CliError}: 1 where the answer is no,
 * 2 for wrong usage or where the configuration is invalid.
 */
import { Option, type Command } from "commander";
import { caOption, configOption, examples, jsonOption, newCommand, parseDays } from "./command.ts";
import { kitCommand } from "./kit.ts";
import type { Output } from "./output.ts";
import type { ChangeOptions } from "./partner-change.ts";
import { confirm } from "./partner-confirm.ts";
import { enrol, type EnrolOptions } from "./partner-enrol.ts";
import { listPartners, listQuarantine, showPartner, type ShowOptions } from "./partner-list.ts";
import { revoke, type RevokeOptions } from "./partner-revoke.ts";
import { rollover, type RolloverOptions } from "./partner-rollover.ts";
import { processTerminal, type Terminal } from "./terminal.ts";

const certificateDays = 397;

/** @param clock and `terminal`: tests pass their own. */
export function partnerCommand(
  output: Output,
  clock: () => Date = () => new Date(),
  terminal: Terminal = processTerminal,
): Command {
  return newCommand("partner", output)
    .description("the partners and the certificates that identify them")
    .addCommand(listCommand(output, clock))
    .addCommand(showCommand(output, clock))
    .addCommand(enrolCommand(output, clock, terminal))
    .addCommand(confirmCommand(output, clock, terminal))
    .addCommand(rolloverCommand(output, clock, terminal))
    .addCommand(revokeCommand(output, clock, terminal))
    .addCommand(kitCommand(output, clock));
}

function listCommand(output: Output, clock: () => Date): Command {
  return newCommand("list", output)
    .description("lists the partners, or the certificates from their hosts that nobody knows")
    .option("--quarantine", "the unknown certificates, and the command that approves each")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay partner list",
        "pinrelay partner list --json | jq '.[].name'",
        "pinrelay partner list --quarantine",
      ),
    )
    .action((options: ShowOptions & { quarantine?: true }) =>
      options.quarantine === true ? listQuarantine(options, clock(), output) : listPartners(options, clock(), output),
    );
}

function showCommand(output: Output, clock: () => Date): Command {
  return newCommand("show", output)
    .description("shows one partner: everything that is in force, and its pins on a line of time")
    .argument("<name>", "the partner's name")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay partner show acme", "pinrelay partner show acme --json"))
    .action((name: string, options: ShowOptions) => showPartner(name, options, clock(), output));
}

/** The sources that `enrol` and `rollover` have in common, and how they are used. */
function withSources(command: Command): Command {
  return command
    .option("--cert <file>", "the partner's certificate, PEM or DER")
    .option("--csr <file>", "its certificate request, which our CA signs")
    .option("--pin <fingerprint>", "the fingerprint of its key alone: base64, hexadecimal, or 24 words in quotes")
    .option("--from-quarantine <id>", "what an unknown host showed: see pinrelay partner list --quarantine")
    .option("--from-host <address:port>", "what this host shows as a mail server, by STARTTLS")
    .option("--implicit-tls", "with --from-host: TLS from the first octet")
    .option("--pin-certificate", "pin this one certificate, not its key: a renewed one must be enrolled again")
    .option("--label <text>", "what the pin is called, as the year of its key")
    .addOption(
      new Option("--days <n>", "with --csr: how long the certificate is valid")
        .argParser(parseDays)
        .default(certificateDays),
    );
}

function withOutput(command: Command): Command {
  return command
    .option("--qr", "show the fingerprint as a QR code too, also where the output is no terminal")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption());
}

function enrolCommand(output: Output, clock: () => Date, terminal: Terminal): Command {
  const command = newCommand("enrol", output)
    .alias("enroll")
    .description("adds a partner: writes its file, with a pin that counts once it is confirmed")
    .argument("<name>", "lower-case letters, digits and hyphens; also the name of the file");
  withSources(command)
    .option("--trust-anchor <file>", "the certificate of its CA: any of that CA with the right --name will do")
    .option("--name <dnsname>", "with --trust-anchor: the DNS name that the partner's certificate carries")
    .option("--revocation-list <file...>", "with --trust-anchor: the CA's revocation list")
    .option(
      "--host <range...>",
      "addresses or networks that it connects from; from quarantine: default where it was seen",
    )
    .requiredOption("--from <rule...>", "senders it may use: user@domain, @domain or @*.domain")
    .requiredOption("--to <rule...>", "recipients it may write to, in our domains; as --from")
    .option("--contact <text>", "whom to ask there")
    .option("--description <text>", "who it is")
    .option("--deliver-domain <domain...>", "its domains, for mail to the partner")
    .option("--deliver-server <address:port...>", "its mail servers")
    .option("--deliver-name <dnsname>", "the name of its server, for TLS")
    .option("--deliver-pin <fingerprint...>", "the fingerprint of its server's key")
    .addOption(reloadOption());
  return withOutput(command)
    .addHelpText(
      "after",
      examples(
        "pinrelay partner enrol acme --cert acme.pem --host 203.0.113.0/28 --from @acme.example \\",
        "    --to orders@corp.example @edi.corp.example --contact mail-ops@acme.example",
        "pinrelay partner enrol acme --csr acme.csr --host 203.0.113.5 2001:db8:1::/64 \\",
        '    --from @acme.example "@*.acme.example" --to orders@corp.example',
        "pinrelay partner enrol globex --trust-anchor globex-ca.pem --name mx.globex.example \\",
        "    --revocation-list globex.crl --host 198.51.100.7 --from @globex.example --to @corp.example",
        "pinrelay partner enrol initech --from-host 192.0.2.9:25 --host 192.0.2.9 \\",
        "    --from @initech.example --to @corp.example",
      ),
    )
    .action((name: string, options: EnrolOptions) => enrol(name, options, clock(), output, terminal.shows));
}

function reloadOption(): Option {
  return new Option("--no-reload", "only change the file: do not have the running relay take it up");
}

function confirmCommand(output: Output, clock: () => Date, terminal: Terminal): Command {
  return newCommand("confirm", output)
    .description("makes a pending pin count, by the fingerprint that the partner gave over another channel")
    .argument("<name>", "the partner's name")
    .argument("<fingerprint...>", "base64, hexadecimal or 24 words; - reads the standard input, as from a scanner")
    .addOption(reloadOption())
    .addOption(jsonOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      `
A certificate that was seen from the partner's hosts and stands in quarantine is approved in the same way.
${examples(
  "pinrelay partner confirm acme sha256/2kY7v0bJ1m9u0JqkqJ0m2qTt2j1Zr4s0v5o9r8n3x0E=",
  "pinrelay partner confirm acme 9F86 D081 884C 7D65 9A2F EAA0 C55A D015 A3BF 4F1B 2B0B 822C D15D 6C15 B0F0 0A08",
  "pinrelay partner confirm acme -",
)}`,
    )
    .action((name: string, typed: string[], options: ChangeOptions) =>
      confirm(name, typed, options, clock(), output, terminal),
    );
}

function rolloverCommand(output: Output, clock: () => Date, terminal: Terminal): Command {
  const command = newCommand("rollover", output)
    .description("adds the partner's next pin; the old one retires some time after the next was first used")
    .argument("<name>", "the partner's name");
  withSources(command)
    .option("--not-before <date>", "the next pin counts from this day on, as 2027-01-31")
    .option("--not-after <date>", "and up to this day")
    .option("--keep-dates", "do not end the old pin with its certificate as last seen")
    .option("--finish", "the old pin has retired: remove it, and make the next one the active one")
    .option("--cancel", "remove the next pin, which has never been used")
    .addOption(reloadOption());
  return withOutput(command)
    .addHelpText(
      "after",
      examples(
        "pinrelay partner rollover acme --cert acme-2027.pem",
        "pinrelay partner rollover acme --csr acme-2027.csr --label 2027",
        "pinrelay partner rollover acme --cert acme-2027.pem --not-before 2027-01-31",
        "pinrelay partner rollover acme --finish",
      ),
    )
    .action((name: string, options: RolloverOptions) => rollover(name, options, clock(), output, terminal.shows));
}

function revokeCommand(output: Output, clock: () => Date, terminal: Terminal): Command {
  return newCommand("revoke", output)
    .description("a pin of the partner lets nobody in any more, also over connections that are open")
    .argument("<name>", "the partner's name")
    .argument("[fingerprint...]", "of the pin, where there are several")
    .option("--label <text>", "the pin with this label")
    .option("--all", "all of its pins")
    .option("--reason <text>", "for the journal")
    .option("--yes", "do not ask")
    .addOption(reloadOption())
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay partner revoke acme --label 2026 --reason 'host was broken into'",
        "pinrelay partner revoke acme --all --yes",
      ),
    )
    .action((name: string, typed: string[], options: RevokeOptions) =>
      revoke(name, typed, options, clock(), output, terminal),
    );
}
