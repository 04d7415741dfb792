/**
 * `pinrelay explain`: what the relay would say to a peer's mail, and why. It runs the receiver's own code on the files as
 * they are now, with what the relay has seen of pins in use; it opens no connection and changes nothing.
 */
import { isIP } from "node:net";
import { InvalidArgumentError, Option, type Command } from "commander";
import { readCertificateFile } from "../certs/certificate-file.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { noHistory, type PinHistory } from "../partner/rollover.ts";
import { DryRunner, type DryPeer, type DryRun } from "../receiver/dry-run.ts";
import { historyOf, readPinSightings } from "../sightings/reader.ts";
import { isLocked } from "../spool/directory/lock.ts";
import { lockFile, readState, type RelayState } from "../supervisor/state.ts";
import { configOption, examples, jsonOption, loadValidConfig, newCommand } from "./command.ts";
import { CliError, jsonText, printable, type Output } from "./output.ts";
import { groundText, Places } from "./places.ts";

interface ExplainOptions {
  readonly config: string;
  readonly json?: true;
  /** false: --no-cert. */
  readonly cert?: string | false;
  readonly ip?: string;
  readonly partner?: string;
  readonly tls: boolean;
  readonly group: string;
  readonly from: string;
  readonly to: string[];
  readonly size?: number;
  readonly smtputf8?: true;
}

const notPartOfThis = "Limits and quotas are not part of this: connections, rates, and what waits in the spool.";
/** More than any address has, and less than any command line may have. */
const addressBytesMax = 1000;

/** @param clock tests pass their own. */
export function explainCommand(output: Output, clock: () => Date = () => new Date()): Command {
  return newCommand("explain", output)
    .description("what the relay would say to a mail, the rule that decides, and its file and line")
    .option("--cert <file>", "the certificate that the peer shows, intermediates behind it")
    .option("--no-cert", "it shows none")
    .addOption(new Option("--ip <address>", "where it comes from").argParser(parseAddress))
    .option("--partner <name>", "in place of certificate and address: somebody who is known to be this partner")
    .option("--no-tls", "it goes on without STARTTLS")
    .option("--group <name>", "the key exchange of its TLS session", "X25519MLKEM768")
    .requiredOption("--from <address>", "sender; '<>' for the null sender of reports", parsePath)
    .requiredOption("--to <address...>", "recipients", (text: string, before: string[] | undefined) => [
      ...(before ?? []),
      parsePath(text),
    ])
    .addOption(new Option("--size <bytes>", "the size that it declares").argParser(parseSize))
    .option("--smtputf8", "it asks for SMTPUTF8")
    .addOption(jsonOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay explain --cert acme.pem --ip 203.0.113.5 --from a@acme.example --to orders@corp.example",
        "pinrelay explain --partner acme --from '<>' --to orders@corp.example --to postmaster",
        "pinrelay explain --ip 203.0.113.5 --no-cert --from a@acme.example --to orders@corp.example",
      ),
    )
    .action(async (options: ExplainOptions) => {
      checkUsage(options);
      const now = clock();
      const config = await loadValidConfig(options.config, now, output);
      await compareWithRunning(config, output);
      const peer = await peerOf(options, config, now, output);
      const history = await readHistory(config.spool.path, output);
      const run = new DryRunner(config, history).run({
        peer,
        from: options.from,
        to: options.to,
        declaredBytes: options.size,
        smtpUtf8: options.smtputf8 === true,
        now,
      });
      output.out(options.json === true ? await jsonOf(run) : await textOf(run));
      if (run.kind === "refused") throw new Refused();
    });
}

/** The answer itself has been written. */
class Refused extends CliError {
  constructor() {
    super(1, "the mail would be refused");
  }
}

function checkUsage({ cert, ip, partner, tls }: ExplainOptions): void {
  if (partner !== undefined) {
    if (cert === undefined && ip === undefined && tls) return;
    throw new CliError(2, "--partner stands in place of --cert and --ip: leave those out, or name no partner");
  }
  if (ip === undefined) throw new CliError(2, "who sends? Give --cert and --ip, or --partner");
  if (!tls && typeof cert === "string") throw new CliError(2, "without TLS no certificate is shown: leave out --cert");
  if (tls && cert === undefined) throw new CliError(2, "what does it show? Give --cert, --no-cert or --no-tls");
}

