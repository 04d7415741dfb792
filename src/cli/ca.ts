/**
 * `pinrelay ca`: a small CA for tests, and for partners who have none of their own.
 *
 * Promises: keys are readable by their owner alone, nothing that exists is overwritten but the revocation list, and a
 * request that claims a name of ours is refused unless the operator says that it is for a host of ours, as is one that
 * claims the name of another partner. Fails with {@link CliError} (2) on wrong
 * usage, and with the faults of `certs` (1) where the answer is no.
 */
import { join } from "node:path";
import { Option, type Command } from "commander";
import { whoAmI } from "../audit/operator-journal.ts";
import { exists, initCa, issue, signRequest, writeCertificate, writeKeyPair } from "../certs/ca.ts";
import { readCertificateFile, readRequestFile } from "../certs/certificate-file.ts";
import type { Usages } from "../certs/certificate.ts";
import { revocationReasons, type RevocationReason } from "../certs/crl.ts";
import { judgeRequest, type OwnNames } from "../certs/enrolment.ts";
import { keyTypes, type KeyType } from "../certs/key.ts";
import { looksLikeSerial, revoke, writeRevocationList, type Revoked, type WrittenList } from "../certs/revocations.ts";
import { canonicalDomain } from "../mail/domain.ts";
import type { AddressRange } from "../partner/address-range.ts";
import { dayOf, describeCertificate, describeRequest, ownNamesOf, refusalText, shown } from "./certificate-text.ts";
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
import { CliError, printable, type Output } from "./output.ts";

const caDays = 3650;
const leafDays = 397;
const listDays = 30;

/** @param clock tests pass their own. */
export function caCommand(output: Output, clock: () => Date = () => new Date()): Command {
  return newCommand("ca", output)
    .description("a certification authority of our own, for tests and for partners who have none")
    .addCommand(initCommand(output, clock))
    .addCommand(issueCommand(output, clock))
    .addCommand(signCommand(output, clock))
    .addCommand(revokeCommand(output, clock))
    .addCommand(crlCommand(output, clock));
}

interface CaOptions {
  readonly config: string;
  readonly ca?: string;
  readonly days: number;
}

function initCommand(output: Output, clock: () => Date): Command {
  return newCommand("init", output)
    .description("makes ca.pem and ca.key")
    .addOption(caOption())
    .option("--name <name>", "the common name of the CA", "pinrelay CA")
    .addOption(keyTypeOption())
    .addOption(daysOption(caDays))
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay ca init", "pinrelay ca init --ca /etc/pinrelay/ca --key-type ec-p384"))
    .action(async (options: CaOptions & { name: string; keyType: KeyType }) => {
      const { name: commonName, keyType, days } = options;
      const made = await initCa({ directory: caDirectory(options), commonName, keyType, days, now: clock() });
      output.out(`Made ${shown(made.certificateFile)} and ${shown(made.keyFile)}\n`);
      output.out(describeCertificate(made.certificate));
      output.out("Keep the key on this host and in a backup: whoever has it can speak for every partner it signed.\n");
    });
}

interface IssueOptions extends CaOptions {
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
  readonly usage: Usages;
  readonly keyType: KeyType;
  readonly out?: string;
}

