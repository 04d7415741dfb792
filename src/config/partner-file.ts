/**
 * Writes the file of a new partner, for `pinrelay partner enrol`.
 *
 * Promises: the file is there whole or not at all, it is valid by the same code that loads it, also beside the partners
 * that are there (no pin or domain of theirs), and no file is ever replaced. Fails with a {@link PartnerFileError}, and
 * then nothing has been written.
 */
import { access, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { writeFileDurably } from "../files/durable.ts";
import type { Digest } from "../partner/pin.ts";
import { readPartnerFiles } from "./load.ts";
import { isPartnerName, readPartner } from "./partner.ts";
import { PemFiles } from "./pem.ts";
import { Claims, FileReport } from "./problems.ts";
import type { ConfigProblem } from "./relay-config.ts";
import type { LoadContext } from "./route.ts";
import { parseSource } from "./source.ts";
import { quote, systemFault } from "./text.ts";

/** Why no file was written, in one line. */
export class PartnerFileError extends Error {
  override readonly name = "PartnerFileError";
}

export type NewPin = { readonly label?: string; /** `YYYY-MM-DD` */ readonly notAfter?: string } & (
  { readonly spki: Digest } | { readonly certificate: Digest }
);

/** A partner as it is enrolled: text as it will stand in the file. */
export interface NewPartner {
  readonly name: string;
  readonly description?: string;
  readonly contact?: string;
  readonly hosts: readonly string[];
  readonly pins: readonly NewPin[];
  readonly from: readonly string[];
  readonly to: readonly string[];
  readonly deliver?: {
    readonly domains: readonly string[];
    readonly servers: ReadonlyArray<{
      readonly address: string;
      readonly port?: number;
      readonly name?: string;
      readonly pins: readonly Digest[];
    }>;
  };
}

/**
 * Writes `folder/NAME.yaml`.
 * @param now by which end dates of pins are judged: one that is past is refused here.
 * @returns the file.
 */
export async function writeNewPartner(folder: string, partner: NewPartner, now: Date = new Date()): Promise<string> {
  const { name } = partner;
  if (!isPartnerName(name)) {
    throw new PartnerFileError(
      `${quote(name)} is no name for a partner: use lower-case letters, digits and hyphens, at most 63`,
    );
  }
  const file = resolve(folder, `${name}.yaml`);
  const text = partnerFileText(partner, await hasSchema(folder));
  await checkNewPartner(file, text, now);
  try {
    await writeFileDurably(file, text, 0o644, "refuse"); // it holds no secret, and the relay has its own user
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      throw new PartnerFileError(`${file} exists already: edit it, or choose another name`, { cause: error });
    }
    throw new PartnerFileError(`${file} cannot be written: the folder ${systemFault(error)}`, { cause: error });
  }
  return file;
}

/** The text of a partner's file, with comments for whoever edits it next. */
export function partnerFileText(partner: NewPartner, withSchema: boolean): string {
  const lines = [
    ...(withSchema ? ["# yaml-language-server: $schema=../schema/partner.schema.json"] : []),
    "# One partner: the name of this file is its name. After a change: `pinrelay check`, then restart the relay.",
    "",
    ...(partner.description === undefined ? [] : [`description: ${yaml(partner.description)}`]),
    ...(partner.contact === undefined ? [] : [`contact: ${yaml(partner.contact)}`]),
    "mode: enforce # or observe: what `allow` would refuse is reported and let through",
    "",
    "# The addresses and networks that the partner connects from.",
    ...listText("hosts", partner.hosts.map(yaml)),
    "",
    "# What its certificate must match: any one suffices. In a rollover there are two, until the old one is removed.",
    ...listText("pins", partner.pins.map(pinText)),
    "",
    "# What it may send: user@domain, @domain, or @*.domain for all below it. What is not here is refused.",
    "allow:",
    ...listText("  from", partner.from.map(yaml), " # reports (the null reverse-path) pass always"),
    ...listText("  to", partner.to.map(yaml), " # in our domains"),
    ...deliverText(partner.deliver),
  ];
  return `${lines.join("\n")}\n`;
}

function pinText(pin: NewPin): string {
  const keys = {
    ...("spki" in pin ? { spki: pin.spki } : { certificate: pin.certificate }),
    ...(pin.label === undefined ? {} : { label: pin.label }),
    ...(pin.notAfter === undefined ? {} : { "not-after": pin.notAfter }),
  };
  return flow(keys);
}

/** @param items as YAML. */
function listText(key: string, items: readonly string[], comment = ""): string[] {
  const indent = /^ */.exec(key)?.[0] ?? "";
  if (items.length === 0) return [`${key}: []${comment}`];
  return [`${key}:${comment}`, ...items.map((item) => `${indent}  - ${item}`)];
}

function deliverText(deliver: NewPartner["deliver"]): string[] {
  if (deliver === undefined) {
    return ["", "# No `deliver`: the partner gets no mail, and reports about its mail go to our postmaster."];
  }
  return [
    "",
    "# How mail reaches the partner: servers in the order in which they are tried. No DNS is asked.",
    "deliver:",
    ...listText("  domains", deliver.domains.map(yaml)),
    ...listText(
      "  servers",
      deliver.servers.map(({ address, port, name, pins }) => {
        return flow({ address, port, name, pin: pins.length === 1 ? pins[0] : pins });
      }),
    ),
  ];
}

function flow(keys: Readonly<Record<string, unknown>>): string {
  const pairs = Object.entries(keys).filter(([, value]) => value !== undefined);
  return `{ ${pairs.map(([key, value]) => `${key}: ${yaml(value)}`).join(", ")} }`;
}

/** JSON is YAML, and needs no thought about what YAML would take for a number or a comment. */
function yaml(value: unknown): string {
  return JSON.stringify(value);
}

async function hasSchema(folder: string): Promise<boolean> {
  return access(join(folder, "../schema/partner.schema.json")).then(
    () => true,
    () => false,
  );
}

/** Throws if the file would not load beside those that are there. What is wrong with those is not its matter. */
async function checkNewPartner(file: string, text: string, now: Date): Promise<void> {
  const folder = resolve(file, "..");
  const context: LoadContext = {
    now,
    claims: new Claims(),
    pemFiles: new PemFiles(),
    relayFile: file,
    ownDomains: undefined,
    messageBytesMax: undefined,
  };
  await readPartnerFiles(await otherPartners(folder, file), context, [], undefined); // their pins and domains are taken
  const problems: ConfigProblem[] = [];
  const root = parseSource(file, Buffer.from(text), problems);
  await readPartner(root, new FileReport(file, root, problems), context);
  const first =
    problems.find(({ severity }) => severity === "error") ??
    problems.find(({ keyPath }) => keyPath.endsWith(".not-after"));
  if (first !== undefined) throw new PartnerFileError(`${first.keyPath || "the file"}: ${first.message}`);
}

async function otherPartners(folder: string, file: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => name.endsWith(".yaml") && !name.startsWith("."))
      .map((name) => join(folder, name))
      .filter((other) => other !== file)
      .toSorted();
  } catch (error) {
    throw new PartnerFileError(`the folder ${folder} ${systemFault(error)}`, { cause: error });
  }
}
