/**
 * The decision log: what the receiver's rules said to whom, so that other rules can be tried on the same questions. One
 * file a day, see `decision-record.ts`; those older than a month are removed.
 *
 * Promises: a note costs some microseconds, waits for nothing and never fails; what a peer can make us keep is limited, in
 * number, in size and in memory; strangers take no place from partners. A decision is written when it is first taken
 * that day, within a second or so; how often it was taken again, within a minute. Nothing is synced: a loss of power may
 * cost the last seconds. What the disk does not take is logged once a minute and tried again.
 */
import type { X509Certificate } from "node:crypto";
import { constants } from "node:fs";
import { open, unlink } from "node:fs/promises";
import { resolve } from "node:path";
import { makeFolderDurably } from "../files/durable.ts";
import type { Log } from "../log/log.ts";
import { certificateDigest } from "../partner/pin.ts";
import { readLines, recordedDays } from "./decision-reader.ts";
import {
  certificateLine,
  dayMs,
  decisionId,
  decisionLine,
  decisionsFile,
  decisionsFolder,
  repeatedLines,
  unrecordedLine,
  type Decision,
  type Stage,
} from "./decision-record.ts";

/** Who is told of decisions. Costs next to nothing, and never fails. */
export interface DecisionLog {
  note(decision: Decision): void;
  /** From now on the files are below this audit folder. Never fails. */
  moveTo(auditPath: string): Promise<void>;
  /** Writes what is still to be written. */
  close(): Promise<void>;
}

/** Keeps nothing. */
export const noDecisions: DecisionLog = {
  note: () => undefined,
  moveTo: () => Promise.resolve(),
  close: () => Promise.resolve(),
};

/** Days that are kept, today not counted. */
export const retentionDays = 30;
/** Distinct decisions of a day: in all, of peers whom no pin knows, and of those who were turned away at the greeting. */
export const decisionsMax = { all: 50_000, unknown: 10_000, strangers: 1000 } as const;
const certificatesMax = { all: 20_000, unknown: 1000 } as const;
const certificateBytesMax = 16 * 1024;
/** A day's worth of usual lines. */
const bufferCharactersMax = 32 * 1024 * 1024;
const faultLogMs = 60_000;

export interface DecisionRecorderOptions {
  readonly now: () => Date;
  /** Between two writes of what is new. */
  readonly writeMs?: number;
  /** Between two writes of counts. */
  readonly countMs?: number;
}

type Sort = keyof typeof decisionsMax;

export class DecisionRecorder implements DecisionLog {
  #auditPath: string;
  readonly #log: Log;
  readonly #now: () => Date;
  readonly #countMs: number;
  readonly #timer: NodeJS.Timeout;
  #day: number;
  /** What is in the file of the day: decisions with the most octets that were declared, and certificates. */
  readonly #seen = new Map<string, number>();
  readonly #certificates = new Set<string>();
  readonly #counts = { unknown: 0, strangers: 0, unknownCertificates: 0 };
  /** Since the last write of counts. */
  readonly #repeated = new Map<string, number>();
  readonly #grown = new Map<string, number>();
  #unrecorded = 0;
  #countedAtMs: number;
  /** Not written yet, by day. */
  #buffer: Array<{ readonly day: number; readonly line: string }> = [];
  #bufferCharacters = 0;
  #writing: Promise<void> | undefined;
  #faults = 0;
  #faultLoggedAtMs = -Infinity;
  #state: "open" | "closed" = "open";

  private constructor(auditPath: string, log: Log, options: DecisionRecorderOptions) {
    this.#auditPath = resolve(auditPath);
    this.#log = log;
    this.#now = options.now;
    this.#countMs = options.countMs ?? 60_000;
    this.#countedAtMs = options.now().getTime();
    this.#day = dayOf(options.now());
    this.#timer = setInterval(() => this.#tick(), options.writeMs ?? 1000).unref();
  }

  /** Goes on with the file of today. Never fails: what cannot be read is logged, and is as if it were not there. */
  static async open(auditPath: string, log: Log, options: DecisionRecorderOptions): Promise<DecisionRecorder> {
    const recorder = new DecisionRecorder(auditPath, log, options);
    await recorder.#resume();
    return recorder;
  }

