/**
 * What partners have sent of late, in `<spool>/rates.json`: so that a restart gives nobody a new day.
 *
 * Promises: the file is whole or not there; a crash forgets ten seconds at most; a disk that does not take it keeps no
 * mail out. A file that is damaged, or says that it was written later than now, counts for nothing, and the log says so.
 */
import { readdir, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../log/log.ts";
import { RecordWriter, type RecordWriterOptions } from "../sightings/record-writer.ts";
import { PartnerRates, rateNames, type RateLevels } from "./partner-rates.ts";
import type { BucketLevel } from "./token-bucket.ts";

const fileName = "rates.json";
/** A draft that a death has left, as `writeFileDurably` names it. */
const draftForm = /^\.rates\.json\..*\.tmp$/;
const intervalMs = 10_000;
/** A clock may be set right. */
const toleranceMs = 60_000;

export interface RatesFileOptions {
  readonly spoolPath: string;
  /** Those that there are: of others nothing is taken over. */
  readonly partners: Iterable<{ readonly name: string }>;
  readonly log: Log;
  readonly now: () => Date;
  readonly writer?: RecordWriterOptions;
}

export interface KeptRates {
  readonly rates: PartnerRates;
  /** Writes what has changed. */
  close(): Promise<void>;
}

/** Takes over what the receiver's life before has left. Never fails. */
export async function keepRates({
  spoolPath,
  partners,
  log,
  now,
  writer: options,
}: RatesFileOptions): Promise<KeptRates> {
  const file = join(spoolPath, fileName);
  const writer = new RecordWriter([spoolPath], log, {
    during: "writing down what partners have sent",
    intervalMs,
    ...options,
  });
  await removeDrafts(spoolPath);
  const read = await readLevels(file, now().getTime());
  if (typeof read === "string") log.warn({ event: "rates forgotten", file, cause: read });
  const rates: PartnerRates = new PartnerRates(typeof read === "string" ? new Map() : read, () =>
    writer.put(file, () => encodeLevels(rates.levels(now().getTime()), now().getTime()), "later"),
  );
  rates.retain(partners);
  return { rates, close: () => writer.close() };
}

async function removeDrafts(spoolPath: string): Promise<void> {
  const names = await readdir(spoolPath).catch(() => []);
  for (const name of names) if (draftForm.test(name)) await unlink(join(spoolPath, name)).catch(() => undefined);
}

/** The text says why there are none. */
async function readLevels(file: string, nowMs: number): Promise<RateLevels | string> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return new Map();
    return error instanceof Error ? error.message : String(error);
  }
  return decodeLevels(text, nowMs);
}

export function encodeLevels(levels: RateLevels, nowMs: number): string {
  const partners = Object.fromEntries(
    [...levels].map(([name, ofPartner]): [string, Record<string, BucketLevel>] => [
      name,
      Object.fromEntries(ofPartner),
    ]),
  );
  return `${JSON.stringify({ version: 1, writtenAtMs: nowMs, partners })}\n`;
}

/** The text says what is wrong. */
export function decodeLevels(text: string, nowMs: number): RateLevels | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "it is damaged";
  }
  if (!isRecord(value) || value.version !== 1 || !isRecord(value.partners)) return "it is damaged";
  const { writtenAtMs } = value;
  if (!isNumber(writtenAtMs)) return "it is damaged";
  if (writtenAtMs > nowMs + toleranceMs) return "it was written later than now: is the clock right?";
  const levels = new Map<string, Map<string, BucketLevel>>();
  for (const [partner, ofPartner] of Object.entries(value.partners)) {
    if (!isRecord(ofPartner)) return "it is damaged";
    const known = new Map<string, BucketLevel>();
    for (const [name, level] of Object.entries(ofPartner)) {
      if (!isRecord(level) || !isNumber(level.tokens) || !isNumber(level.atMs)) return "it is damaged";
      if (rateNames.has(name)) known.set(name, { tokens: level.tokens, atMs: Math.min(level.atMs, nowMs) });
    }
    levels.set(partner, known);
  }
  return levels;
}

function isNumber(value: unknown): value is number {
  return Number.isFinite(value);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
