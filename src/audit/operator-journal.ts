/**
 * The operators' journal: who did what to a partner's identity, when and how. One line of JSON for each action, in
 * `operator.jsonl` of the audit folder, appended and never changed.
 *
 * Promises: an action is on stable storage when {@link recordAction} returns; the lines of several processes do not mix
 * (one write with O_APPEND each); a line that a crash has torn is not glued to the next one, and the reader passes over
 * it. A line is at most {@link recordBytesMax} long and holds no control or invisible characters, whatever came out of
 * files and from peers. Fails with the system's error: then the action may stand in the journal in part, or not at all.
 */
import { constants } from "node:fs";
import { open, readFile, type FileHandle } from "node:fs/promises";
import { userInfo } from "node:os";
import { join, resolve } from "node:path";
import { makeFolderDurably, syncDirectory } from "../files/durable.ts";

export interface OperatorAction {
  readonly at: Date;
  /** See {@link whoAmI}. */
  readonly who: string;
  /** What was done, as `confirm`. */
  readonly action: string;
  readonly partner?: string | undefined;
  /** By its `pinKey`. */
  readonly pin?: string | undefined;
  /** How it was known to be right, as `24 words`. */
  readonly how?: string | undefined;
  readonly details?: ActionDetails | undefined;
}

export type ActionDetails = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

/** The longest line, its line feed included. */
export const recordBytesMax = 16 * 1024;
const charactersMax = 500; // five such texts fit, however they must be escaped
const listItemsMax = 50;

export function operatorJournalFile(auditPath: string): string {
  return join(auditPath, "operator.jsonl");
}

/** Appends an action. The folder and the file are made where they are missing, for their owner alone. */
export async function recordAction(auditPath: string, action: OperatorAction): Promise<void> {
  const line = recordOf(action);
  await makeFolderDurably(resolve(auditPath));
  const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  const handle = await open(operatorJournalFile(auditPath), O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
  try {
    const bytes = Buffer.from(`${(await isTorn(handle)) ? "\n" : ""}${line}`);
    const { bytesWritten } = await handle.write(bytes);
    // A second write could land behind the line of another process.
    if (bytesWritten < bytes.length)
      throw new Error(`${operatorJournalFile(auditPath)}: no space for the whole record`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(auditPath); // the file may be new, also where whoever made it has died before this line
}

/** All actions in the order of their lines; none where nothing has been recorded. */
export async function readActions(auditPath: string): Promise<OperatorAction[]> {
  let text: string;
  try {
    text = await readFile(operatorJournalFile(auditPath), "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
  return text.split("\n").flatMap((line) => actionOf(line) ?? []);
}

/** The person behind the command: with sudo, the one who typed it. */
export function whoAmI(environment: Readonly<NodeJS.ProcessEnv> = process.env): string {
  const { SUDO_USER } = environment;
  if (SUDO_USER !== undefined && SUDO_USER !== "") return SUDO_USER;
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? "unknown"}`; // a user without a name, as in containers
  }
}

/** Has somebody died in the middle of the last line? */
async function isTorn(handle: FileHandle): Promise<boolean> {
  const { size } = await handle.stat();
  if (size === 0) return false;
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(1), 0, 1, size - 1);
  return bytesRead === 1 && buffer[0] !== 0x0a;
}

function recordOf(action: OperatorAction): string {
  const { at, who, action: command, partner, pin, how, details } = action;
  const told = { at: at.toISOString(), ...bounded({ who, action: command, partner, pin, how }) };
  const line = jsonLine({ ...told, ...(details === undefined ? {} : { details: bounded(details) }) });
  return Buffer.byteLength(line) <= recordBytesMax ? line : jsonLine({ ...told, details: { omitted: "too long" } });
}

function bounded(details: ActionDetails): ActionDetails {
  const cut = (text: string): string => (text.length > charactersMax ? `${text.slice(0, charactersMax)}…` : text);
  return Object.fromEntries(
    Object.entries(details).map(([key, value]) => {
      if (typeof value === "string") return [cut(key), cut(value)];
      return [cut(key), typeof value === "object" ? value.slice(0, listItemsMax).map(cut) : value];
    }),
  );
}

/** JSON whose text is safe to show: it escapes more than it must. */
export function jsonLine(record: Readonly<Record<string, unknown>>): string {
  const json = JSON.stringify(record).replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split("") // by UTF-16 code units, as JSON has it
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join(""),
  );
  return `${json}\n`;
}

/** Undefined for what is no action: a line that was torn, or that is not ours. */
function actionOf(line: string): OperatorAction | undefined {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof record !== "object" || record === null) return undefined;
  const { at, who, action, partner, pin, how, details } = record as Readonly<Record<string, unknown>>;
  if (typeof at !== "string" || typeof who !== "string" || typeof action !== "string") return undefined;
  const when = new Date(at);
  if (Number.isNaN(when.getTime())) return undefined;
  return {
    at: when,
    who,
    action,
    ...(typeof partner === "string" ? { partner } : {}),
    ...(typeof pin === "string" ? { pin } : {}),
    ...(typeof how === "string" ? { how } : {}),
    ...(isDetails(details) ? { details } : {}),
  };
}

function isDetails(value: unknown): value is ActionDetails {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((one: unknown) =>
    Array.isArray(one) ? one.every((item) => typeof item === "string") : isPlain(one),
  );
}

function isPlain(value: unknown): boolean {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}