async function peerOf(options: ExplainOptions, config: RelayConfig, now: Date, output: Output): Promise<DryPeer> {
  const { cert, ip = "", partner: name, tls, group } = options;
  if (name !== undefined) return partnerOf(name, config, group, output);
  if (!tls) return { kind: "staysPlain", address: ip };
  if (typeof cert !== "string") return { kind: "connects", address: ip, chain: [], group };
  const { chain, warnings } = await readCertificateFile(cert, { several: "leafFirst", now });
  for (const warning of warnings) output.err(`pinrelay: ${printable(warning)}\n`);
  return { kind: "connects", address: ip, chain, group };
}

function partnerOf(name: string, config: RelayConfig, group: string, output: Output): DryPeer {
  const partner = config.partners.find((one) => one.name === name);
  if (partner === undefined) throw new CliError(1, `there is no partner ${name}: pinrelay partner list shows them`);
  const [first] = partner.pins;
  const usable = partner.pins.find(({ state }) => state === "active" || state === "next");
  if (usable === undefined) output.err(`pinrelay: ${name} has no pin that counts: nobody is let in as this partner\n`);
  const pin = usable ?? first;
  if (pin === undefined)
    throw new CliError(1, `${partner.file}: the partner has no pin: add one, see pinrelay partner`);
  return { kind: "identified", identity: { partner, pin }, group };
}

/** The files may have been edited since the relay read them. */
async function compareWithRunning({ spool, version }: RelayConfig, output: Output): Promise<void> {
  const state = await runningState(spool.path).catch(() => undefined); // whoever may not look there is told less
  if (state === undefined || state.policy === version) return;
  output.err("pinrelay: the running relay has not read these files yet: pinrelay reload brings them into force\n");
}

async function runningState(spoolPath: string): Promise<RelayState | undefined> {
  return isLocked(lockFile(spoolPath)) ? readState(spoolPath) : undefined;
}

/** Without it pins that have retired would seem to be in use. */
export async function readHistory(spoolPath: string, output: Output): Promise<PinHistory> {
  try {
    return historyOf(await readPinSightings(spoolPath));
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    output.err(`pinrelay: ${printable(error.message)}: which pins have retired is not known; run this as root\n`);
    return noHistory;
  }
}

async function textOf(run: DryRun): Promise<string> {
  const places = new Places();
  const lines: string[] = [];
  for (const { command, text, ground } of run.replies) {
    lines.push(command ?? "(the greeting)", `  ${text}`, `  rule: ${groundText(await places.find(ground))}`);
  }
  if (run.identity !== undefined) lines.push(`${whoIs(run)}: ${groundText(await places.find(run.identity))}`);
  lines.push(`${run.kind === "accepted" ? "Accepted." : "Refused."} ${notPartOfThis}`);
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function whoIs({ judgement }: DryRun): string {
  return judgement?.kind === "partner" ? `Identified as ${judgement.identity.partner.name}` : "Not identified";
}

async function jsonOf(run: DryRun): Promise<string> {
  const places = new Places();
  const { judgement, identity } = run;
  const replies = [];
  for (const { command, reply, code, text, ground } of run.replies) {
    replies.push({ command: command ?? null, code, reply: text, name: reply, rule: await places.find(ground) });
  }
  const record = {
    result: run.kind,
    partner: judgement?.kind === "partner" ? judgement.identity.partner.name : null,
    ...(judgement === undefined ? {} : { judgement: judgement.kind }),
    ...(identity === undefined ? {} : { identity: await places.find(identity) }),
    replies,
    note: notPartOfThis,
  };
  return jsonText(record, 0);
}

function parseAddress(text: string): string {
  if (isIP(text) === 0) throw new InvalidArgumentError("It is an IP address, as 203.0.113.5 or 2001:db8:1::5.");
  return text.replace(/^::ffff:(?=\d+\.)/i, "");
}

/** What stands between the angle brackets, which may be typed or not. */
function parsePath(text: string): string {
  const path = /^<(.*)>$/s.exec(text)?.[1] ?? text;
  if (Buffer.byteLength(path) > addressBytesMax || /[\r\n]/.test(path)) {
    throw new InvalidArgumentError("It is a mail address, with or without <>.");
  }
  return path;
}

function parseSize(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("It is a number of octets, as 10485760.");
  return Number(text);
}
