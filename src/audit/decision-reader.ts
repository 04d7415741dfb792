/**
 * Reads the decision log, day by day, beside a receiver that goes on writing.
 *
 * Promises: a line that is torn or foreign is counted and passed over; memory is bounded by one day. Where nothing was
 * recorded there are no days. Fails with the system's error if the folder or a file may not be read.
 */
import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import {
  dayMs,
  dayName,
  dayOfFile,
  decisionsFile,
  decisionsFolder,
  lineBytesMax,
  parseLine,
  type DecisionLine,
  type RecordedDecision,
} from "./decision-record.ts";

export interface DecisionDay {
  /** As 2026-11-24. */
  readonly day: string;
  /** In the order in which they were first taken. */
  readonly decisions: readonly RecordedDecision[];
  /** PEM by digest. */
  readonly certificates: ReadonlyMap<string, string>;
  readonly unreadableLines: number;
  /** Decisions that found no place in the log. */
  readonly unrecorded: number;
}

/** The days from the one of `since` on, in UTC, the oldest first. */
export async function* readDecisions(auditPath: string, since: Date): AsyncGenerator<DecisionDay> {
  const from = Math.floor(since.getTime() / dayMs);
  for (const day of await recordedDays(auditPath)) if (day >= from) yield await readDay(auditPath, day);
}

/** The days of which there is a file, the oldest first. */
export async function recordedDays(auditPath: string): Promise<number[]> {
  try {
    const names = await readdir(decisionsFolder(auditPath));
    return names.flatMap((name) => dayOfFile(name) ?? []).toSorted((a, b) => a - b);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

async function readDay(auditPath: string, day: number): Promise<DecisionDay> {
  const decisions = new Map<string, RecordedDecision>();
  const certificates = new Map<string, string>();
  let unreadableLines = 0;
  let unrecorded = 0;
  for await (const line of readLines(decisionsFile(auditPath, day))) {
    switch (line?.kind) {
      case undefined:
        unreadableLines += 1;
        break;
      case "certificate":
        certificates.set(line.digest, line.pem);
        break;
      case "decision": {
        // The recorder may have begun anew in the middle of a day.
        const known = decisions.get(line.decision.id);
        if (known === undefined) decisions.set(line.decision.id, line.decision);
        else known.count += line.decision.count;
        break;
      }
      case "repeated":
        for (const [id, count] of line.counts) {
          const known = decisions.get(id);
          if (known !== undefined) known.count += count;
        }
        for (const [id, bytes] of line.declaredBytes) {
          const known = decisions.get(id);
          if (known !== undefined) known.declaredBytes = Math.max(bytes, known.declaredBytes ?? 0);
        }
        break;
      case "unrecorded":
        unrecorded += line.count;
        break;
    }
  }
  return { day: dayName(day), decisions: [...decisions.values()], certificates, unreadableLines, unrecorded };
}

const newline = 0x0a;

/** The lines of a file; undefined for one that is none. A file that is not there has none. */
export async function* readLines(file: string): AsyncGenerator<DecisionLine | undefined> {
  let handle;
  try {
    // Never a FIFO, which would keep us waiting, nor a link.
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  try {
    if (!(await handle.stat()).isFile()) return;
    let rest = Buffer.alloc(0);
    let isTooLong = false;
    for await (const chunk of handle.createReadStream({ autoClose: false })) {
      if (!(chunk instanceof Buffer)) continue;
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let start = 0;
      for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
        yield isTooLong ? undefined : parseLine(bytes.toString("utf8", start, end));
        isTooLong = false;
        start = end + 1;
      }
      rest = Buffer.from(bytes.subarray(start));
      if (rest.length <= lineBytesMax) continue;
      isTooLong = true;
      rest = Buffer.alloc(0);
    }
    // What has no end yet may be about to get one.
    if (rest.length > 0 || isTooLong) yield isTooLong ? undefined : parseLine(rest.toString("utf8"));
  } finally {
    await handle.close();
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