function issueCommand(output: Output, clock: () => Date): Command {
  return newCommand("issue", output)
    .description("makes a key and a certificate for it")
    .argument("<name>", "the common name; if it is a host name, also the DNS name")
    .option("--dns <name...>", "DNS names to carry in place of NAME")
    .option("--ip <address...>", "IP addresses to carry")
    .addOption(usageOption("both"))
    .addOption(keyTypeOption())
    .addOption(daysOption(leafDays))
    .option("--out <base>", "writes BASE.pem and BASE.key (default: NAME in the CA's folder)")
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay ca issue mx.corp.example --out certs/server",
        "pinrelay ca issue mail1.corp.example --ip 10.1.0.10 --usage server",
        "pinrelay ca issue acme-test --usage client --days 30",
      ),
    )
    .action(async (name: string, options: IssueOptions) => {
      const directory = caDirectory(options);
      const base = options.out ?? join(directory, fileNameOf(name));
      const { usage: usages, keyType, days } = options;
      const names = { dnsNames: options.dns ?? hostNameOf(name), ipAddresses: options.ip ?? [] };
      const plan = { directory, commonName: name, ...names, usages, keyType, days, now: clock() };
      const made = await writeKeyPair(base, await issue(plan));
      output.out(`Made ${shown(made.certificateFile)} and ${shown(made.keyFile)}\n`);
      output.out(describeCertificate(made.certificate));
    });
}

interface SignOptions extends CaOptions {
  readonly csr: string;
  readonly out: string;
  readonly usage: Usages;
  readonly ownNames?: true;
  readonly partner?: string;
}

function signCommand(output: Output, clock: () => Date): Command {
  return newCommand("sign", output)
    .description("signs a certificate request; the names in it are shown and checked")
    .requiredOption("--csr <file>", "the request, PEM or DER")
    .requiredOption("--out <file>", "where the certificate goes; never overwritten")
    .addOption(usageOption("client"))
    .option("--partner <name>", "whose request it is: their names and addresses may stand in it, those of others not")
    .option("--own-names", "the request is for a host of ours, and may claim our names")
    .addOption(daysOption(leafDays))
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay ca sign --csr acme.csr --partner acme --out acme.pem",
        "pinrelay ca sign --csr mail1.csr --out mail1.pem --usage server --own-names",
      ),
    )
    .action(async (options: SignOptions) => {
      const now = clock();
      const { own, hosts } = await claimsOf(options, now, output);
      const request = await readRequestFile(options.csr);
      output.out(describeRequest(request));
      const judged = judgeRequest(request, own, hosts);
      if (judged.kind === "refused") throw new CliError(1, refusalText(options.csr, judged.reasons));
      const { usage: usages, days } = options;
      const commonName = judged.names.commonName ?? "unnamed";
      const plan = { ...judged.names, commonName, usages, days, now, directory: caDirectory(options), request };
      const { certificate, certificatePem } = await signRequest(plan);
      await writeCertificate(options.out, certificatePem);
      output.out(`Made ${shown(options.out)}\n${describeCertificate(certificate)}`);
    });
}

/** What is not to be claimed by a request, and where its addresses must lie. */
async function claimsOf(
  options: SignOptions,
  now: Date,
  output: Output,
): Promise<{ own: OwnNames | undefined; hosts: readonly AddressRange[] | undefined }> {
  if (options.ownNames) {
    if (options.partner === undefined) return { own: undefined, hosts: undefined };
    throw new CliError(2, "--own-names is for a host of ours, --partner for one of theirs: choose one of them");
  }
  const config = await loadValidConfig(options.config, now, output);
  const partner = config.partners.find(({ name }) => name === options.partner);
  if (options.partner !== undefined && partner === undefined) {
    throw new CliError(1, `there is no partner '${options.partner}': see pinrelay partner list`);
  }
  return { own: ownNamesOf(config, partner?.name), hosts: partner?.hosts };
}

interface RevokeOptions extends CaOptions {
  readonly reason: RevocationReason;
  readonly json?: true;
}

