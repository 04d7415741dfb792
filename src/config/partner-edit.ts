/**
 * Changes the file of a partner that is there, for `pinrelay partner confirm`, `rollover` and `revoke`.
 *
 * Promises: what is not about the change stays as it is, to the byte: comments, order, quotes, line ends; so do the
 * file's owner and mode, and a symbolic link in its place. The new file is there whole or not at all, and it is valid by
 * the same code that loads it, also beside the other partners. Commands at the same time take turns; an edit from
 * elsewhere in the meantime is noticed and kept. Fails with a {@link PartnerFileError} that names the file: then nothing
 * has changed.
 */
import { realpath, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { writeFileDurably } from "../files/durable.ts";
import type { Partner } from "../partner/partner.ts";
import { pinKey } from "../partner/pin.ts";
import { LockHeld, withEditLock } from "./partner-edit-lock.ts";
import { editPartnerText, EditRefusal } from "./partner-edit-text.ts";
import { judgePartnerFile, otherPartners, PartnerFileError, type NewPin } from "./partner-file.ts";
import type { ConfigProblem } from "./relay-config.ts";
import { parseSource, readBounded } from "./source.ts";
import { keyPathText, plain, systemFault } from "./text.ts";

/** The keys of a pin that change during its life. */
export type PinLifeKey = "state" | "label" | "not-before" | "not-after";

/** One change. Indices are those of the file's list of pins as it was read, whatever other edits stand beside this one. */
export type PartnerEdit =
  | {
      readonly kind: "addPin";
      readonly pin: NewPin;
      /** For people, one line. Left out where several pins stand in one line. */
      readonly comment?: string | undefined;
    }
  | {
      readonly kind: "setPinKeys";
      readonly index: number;
      /** A key whose value is undefined is removed; one that is not given stays as it is. */
      readonly keys: Readonly<Partial<Record<PinLifeKey, string | undefined>>>;
    }
  | { readonly kind: "removePin"; readonly index: number }
  | { readonly kind: "setKey"; readonly key: "extended-key-usage"; readonly value: string };

export interface EditOptions {
  /** By which end dates of pins are judged: one that is past is refused where it is new. */
  readonly now: Date;
  /** The partner as it was loaded when the edits were decided: a file whose pins are others by now is left alone. */
  readonly expected?: Partner | undefined;
  /** How long to wait for another command that edits the file; by default 10 seconds. */
  readonly patienceMs?: number | undefined;
}

/** Makes all the edits, or none. Returns when the file is on stable storage. */
export async function editPartnerFile(
  file: string,
  edits: readonly PartnerEdit[],
  options: EditOptions,
): Promise<void> {
  const place = resolve(file);
  const fail = (reason: string, cause?: unknown): never => {
    throw new PartnerFileError(`${plain(place)} ${reason}`, { cause });
  };
  // A link stays: what it leads to is replaced.
  const target = await realpath(place).catch((error: unknown) => fail(systemFault(error), error));
  try {
    await withEditLock(target, options.patienceMs ?? 10_000, async () => edit(place, target, edits, options));
  } catch (error) {
    if (error instanceof PartnerFileError) throw error;
    if (error instanceof LockHeld) return fail(error.message, error);
    if (error instanceof Error && "code" in error) return fail(`cannot be changed: ${changeFault(error)}`, error);
    throw error;
  }
}

async function edit(
  file: string,
  target: string,
  edits: readonly PartnerEdit[],
  { now, expected }: EditOptions,
): Promise<void> {
  const before = await stateOf(file, target);
  if (expected !== undefined) {
    const { partner } = await judgePartnerFile(file, before.bytes, now, []);
    if (partner === undefined || !isDeepStrictEqual(lifeOf(partner), lifeOf(expected))) throw editedInBetween(file);
  }
  const text = textOf(file, before.bytes);
  const edited = editText(file, text, edits);
  if (edited === text) return;
  const bytes = Buffer.from(edited);
  const { partner, problems } = await judgePartnerFile(file, bytes, now, await otherPartners(file));
  const problem =
    problems.find(({ severity }) => severity === "error") ??
    problems.find(({ keyPath }) => newEnds(edits, partner?.pins.length ?? 0).includes(keyPath));
  if (problem !== undefined) throw new PartnerFileError(problemText(file, problem));
  const { mode, uid, gid } = before.status;
  await writeFileDurably(target, bytes, mode & 0o7777, "replace", {
    owner: { uid, gid },
    allow: async () => {
      if (!isDeepStrictEqual(await stateOf(file, target), before)) throw editedInBetween(file);
    },
  });
}

/** All by which it is told that a file is still the one that was read. */
async function stateOf(file: string, target: string) {
  const bytes = await readBounded(target);
  if ("fault" in bytes) throw new PartnerFileError(`${plain(file)} ${bytes.fault}`);
  const leadsTo = await realpath(file);
  const { dev, ino, mode, uid, gid, size, mtimeMs, ctimeMs } = await stat(target);
  return { bytes, leadsTo, status: { dev, ino, mode, uid, gid, size, mtimeMs, ctimeMs } };
}

function editedInBetween(file: string): PartnerFileError {
  return new PartnerFileError(`${plain(file)} was edited in between: look at it and try again`);
}

/** What decisions about pins are made of. */
function lifeOf({ pins }: Partner): unknown {
  return pins.map((pin) => [pinKey(pin), pin.state, pin.label, pin.notBefore, pin.notAfter]);
}

/** The text of a file, if it is valid YAML: the byte order mark is part of it. */
function textOf(file: string, bytes: Uint8Array): string {
  const problems: ConfigProblem[] = [];
  parseSource(file, bytes, problems);
  if (problems[0] !== undefined) throw new PartnerFileError(problemText(file, problems[0]));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

function editText(file: string, text: string, edits: readonly PartnerEdit[]): string {
  try {
    return editPartnerText(text, edits);
  } catch (error) {
    if (!(error instanceof EditRefusal)) throw error;
    throw new PartnerFileError(`${plain(file)}: ${error.message}`, { cause: error });
  }
}

/** The end dates that the edits have put into a file with so many pins: what was past before is not their matter. */
function newEnds(edits: readonly PartnerEdit[], pinCount: number): string[] {
  const removed = new Set(edits.flatMap((one) => (one.kind === "removePin" ? one.index : [])));
  const indices = edits.flatMap((one) => {
    if (one.kind !== "setPinKeys" || one.keys["not-after"] === undefined) return [];
    return one.index - [...removed].filter((index) => index < one.index).length;
  });
  const added = edits.filter(({ kind }) => kind === "addPin").map((_, index) => pinCount - 1 - index);
  return [...indices, ...added].map((index) => keyPathText(["pins", index, "not-after"]));
}

/** `/etc/pinrelay/partners/acme.yaml:12: pins[0].spki: must be …` */
function problemText(file: string, { line, keyPath, message }: ConfigProblem): string {
  const place = `${plain(file)}${line === undefined ? "" : `:${line}`}`;
  return [place, ...(keyPath === "" ? [] : [keyPath]), plain(message)].join(": ");
}

/** The system's refusals to write, in words. */
function changeFault(error: Error & { readonly code: unknown }): string {
  switch (error.code) {
    case "EACCES":
    case "EROFS":
      return "this user may not write to its folder";
    case "EPERM":
      return "it belongs to another user: run this as that one, or as root";
    case "ENOSPC":
    case "EDQUOT":
      return "the disk is full";
    // oxlint-disable-next-line no-fallthrough -- no union: the system has a hundred of them
    default:
      return plain(error.message);
  }
}
