/**
 * The lines of the decision log: one JSON object each, in one file a day (UTC), `decisions/YYYY-MM-DD.jsonl` below the
 * audit folder. A file explains itself: it holds every certificate that its decisions speak of.
 *
 * - `certificate`: digest and PEM, the first time that it was shown that day;
 * - `decision`: what was asked, by whom, and what was said, the first time that day, with an id;
 * - `repeated`: how often those with these ids were taken again since the last such line;
 * - `unrecorded`: how many decisions found no place.
 *
 * Promises: what a peer wrote is cut; a line that is torn, or is not ours, is none. Pure.
 */
import { hash, type X509Certificate } from "node:crypto";
import { join } from "node:path";
import { certificateDigest } from "../partner/pin.ts";
import { jsonLine } from "./operator-journal.ts";

/** Where in a session: at the greeting everybody has an address and nothing else. */
export const stages = ["greeting", "mail", "recipient"] as const;
export type Stage = (typeof stages)[number];

/** What was asked of the rules, and what they said. */
export interface Decision {
  readonly stage: Stage;
  readonly address: string;
  /** What the peer showed, leaf first; empty: nothing. */
  readonly chain: readonly X509Certificate[];
  /** The key exchange. */
  readonly group?: string | undefined;
  readonly helo?: string | undefined;
  /** Reverse-path without angle brackets; undefined where it could not be read. */
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly smtpUtf8?: boolean;
  /** SIZE as declared, at MAIL. */
  readonly declaredBytes?: number | undefined;
  /** Its name. */
  readonly reply: string;
  readonly partner?: string | undefined;
  /** The rule that decided; asked for only where the decision is new. */
  readonly rule?: () => string | undefined;
}

/** A decision as it was read: once for all its repetitions of a day. */
export interface RecordedDecision extends Omit<Decision, "chain" | "rule" | "declaredBytes"> {
  readonly id: string;
  /** When it was first taken that day. */
  readonly at: Date;
  /** The digests of the certificates. */
  readonly chain: readonly string[];
  readonly rule: string | undefined;
  /** The largest. */
  declaredBytes: number | undefined;
  count: number;
}

export type DecisionLine =
  | { readonly kind: "certificate"; readonly digest: string; readonly pem: string }
  | { readonly kind: "decision"; readonly decision: RecordedDecision }
  | {
      readonly kind: "repeated";
      readonly counts: ReadonlyArray<readonly [id: string, count: number]>;
      /** Of those that declared more than ever before that day. */
      readonly declaredBytes: ReadonlyArray<readonly [id: string, bytes: number]>;
    }
  | { readonly kind: "unrecorded"; readonly count: number };

/** No line of ours is longer. */
export const lineBytesMax = 64 * 1024;
const textMax = 512;
const repeatsPerLine = 1000;

export function decisionsFolder(auditPath: string): string {
  return join(auditPath, "decisions");
}

/** @param day days since 1970, UTC. */
export function decisionsFile(auditPath: string, day: number): string {
  return join(decisionsFolder(auditPath), `${dayName(day)}.jsonl`);
}

export function dayName(day: number): string {
  return new Date(day * dayMs).toISOString().slice(0, 10);
}

/** The day that a file of the folder is about; undefined for what is no file of ours. */
export function dayOfFile(name: string): number | undefined {
  const day = /^(\d{4}-\d\d-\d\d)\.jsonl$/.exec(name)?.[1];
  const ms = day === undefined ? Number.NaN : Date.parse(`${day}T00:00:00Z`);
  return Number.isNaN(ms) ? undefined : ms / dayMs;
}

export const dayMs = 86_400_000;

/** Equal where the same was asked by the same and answered in the same way; 96 bits are enough to tell them apart. */
export function decisionId(decision: Decision): string {
  const { stage, address, chain, group, from, to, smtpUtf8, reply, partner } = decision;
  const key = `${stage}\0${address}\0${chainKey(chain)}\0${group ?? ""}\0${from ?? "\0"}\0${to ?? ""}\0${smtpUtf8 === true}\0${reply}\0${partner ?? ""}`;
  return hash("sha256", key, "base64url").slice(0, 16);
}

/** A session shows the same chain at every MAIL. */
const chainKeys = new WeakMap<readonly X509Certificate[], string>();