function revokeCommand(output: Output, clock: () => Date): Command {
  return newCommand("revoke", output)
    .description("revokes a certificate of the CA, and writes its revocation list anew")
    .argument("<certificate>", "its file, or its serial number in hexadecimal")
    .addOption(new Option("--reason <reason>", "why").choices(revocationReasons).default("unspecified"))
    .addOption(listDaysOption())
    .addOption(caOption())
    .addOption(jsonOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay ca revoke certs/acme.pem --reason superseded",
        "pinrelay ca revoke 5F:3A:…:9C --reason keyCompromise",
      ),
    )
    .action(async (certificate: string, options: RevokeOptions) => {
      const now = clock();
      const directory = caDirectory(options);
      const { reason, days } = options;
      const { kind, revocation } = await revoke(directory, await readRevoked(certificate, now), {
        reason,
        by: whoAmI(),
        now,
      });
      // Written in any case: somebody may have died between the record and the list.
      const written = await writeRevocationList(directory, { days, now });
      if (options.json) {
        output.out(`${JSON.stringify({ ...revocation, isNew: kind === "revoked", list: listRecord(written) })}\n`);
        return;
      }
      const { serial, subject, at, by } = revocation;
      const whose = subject === undefined ? "" : ` of ${printable(subject)}`;
      output.out(
        kind === "revoked"
          ? `Revoked certificate ${serial}${whose} (${revocation.reason})\n`
          : `Certificate ${serial}${whose} was revoked before, on ${dayOf(at)} by ${printable(by)} (${revocation.reason})\n`,
      );
      output.out(describeList(written));
      output.out(
        "It holds where the list is a pin's revocation-list; the pin of its key is a matter of partner revoke.\n",
      );
    });
}

function crlCommand(output: Output, clock: () => Date): Command {
  return newCommand("crl", output)
    .description("writes the CA's revocation list, ca.crl, anew: before the one in use is out of date")
    .addOption(listDaysOption())
    .addOption(caOption())
    .addOption(jsonOption())
    .addOption(configOption())
    .addHelpText("after", examples("pinrelay ca crl", "pinrelay ca crl --days 7 --ca /etc/pinrelay/ca"))
    .action(async (options: CaOptions & { readonly json?: true }) => {
      const written = await writeRevocationList(caDirectory(options), { days: options.days, now: clock() });
      output.out(options.json ? `${JSON.stringify(listRecord(written))}\n` : describeList(written));
    });
}

/** A file where there is one of that name, else a serial number. */
async function readRevoked(text: string, now: Date): Promise<Revoked> {
  if (looksLikeSerial(text) && !(await exists(text))) return { kind: "serial", serial: text };
  const { leaf } = await readCertificateFile(text, { several: "leafFirst", now });
  return { kind: "certificate", certificate: leaf, file: text };
}

function listRecord({ file, list }: WrittenList): Record<string, unknown> {
  const { number, thisUpdate, nextUpdate, serials } = list;
  return { file, number: String(number), thisUpdate, nextUpdate, revoked: [...serials] };
}

function describeList({ file, list }: WrittenList): string {
  const count = list.serials.size === 1 ? "1 certificate" : `${list.serials.size} certificates`;
  return `Made ${shown(file)}: ${count}, the next one is due on ${dayOf(list.nextUpdate)}\n`;
}

function hostNameOf(name: string): string[] {
  return name.includes(".") && canonicalDomain(name) !== undefined ? [name] : [];
}

/** A common name as a file name: only where nobody could be surprised by it. */
function fileNameOf(name: string): string {
  if (/^[a-z0-9][a-z0-9.-]{0,99}$/i.test(name) && name.toLowerCase() !== "ca") return name;
  throw new CliError(2, `'${name}' is no good name for a file: say with --out where the certificate shall go`);
}

function keyTypeOption(): Option {
  return new Option("--key-type <type>", "the kind of key").choices(keyTypes).default("ec-p256");
}

function usageOption(byDefault: Usages): Option {
  const choices: readonly Usages[] = ["server", "client", "both"];
  return new Option("--usage <usage>", "what the certificate is for in TLS").choices(choices).default(byDefault);
}

function listDaysOption(): Option {
  return new Option("--days <n>", "after how long the next list is due").argParser(parseDays).default(listDays);
}

function daysOption(byDefault: number): Option {
  return new Option("--days <n>", "how long it is valid, at most as long as the CA")
    .argParser(parseDays)
    .default(byDefault);
}
