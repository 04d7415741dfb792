/**
 * Replays the decision log and gathers what would change: each change once, however often and on however many days.
 * Memory is bounded by one day of the log and by the number of different changes.
 */
import { X509Certificate } from "node:crypto";
import { readDecisions } from "../audit/decision-reader.ts";
import type { RecordedDecision } from "../audit/decision-record.ts";
import { isSameOutcome, outcomeText, recordedOutcome, type Outcome, type Replay } from "../receiver/replay.ts";
import { Places, type FoundGround } from "./places.ts";

/** One side of a change. */
export interface Side {
  /** The reply's name. */
  readonly name: Outcome["reply"];
  readonly reply: string;
  readonly partner: string | null;
  readonly rule: FoundGround | null;
}

export interface Change {
  count: number;
  readonly stage: RecordedDecision["stage"];
  readonly address: string;
  /** Of the certificate; null where none was shown. */
  readonly subject: string | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly before: Side;
  readonly after: Side;
}

/** How often, over all repetitions. */
export interface Counts {
  days: number;
  replayed: number;
  changed: number;
  /** Refused by limits: no rule decided. */
  limited: number;
  /** Their certificates are not in the log. */
  withoutCertificate: number;
  /** There was no place for them in the log. */
  unrecorded: number;
  unreadableLines: number;
}

export interface Changes {
  readonly counts: Counts;
  /** The most frequent first. */
  readonly changes: readonly Change[];
}

export interface ChangesPlan {
  readonly auditPath: string;
  readonly since: Date;
  /** In place of the recorded replies. */
  readonly before: Replay | undefined;
  readonly after: Replay;
  /** Is told now and then how many have been replayed. */
  readonly progress: (decisions: number) => void;
}

const progressEvery = 2000;

export async function findChanges(plan: ChangesPlan): Promise<Changes> {
  const counts: Counts = {
    days: 0,
    replayed: 0,
    changed: 0,
    limited: 0,
    withoutCertificate: 0,
    unrecorded: 0,
    unreadableLines: 0,
  };
  const changes = new Map<string, Change>();
  const places = new Places();
  const chains = new Chains();
  let done = 0;
  for await (const { decisions, certificates, unreadableLines, unrecorded } of readDecisions(
    plan.auditPath,
    plan.since,
  )) {
    counts.days += 1;
    counts.unreadableLines += unreadableLines;
    counts.unrecorded += unrecorded;
    for (const decision of decisions) {
      if (done++ % progressEvery === 0) plan.progress(done);
      const chain = chains.of(decision.chain, certificates);
      if (chain === undefined) {
        counts.withoutCertificate += decision.count;
        continue;
      }
      const judgedBefore = plan.before?.outcome(decision, chain);
      const before = judgedBefore ?? recordedOutcome(decision);
      if (before === undefined) counts.unreadableLines += 1;
      else if (before === "limited") counts.limited += decision.count;
      if (before === undefined || before === "limited") continue;
      const after = plan.after.outcome(decision, chain);
      counts.replayed += decision.count;
      if (isSameOutcome(before, after)) continue;
      counts.changed += decision.count;
      const rule = judgedBefore === undefined ? recordedRule(decision) : await places.find(judgedBefore.ground);
      add(changes, {
        count: decision.count,
        stage: decision.stage,
        address: decision.address,
        subject: subjectOf(chain[0]),
        from: decision.from ?? null,
        to: decision.to ?? null,
        before: sideOf(before, rule),
        after: sideOf(after, await places.find(after.ground)),
      });
    }
  }
  return { counts, changes: [...changes.values()].toSorted((a, b) => b.count - a.count) };
}

function recordedRule({ rule }: RecordedDecision): FoundGround | null {
  return rule === undefined ? null : { text: rule };
}

function sideOf(outcome: Outcome, rule: FoundGround | null): Side {
  return { name: outcome.reply, reply: outcomeText(outcome), partner: outcome.partner ?? null, rule };
}

function add(changes: Map<string, Change>, change: Change): void {
  const { count, ...what } = change;
  const key = JSON.stringify(what);
  const known = changes.get(key);
  if (known === undefined) changes.set(key, change);
  else known.count += count;
}

function subjectOf(leaf: X509Certificate | undefined): string | null {
  if (leaf === undefined) return null;
  const subject: string | undefined = leaf.subject; // typed as text, and undefined in a certificate that has none
  return subject?.replaceAll("\n", ", ") ?? "";
}

/** One object for each chain. */
class Chains {
  readonly #certificates = new Map<string, X509Certificate>();
  readonly #chains = new Map<string, readonly X509Certificate[]>();

  /** Undefined where a certificate is missing, or is none. */
  of(digests: readonly string[], pems: ReadonlyMap<string, string>): readonly X509Certificate[] | undefined {
    const key = digests.join(" ");
    const known = this.#chains.get(key);
    if (known !== undefined) return known;
    const chain = digests.flatMap((digest) => this.#certificate(digest, pems) ?? []);
    if (chain.length < digests.length) return undefined;
    this.#chains.set(key, chain);
    return chain;
  }

  #certificate(digest: string, pems: ReadonlyMap<string, string>): X509Certificate | undefined {
    const known = this.#certificates.get(digest);
    const pem = pems.get(digest);
    if (known !== undefined || pem === undefined) return known;
    try {
      const certificate = new X509Certificate(pem);
      this.#certificates.set(digest, certificate);
      return certificate;
    } catch {
      return undefined;
    }
  }
}
