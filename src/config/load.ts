/**
 * Loads the configuration: relay.yaml, the partners' files and the certificates that they name.
 *
 * Promises: all files are read and all that is wrong is reported at once, in the order of files and lines; a
 * configuration is returned only if it is whole. Nothing is written, no private key is read, no connection is opened.
 * Fails (throws) only on faults of the program.
 */
import { createHash, type Hash } from "node:crypto";
import { dirname, join, relative, resolve } from "node:path";
import type { Partner } from "../partner/partner.ts";
import { diskFiles, type FileFault, type FileSource } from "./file-source.ts";
import { PemFiles } from "./pem.ts";
import { Claims, FileReport } from "./problems.ts";
import { readPartner } from "./partner.ts";
import type { ConfigProblem, LoadResult } from "./relay-config.ts";
import { defaultPartnersFolder, readRelay } from "./relay.ts";
import type { LoadContext } from "./route.ts";
import { isSet, lineAt, parseSource, readBounded, type ConfigNode } from "./source.ts";
import { keyPathText, type Path } from "./text.ts";

export { formatProblem } from "./text.ts";

/**
 * @param file relay.yaml.
 * @param now by which end dates of pins are judged.
 * @param source where files come from.
 */
export async function loadConfig(
  file: string,
  now: Date = new Date(),
  source: FileSource = diskFiles,
): Promise<LoadResult> {
  const relayFile = resolve(file);
  const problems: ConfigProblem[] = [];
  const version = createHash("sha256");
  const pemFiles = new PemFiles(source);
  const base = { now, claims: new Claims(), pemFiles, relayFile };

  const root = treeOf(relayFile, await source.read(relayFile), problems, version, relayFile);
  const report = new FileReport(relayFile, root, problems);
  const relay =
    root === undefined
      ? undefined
      : await readRelay(root, report, { ...base, ownDomains: undefined, messageBytesMax: undefined });
  const partners = await readPartners(
    relay?.partnersFolder ?? defaultPartnersFolder(relayFile),
    report,
    { ...base, ownDomains: relay?.ownDomains, messageBytesMax: relay?.messageBytesMax },
    problems,
    version,
    source,
  );
  for (const pem of await pemFiles.files()) addToVersion(version, relayFile, pem.file, pem.bytes);

  const sorted = inOrder(problems);
  if (relay?.config === undefined || sorted.some(({ severity }) => severity === "error")) {
    return { kind: "invalid", problems: sorted };
  }
  return { kind: "loaded", config: { ...relay.config, partners, version: version.digest("hex") }, warnings: sorted };
}

/** Where a key stands, and whether it is there. */
export type KeyPlace = Pick<ConfigProblem, "file" | "line" | "keyPath"> & { readonly isSet: boolean };

/**
 * Where a key stands in a file that has been loaded, for whoever finds out later what is wrong with its value.
 * Never fails: where the file has changed in between, there is no line.
 */
export async function locate(file: string, path: Path): Promise<KeyPlace> {
  const bytes = await readBounded(file);
  const root = "fault" in bytes ? undefined : parseSource(file, bytes, []);
  const keyPath = keyPathText(path);
  if (root === undefined) return { file, line: undefined, keyPath, isSet: false };
  return { file, line: lineAt(root, path), keyPath, isSet: isSet(root, path) };
}

/** Reads the partners of a folder in the order of their names. */
async function readPartners(
  folder: string,
  report: FileReport,
  context: LoadContext,
  problems: ConfigProblem[],
  version: Hash,
  source: FileSource,
): Promise<Partner[]> {
  const files = await listPartnerFiles(folder, report, source);
  const partners = await readPartnerFiles(files ?? [], context, problems, version, source);
  if (files?.length === 0) {
    report.warning(
      ["partners"],
      `${folder} holds no partner: nobody can send mail; \`pinrelay partner enrol\` adds one`,
    );
  }
  return partners;
}

async function listPartnerFiles(folder: string, report: FileReport, source: FileSource): Promise<string[] | undefined> {
  const names = await source.list(folder);
  if ("fault" in names) {
    // Where relay.yaml could not be read, the folder is but a guess.
    if (report.isSet([]))
      report.error(["partners"], `folder ${folder} ${names.fault}: create it, or name the right one here`);
    return undefined;
  }
  for (const name of names) {
    // What looks like a partner and is none would be noticed when its mail is refused: too late.
    if (name.endsWith(".yml")) report.warning(["partners"], `${join(folder, name)} is not read: rename it to .yaml`);
    if (/^\..*\.yaml$/.test(name)) {
      report.warning(["partners"], `${join(folder, name)} is not read: its name begins with a dot`);
    }
  }
  return names.filter((name) => name.endsWith(".yaml") && !name.startsWith(".")).map((name) => join(folder, name));
}

/** Files that are read at a time: their latencies add up otherwise, with thousands of partners. */
const readAhead = 64;

/** Reads partners' files in their order. Those that are not valid are left out; what is wrong is in `problems`. */
export async function readPartnerFiles(
  files: readonly string[],
  context: LoadContext,
  problems: ConfigProblem[],
  version: Hash | undefined,
  source: FileSource = diskFiles,
): Promise<Partner[]> {
  const partners: Partner[] = [];
  for (let from = 0; from < files.length; from += readAhead) {
    const batch = files.slice(from, from + readAhead);
    const contents = await Promise.all(batch.map(async (file) => ({ file, bytes: await source.read(file) })));
    for (const { file, bytes } of contents) {
      const root = treeOf(file, bytes, problems, version, context.relayFile);
      const partner = await readPartner(root, new FileReport(file, root, problems), context);
      if (partner !== undefined) partners.push(partner);
    }
  }
  return partners;
}

function treeOf(
  file: string,
  bytes: Buffer | FileFault,
  problems: ConfigProblem[],
  version: Hash | undefined,
  relayFile: string,
): ConfigNode | undefined {
  if ("fault" in bytes) {
    problems.push({ severity: "error", file, line: undefined, keyPath: "", message: bytes.fault });
    return undefined;
  }
  if (version !== undefined) addToVersion(version, relayFile, file, bytes);
  return parseSource(file, bytes, problems);
}

/** Paths as seen from relay.yaml: the same files in another place, or on another host, are the same policy. */
function addToVersion(version: Hash, relayFile: string, file: string, bytes: Uint8Array): void {
  version.update(`${relative(dirname(relayFile), file)}\0${bytes.length}\0`).update(bytes);
}

/** By file, in the order in which files were read, then by line. */
function inOrder(problems: readonly ConfigProblem[]): ConfigProblem[] {
  const files = new Map<string, number>();
  for (const { file } of problems) if (!files.has(file)) files.set(file, files.size);
  return problems.toSorted(
    (a, b) => (files.get(a.file) ?? 0) - (files.get(b.file) ?? 0) || (a.line ?? 0) - (b.line ?? 0),
  );
}
