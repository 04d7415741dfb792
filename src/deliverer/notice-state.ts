/**
 * When who was told of what last, in `notices.json` of the spool: a restart tells nobody twice. A file that is damaged, or
 * not there, means that nobody has been told yet: better twice than never.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileDurably } from "../files/durable.ts";

export interface NoticeState {
  /** The daily notices: when they were written last, to our postmaster and to the contact of each partner. */
  readonly postmasterMs: number | undefined;
  readonly contactsMs: Readonly<Record<string, number>>;
  /** Notices of events: when the last one was written, and what has been told and is still so. */
  readonly eventsMs: number | undefined;
  readonly told: readonly string[];
}

export const nothingTold: NoticeState = {
  postmasterMs: undefined,
  contactsMs: {},
  eventsMs: undefined,
  told: [],
};

export function noticesFile(spoolPath: string): string {
  return join(spoolPath, "notices.json");
}

/** Fails with the system's error where the file is there and cannot be read. */
export async function readNoticeState(spoolPath: string): Promise<NoticeState> {
  try {
    const value: unknown = JSON.parse(await readFile(noticesFile(spoolPath), "utf8"));
    return isState(value) ? value : nothingTold;
  } catch (error) {
    if (error instanceof SyntaxError) return nothingTold;
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return nothingTold;
    throw error;
  }
}

export async function writeNoticeState(spoolPath: string, state: NoticeState): Promise<void> {
  await writeFileDurably(noticesFile(spoolPath), `${JSON.stringify(state, null, 2)}\n`, 0o600);
}

function isState(value: unknown): value is NoticeState {
  if (typeof value !== "object" || value === null || !("contactsMs" in value) || !("told" in value)) return false;
  const { contactsMs, told } = value;
  const times = [
    "postmasterMs" in value ? value.postmasterMs : undefined,
    "eventsMs" in value ? value.eventsMs : undefined,
    ...(typeof contactsMs === "object" && contactsMs !== null ? Object.values(contactsMs) : [null]),
  ];
  return (
    times.every((time) => time === undefined || Number.isSafeInteger(time)) &&
    Array.isArray(told) &&
    told.every((one) => typeof one === "string")
  );
}