  note(decision: Decision): void {
    if (this.#state === "closed") return;
    const now = this.#now();
    if (dayOf(now) !== this.#day) this.#turnTo(now);
    const id = decisionId(decision);
    const largest = this.#seen.get(id);
    if (largest === undefined) {
      if (!this.#noteFirst(id, decision, now)) this.#unrecorded += 1;
      return;
    }
    this.#repeated.set(id, (this.#repeated.get(id) ?? 0) + 1);
    const declared = decision.declaredBytes ?? 0;
    if (declared <= largest) return;
    this.#seen.set(id, declared);
    this.#grown.set(id, declared);
  }

  async moveTo(auditPath: string): Promise<void> {
    if (resolve(auditPath) === this.#auditPath || this.#state === "closed") return;
    this.#writeCounts(this.#now());
    await this.#writing;
    await this.#write();
    this.#auditPath = resolve(auditPath);
    this.#forget();
    await this.#resume();
  }

  async close(): Promise<void> {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearInterval(this.#timer);
    this.#writeCounts(this.#now());
    await this.#writing;
    await this.#write();
  }

  /** @returns false: there is no place for it. */
  #noteFirst(id: string, decision: Decision, now: Date): boolean {
    const sort = sortOf(decision.stage, decision.partner);
    if (this.#seen.size >= decisionsMax.all || this.#bufferCharacters > bufferCharactersMax) return false;
    if (sort !== "all" && this.#counts[sort] >= decisionsMax[sort]) return false;
    this.#count(id, sort, decision.declaredBytes);
    for (const certificate of decision.chain) this.#noteCertificate(certificate, sort);
    this.#push(decisionLine(id, now, decision));
    return true;
  }

  #count(id: string, sort: Sort, declaredBytes: number | undefined): void {
    this.#seen.set(id, declaredBytes ?? 0);
    if (sort !== "all") this.#counts[sort] += 1;
  }

  /** One that finds no place is missing when the decision is to be taken again, and the reader says so. */
  #noteCertificate(certificate: X509Certificate, sort: Sort): void {
    const digest = certificateDigest(certificate);
    if (this.#certificates.has(digest) || certificate.raw.length > certificateBytesMax) return;
    if (this.#certificates.size >= certificatesMax.all) return;
    if (sort !== "all" && this.#counts.unknownCertificates >= certificatesMax.unknown) return;
    if (sort !== "all") this.#counts.unknownCertificates += 1;
    this.#certificates.add(digest);
    this.#push(certificateLine(digest, certificate));
  }

  #push(line: string): void {
    this.#buffer.push({ day: this.#day, line });
    this.#bufferCharacters += line.length;
  }

  #tick(): void {
    const now = this.#now();
    if (dayOf(now) !== this.#day) this.#turnTo(now);
    else if (Math.abs(now.getTime() - this.#countedAtMs) >= this.#countMs) this.#writeCounts(now);
    if (this.#buffer.length === 0 || this.#writing !== undefined) return;
    this.#writing = this.#write().finally(() => (this.#writing = undefined));
  }

  /** While the disk takes nothing the counts go on in memory. */
  #writeCounts(now: Date): void {
    this.#countedAtMs = now.getTime();
    if (this.#bufferCharacters > bufferCharactersMax) return;
    for (const line of repeatedLines(now, this.#repeated, this.#grown)) this.#push(line);
    if (this.#unrecorded > 0) this.#push(unrecordedLine(now, this.#unrecorded));
    this.#repeated.clear();
    this.#grown.clear();
    this.#unrecorded = 0;
  }

  /** Another day has begun: everything is new. */
  #turnTo(now: Date): void {
    this.#writeCounts(now);
    this.#day = dayOf(now);
    this.#forget();
    this.#removeOld().catch((error: unknown) => this.#fault(error));
  }

  #forget(): void {
    for (const kept of [this.#seen, this.#certificates, this.#repeated, this.#grown]) kept.clear();
    Object.assign(this.#counts, { unknown: 0, strangers: 0, unknownCertificates: 0 });
    this.#unrecorded = 0;
  }

  /** Writes what there is; what the disk does not take stays. */
  async #write(): Promise<void> {
    while (this.#buffer.length > 0) {
      const [{ day } = { day: this.#day }] = this.#buffer;
      const other = this.#buffer.findIndex((entry) => entry.day !== day);
      const taken = this.#buffer.slice(0, other < 0 ? undefined : other);
      try {
        await append(this.#auditPath, day, taken.map(({ line }) => line).join(""));
      } catch (error) {
        this.#fault(error);
        return;
      }
      this.#buffer = this.#buffer.slice(taken.length); // more may have come in between
      this.#bufferCharacters -= taken.reduce((total, { line }) => total + line.length, 0);
    }
  }

  /** Knows what the file of the day holds already. */
  async #resume(): Promise<void> {
    try {
      for await (const line of readLines(decisionsFile(this.#auditPath, this.#day))) {
        if (line?.kind === "certificate") this.#certificates.add(line.digest);
        if (line?.kind !== "decision") continue;
        const { id, stage, partner, declaredBytes } = line.decision;
        if (!this.#seen.has(id)) this.#count(id, sortOf(stage, partner), declaredBytes);
      }
      await this.#removeOld();
    } catch (error) {
      this.#fault(error);
    }
  }

  async #removeOld(): Promise<void> {
    const oldest = dayOf(this.#now()) - retentionDays;
    for (const day of await recordedDays(this.#auditPath)) {
      if (day < oldest) await unlink(decisionsFile(this.#auditPath, day));
    }
  }

  #fault(error: unknown): void {
    this.#faults += 1;
    const nowMs = performance.now();
    if (nowMs - this.#faultLoggedAtMs < faultLogMs) return;
    this.#faultLoggedAtMs = nowMs;
    this.#log.error({
      event: "fault",
      during: "recording decisions",
      faults: this.#faults,
      err: error instanceof Error ? error : new Error(String(error)),
    });
  }
}

async function append(auditPath: string, day: number, text: string): Promise<void> {
  const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  const flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW;
  const file = decisionsFile(auditPath, day);
  const handle = await open(file, flags, 0o600).catch(async (error: unknown) => {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
    await makeFolderDurably(decisionsFolder(auditPath));
    return open(file, flags, 0o600);
  });
  try {
    const { size } = await handle.stat();
    const last = size === 0 ? undefined : (await handle.read(Buffer.alloc(1), 0, 1, size - 1)).buffer[0];
    try {
      // Somebody may have died in the middle of the last line.
      await handle.writeFile(`${last === undefined || last === 0x0a ? "" : "\n"}${text}`);
    } catch (error) {
      await handle.truncate(size).catch(() => undefined); // or what is tried again would be there twice
      throw error;
    }
  } finally {
    await handle.close();
  }
}

function sortOf(stage: Stage, partner: string | undefined): Sort {
  if (stage === "greeting") return "strangers";
  return partner === undefined ? "unknown" : "all";
}

function dayOf(now: Date): number {
  return Math.floor(now.getTime() / dayMs);
}