function chainKey(chain: readonly X509Certificate[]): string {
  const known = chainKeys.get(chain) ?? chain.map(certificateDigest).join(" ");
  chainKeys.set(chain, known);
  return known;
}

export function certificateLine(digest: string, certificate: X509Certificate): string {
  return jsonLine({ kind: "certificate", digest, pem: certificate.toString() });
}

export function decisionLine(id: string, at: Date, decision: Decision): string {
  const { stage, address, chain, group, helo, from, to, smtpUtf8, declaredBytes, reply, partner, rule } = decision;
  return jsonLine({
    kind: "decision",
    id,
    at: at.toISOString(),
    stage,
    address: cut(address),
    chain: chain.map(certificateDigest),
    group: cut(group),
    helo: cut(helo),
    from: cut(from),
    to: cut(to),
    smtpUtf8: smtpUtf8 === true ? true : undefined,
    declaredBytes,
    reply,
    partner,
    rule: cut(rule?.()),
    count: 1,
  });
}

export function repeatedLines(
  at: Date,
  counts: ReadonlyMap<string, number>,
  declaredBytes: ReadonlyMap<string, number>,
): string[] {
  const entries = [...counts];
  const lines: string[] = [];
  for (let from = 0; from < entries.length; from += repeatsPerLine) {
    const some = entries.slice(from, from + repeatsPerLine);
    const grown = some.flatMap(([id]) => {
      const bytes = declaredBytes.get(id);
      return bytes === undefined ? [] : [[id, bytes] as const];
    });
    lines.push(
      jsonLine({
        kind: "repeated",
        at: at.toISOString(),
        counts: Object.fromEntries(some),
        declaredBytes: grown.length === 0 ? undefined : Object.fromEntries(grown),
      }),
    );
  }
  return lines;
}

export function unrecordedLine(at: Date, count: number): string {
  return jsonLine({ kind: "unrecorded", at: at.toISOString(), count });
}

/** Undefined for what is no line of ours. */
export function parseLine(text: string): DecisionLine | undefined {
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(record)) return undefined;
  switch (record.kind) {
    case "certificate": {
      const { digest, pem } = record;
      return typeof digest === "string" && typeof pem === "string" ? { kind: "certificate", digest, pem } : undefined;
    }
    case "decision": {
      const decision = parseDecision(record);
      return decision === undefined ? undefined : { kind: "decision", decision };
    }
    case "repeated": {
      const counts = parseNumbers(record.counts);
      const declaredBytes = parseNumbers(record.declaredBytes ?? {});
      if (counts === undefined || declaredBytes === undefined) return undefined;
      return { kind: "repeated", counts, declaredBytes };
    }
    case "unrecorded":
      return isCount(record.count) ? { kind: "unrecorded", count: record.count } : undefined;
    // oxlint-disable-next-line no-fallthrough -- no union: it comes out of a file
    default:
      return undefined;
  }
}

function parseDecision(record: Readonly<Record<string, unknown>>): RecordedDecision | undefined {
  const { id, at, stage: stageName, address, chain, reply, count, declaredBytes } = record;
  const stage = stages.find((one) => one === stageName);
  if (typeof id !== "string" || typeof at !== "string" || stage === undefined) return undefined;
  if (typeof address !== "string" || typeof reply !== "string" || !isCount(count)) return undefined;
  if (!Array.isArray(chain) || !chain.every((digest) => typeof digest === "string")) return undefined;
  const when = new Date(at);
  if (Number.isNaN(when.getTime())) return undefined;
  const text = (value: unknown) => (typeof value === "string" ? value : undefined);
  return {
    id,
    at: when,
    stage,
    address,
    chain,
    group: text(record.group),
    helo: text(record.helo),
    from: text(record.from),
    to: text(record.to),
    smtpUtf8: record.smtpUtf8 === true,
    declaredBytes: isCount(declaredBytes) ? declaredBytes : undefined,
    reply,
    partner: text(record.partner),
    rule: text(record.rule),
    count,
  };
}

function parseNumbers(value: unknown): Array<[string, number]> | undefined {
  if (!isRecord(value)) return undefined;
  const numbers: Array<[string, number]> = [];
  for (const [key, number] of Object.entries(value)) {
    if (!isCount(number)) return undefined;
    numbers.push([key, number]);
  }
  return numbers;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function cut<T extends string | undefined>(text: T): T | string {
  return text !== undefined && text.length > textMax ? `${text.slice(0, textMax)}…` : text;
}
