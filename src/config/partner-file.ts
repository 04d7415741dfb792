/**
 * Writes the file of a new partner, for `pinrelay partner enrol`. `partner-edit.ts` changes the files that are there.
 *
 * Promises: the file is there whole or not at all, it is valid by the same code that loads it, also beside the partners
 * that are there (no pin or domain of theirs), and no file is ever replaced. Fails with a {@link PartnerFileError}, and
 * then nothing has been written.
 */
import { access, readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { writeFileDurably } from "../files/durable.ts";
import type { Partner } from "../partner/partner.ts";
import type { Digest, PinState } from "../partner/pin.ts";
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

/** A pin as it is added: text as it will stand in the file. */
export type NewPin = {
  readonly label?: string;
  /** Absent: active, and the file says nothing of it. */
  readonly state?: PinState;
  /** `YYYY-MM-DD`, or with a time as `2027-01-31T12:00:00Z`. */
  readonly notBefore?: string;
  /** `YYYY-MM-DD`, or with a time as `2027-01-31T12:00:00Z`. */
  readonly notAfter?: string;
} & (
  | { readonly spki: Digest }
  | { readonly certificate: Digest }
  | {
      /** A PEM file, as seen from the partner's file. */
      readonly trustAnchor: string;
      /** The DNS name that the partner's certificate must carry. */
      readonly name: string;
      /** Files with the revocation lists of its CAs, as seen from the partner's file. */
      readonly revocationLists?: readonly string[];
    }
);

/** A partner as it is enrolled: text as it will stand in the file. */
export interface NewPartner {
  readonly name: string;
  readonly description?: string;
  readonly contact?: string;
  readonly hosts: readonly string[];
  readonly pins: readonly NewPin[];
  /** Absent: clientAuth, and the file says nothing of it. */
  readonly extendedKeyUsage?: "clientAuth" | "any";
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
    "# One partner: the name of this file is its name. After a change: `pinrelay check`, then `pinrelay reload`.",
    "",
    ...(partner.description === undefined ? [] : [`description: ${yaml(partner.description)}`]),
    ...(partner.contact === undefined ? [] : [`contact: ${yaml(partner.contact)}`]),
    "mode: enforce # or observe: what `allow` would refuse is reported and let through",
    "",
    "# The addresses and networks that the partner connects from.",
    ...listText("hosts", partner.hosts.map(yaml)),
    "",
    "# What its certificate must match: any one suffices. `state` says where a pin is in its life: pending lets nobody in",
    "# until `pinrelay partner confirm`; none, or active, counts; next counts too, and the active ones retire some time after",
    "# its first use; revoked lets nobody in, and is kept so that nobody enrols it again.",
    ...listText(
      "pins",
      partner.pins.map((pin) => flow(pinEntries(pin))),
    ),
    ...extendedKeyUsageText(partner.extendedKeyUsage),
    "",
    "# What it may send: user@domain, @domain, or @*.domain for all below it. What is not here is refused.",
    "allow:",
    ...listText("  from", partner.from.map(yaml), " # reports (the null reverse-path) pass always"),
    ...listText("  to", partner.to.map(yaml), " # in our domains"),
    ...deliverText(partner.deliver),
  ];
  return `${lines.join("\n")}\n`;
}

/** The keys of a pin as they stand in a file, in the order in which they are written. */
export function pinEntries(pin: NewPin): ReadonlyArray<readonly [key: string, value: string | readonly string[]]> {
  const keys: Array<readonly [string, string | readonly string[] | undefined]> = [
    ...whatItPins(pin),
    ["state", pin.state === "active" ? undefined : pin.state],
    ["label", pin.label],
    ["not-before", pin.notBefore],
    ["not-after", pin.notAfter],
  ];
  return keys.flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const]));
}

function whatItPins(pin: NewPin): Array<readonly [string, string | readonly string[] | undefined]> {
  if ("spki" in pin) return [["spki", pin.spki]];
  if ("certificate" in pin) return [["certificate", pin.certificate]];
  const lists = pin.revocationLists ?? [];
  return [
    ["trust-anchor", pin.trustAnchor],
    ["name", pin.name],
    ["revocation-list", lists.length === 0 ? undefined : lists.length === 1 ? lists[0] : lists],
  ];
}

/** @param items as YAML. */
function listText(key: string, items: readonly string[], comment = ""): string[] {
  const indent = /^ */.exec(key)?.[0] ?? "";
  if (items.length === 0) return [`${key}: []${comment}`];
  return [`${key}:${comment}`, ...items.map((item) => `${indent}  - ${item}`)];
}

function extendedKeyUsageText(usage: NewPartner["extendedKeyUsage"]): string[] {
  if (usage === undefined) return [];
  return [
    "",
    "# What its certificate must be good for: clientAuth; or any, where its CA issues for servers only.",
    `extended-key-usage: ${entryText("extended-key-usage", usage)}`,
  ];
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
        return flow(Object.entries({ address, port, name, pin: pins.length === 1 ? pins[0] : pins }));
      }),
    ),
  ];
}

/** A map of keys on one line. */
export function flow(keys: ReadonlyArray<readonly [key: string, value: unknown]>): string {
  const pairs = keys.filter(([, value]) => value !== undefined);
  return `{ ${pairs.map(([key, value]) => `${key}: ${entryText(key, value)}`).join(", ")} }`;
}

/** The value of a key. */
export function entryText(key: string, value: unknown): string {
  const isWord = typeof value === "string" && /^[a-z]{3,}[A-Za-z]*$/.test(value);
  return isWord && (key === "state" || key === "extended-key-usage") ? value : yaml(value);
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

/** Throws if the file would not load beside those that are there. */
async function checkNewPartner(file: string, text: string, now: Date): Promise<void> {
  const { problems } = await judgePartnerFile(file, Buffer.from(text), now, await otherPartners(file));
  const first =
    problems.find(({ severity }) => severity === "error") ??
    problems.find(({ keyPath }) => keyPath.endsWith(".not-after"));
  if (first !== undefined) throw new PartnerFileError(`${first.keyPath || "the file"}: ${first.message}`);
}

/**
 * What a partner's file would mean if it held `bytes`, beside other partners' files: their pins and domains are taken.
 * What is wrong with those is not its matter.
 */
export async function judgePartnerFile(
  file: string,
  bytes: Uint8Array,
  now: Date,
  others: readonly string[],
): Promise<{ partner: Partner | undefined; problems: readonly ConfigProblem[] }> {
  const context: LoadContext = {
    now,
    claims: new Claims(),
    pemFiles: new PemFiles(),
    relayFile: file,
    ownDomains: undefined,
    messageBytesMax: undefined,
  };
  await readPartnerFiles(others, context, [], undefined);
  const problems: ConfigProblem[] = [];
  const root = parseSource(file, bytes, problems);
  const partner = await readPartner(root, new FileReport(file, root, problems), context);
  return { partner, problems };
}

/** The files of the other partners, beside which `file` must be valid. */
export async function otherPartners(file: string): Promise<string[]> {
  const folder = dirname(file);
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
