/**
 * `pinrelay partner kit`: what the partner's postmaster needs to send mail to us, for one kind of mail server.
 *
 * Promises: reads the configuration and certificates, never a private key; writes to standard output, or files of which
 * none that exists is overwritten unless told. Fails with {@link CliError}: 1 where there is no such partner, a file is
 * in the way or no kit can be made; 2 for wrong usage or an invalid configuration.
 */
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { makeFolderDurably, writeFileDurably } from "../files/durable.ts";
import { caDirectory, caOption, configOption, examples, jsonOption, newCommand } from "./command.ts";
import { addressPlaceholder, kitFacts, type KitFacts } from "./kit/facts.ts";
import { serverKinds, serverNames, type ServerName } from "./kit/servers.ts";
import type { ServerKit } from "./kit/snippet.ts";
import { kitText } from "./kit/text.ts";
import { findPartner } from "./partner-change.ts";
import { CliError, jsonText, type Output } from "./output.ts";

interface KitOptions {
  readonly config: string;
  readonly for: ServerName;
  readonly out?: string;
  readonly address?: readonly string[];
  readonly partnerCert?: string;
  readonly partnerKey?: string;
  readonly ca?: string;
  readonly force?: true;
  readonly json?: true;
}

export function kitCommand(output: Output, clock: () => Date): Command {
  return newCommand("kit", output)
    .description("writes what the partner's postmaster needs to send mail to us")
    .argument("<name>", "the partner's name")
    .addOption(
      new Option("--for <server>", "the partner's mail server")
        .choices(serverNames)
        .default("generic", "generic: prose"),
    )
    .option("--out <dir>", "write files into this folder: README.txt, the pieces of configuration, our certificate")
    .option("--force", "with --out: overwrite files that are there")
    .option(
      "--address <address...>",
      "where partners reach us, as 203.0.113.1 or 203.0.113.1:25 (default: from listen)",
    )
    .option("--partner-cert <path>", "where the partner has its certificate, on its own host")
    .option("--partner-key <path>", "where the partner has its key, on its own host")
    .addOption(jsonOption())
    .addOption(caOption())
    .addOption(configOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay partner kit acme --for postfix",
        "pinrelay partner kit acme --for exim --address 203.0.113.1 --out acme-kit",
      ),
    )
    .action((name: string, options: KitOptions) => kit(name, options, clock(), output));
}

async function kit(name: string, options: KitOptions, now: Date, output: Output): Promise<void> {
  if (options.force === true && options.out === undefined) {
    throw new CliError(2, "--force goes with --out: name the folder");
  }
  const { config, partner } = await findPartner(name, options.config, now, output);
  const kind = serverKinds[options.for];
  const facts = kitFacts(config, partner, {
    addresses: options.address ?? [],
    certificateFile: options.partnerCert ?? kind.defaults.certificateFile,
    keyFile: options.partnerKey ?? kind.defaults.keyFile,
    ca: await readCa(join(caDirectory(options), "ca.pem")),
  });
  const server = kind.make(facts);
  if (facts.endpoint.address === addressPlaceholder) {
    output.err(`pinrelay: the kit has ${addressPlaceholder} in place of our address: --address tells it\n`);
  }
  const files = filesOf(facts, server);
  if (options.out !== undefined) await writeKit(options.out, files, options.force === true);
  if (options.json === true) {
    output.out(jsonText({ ...facts, for: options.for, ...server }));
  } else if (options.out === undefined) {
    output.out(kitText(facts, server, "inline"));
  } else {
    output.out(files.map(({ path }) => `${join(options.out ?? "", path)}\n`).join(""));
  }
}

/** It is an extra: a relay whose certificate comes from elsewhere has none. */
async function readCa(file: string): Promise<string | undefined> {
  return readFile(file, "utf8").catch(() => undefined);
}

interface KitFile {
  readonly path: string;
  readonly text: string;
}

function filesOf(facts: KitFacts, server: ServerKit): KitFile[] {
  const all = [
    { path: "README.txt", text: kitText(facts, server, "files") },
    { path: `${facts.hostname}.pem`, text: facts.certificate.pem },
    ...(facts.anchor?.kind === "ca" ? [{ path: `${facts.hostname}-ca.pem`, text: facts.anchor.pem }] : []),
    ...server.snippets.map(({ name, text }) => ({ path: name, text })),
  ];
  return [...new Map(all.map((file) => [file.path, file])).values()];
}

/** All or, where a file is in the way, none. */
async function writeKit(folder: string, files: readonly KitFile[], force: boolean): Promise<void> {
  await makeFolderDurably(folder);
  for (const { path } of force ? [] : files) {
    const file = join(folder, path);
    if (await exists(file))
      throw new CliError(1, `${file}: is there already: choose another folder, or overwrite with --force`);
  }
  for (const { path, text } of files) {
    await writeFileDurably(join(folder, path), text, 0o644, force ? "replace" : "refuse");
  }
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
