/**
 * What is to be done with a message after an attempt: who is settled, who waits until when, who is to be told what.
 * Pure: the clock and chance are passed in.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import type { Recipient } from "../mail/envelope.ts";
import { isReportable, wantsReport, type ReportedRecipient } from "../mail/dsn.ts";
import { isExpired, nextAttemptAt, warnDue } from "../mail/schedule.ts";
import type { NextHop } from "../partner/partner.ts";
import type { AttemptRecord, ClaimedMessage, Deferral, RecipientIndex } from "../spool/spool.ts";
import { serverText, type DeliveryOutcome } from "./outcome.ts";

/** The result of a recipient's attempt. */
export interface AttemptedRecipient {
  readonly index: RecipientIndex;
  readonly route: string | null;
  readonly hop: NextHop | null;
  readonly outcome: DeliveryOutcome;
  readonly retryAtMs?: number | undefined;
}

export interface Settlement {
  readonly failed: readonly RecipientIndex[];
  readonly deferred: readonly Deferral[];
  /** Who is reported on, in one report. */
  readonly reports: readonly ReportedRecipient[];
  readonly delayReported: boolean;
}

export function settlementOf(
  message: ClaimedMessage,
  attempted: readonly AttemptedRecipient[],
  untried: readonly Deferral[],
  retry: RelayConfig["retry"],
  now: Date,
  random: () => number,
): Settlement {
  const { meta, pending, delayReported } = message;
  const arrivedAt = new Date(meta.receivedAtMs);
  const isOrdinary = isReportable(meta.envelope);
  const failed: RecipientIndex[] = [];
  const deferred: Deferral[] = [...untried];
  const reports: ReportedRecipient[] = [];
  for (const { index, route, hop, outcome, retryAtMs } of attempted) {
    const attempts = (pending.find((recipient) => recipient.index === index)?.attempts ?? 0) + 1;
    const history = { attempts, arrivedAt, now };
    const recipient = meta.envelope.recipients[index];
    if (recipient === undefined) continue;
    const told = { recipient, lastAttemptAt: now, ...remoteOf(hop, outcome) };
    if (outcome.kind === "delivered") {
      // Who asked for a report of success, of a next hop that cannot give it, hears from us that it was relayed.
      if (isOrdinary && !outcome.dsnPassedOn && wantsReport(recipient, "relayed")) {
        const explanation = "It was relayed to a server that sends no such reports.";
        reports.push({ ...told, action: "relayed", status: "2.0.0", explanation });
      }
      continue;
    }
    const expired = outcome.kind === "temporary" && isExpired({ ...history, expireMs: retry.expireMs });
    if (outcome.kind === "failed" || expired) {
      failed.push(index);
      if (tellsFailure(recipient, isOrdinary)) {
        const explanation = expired ? "It could not be delivered in time, and is not tried any more." : said(outcome);
        reports.push({ ...told, action: "failed", status: expired ? "4.4.7" : outcome.status, explanation });
      }
      continue;
    }
    deferred.push({ index, route, attempts, nextAttemptAtMs: nextAttemptMs(history, retry, random, retryAtMs) });
    const warnedAt = delayReported ? arrivedAt : undefined;
    if (
      isOrdinary &&
      wantsReport(recipient, "delayed") &&
      warnDue({ ...history, warnAfterMs: retry.warnAfterMs, warnedAt })
    ) {
      const retryUntil = new Date(meta.receivedAtMs + retry.expireMs);
      reports.push({ ...told, action: "delayed", status: outcome.status, explanation: said(outcome), retryUntil });
    }
  }
  const isDelayTold = reports.some(({ action }) => action === "delayed");
  return { failed, deferred, reports, delayReported: delayReported || isDelayTold };
}

/**
 * Of a message from nowhere (a report) only the failure is told, to our postmaster, and always: what it asks for with
 * NOTIFY=NEVER is that its sender be spared, and nobody else knows of it.
 */
function tellsFailure(recipient: Recipient, isOrdinary: boolean): boolean {
  return !isOrdinary || wantsReport(recipient, "failed");
}

/**
 * A server that is being left alone is not worth an attempt before; one that is due to be probed may be tried early. No
 * attempt is further away than the schedule's longest delay: that is how a clock which was set back is told.
 */
function nextAttemptMs(
  history: { readonly attempts: number; readonly arrivedAt: Date; readonly now: Date },
  { scheduleMs, expireMs }: RelayConfig["retry"],
  random: () => number,
  retryAtMs: number | undefined,
): number {
  const scheduled = nextAttemptAt({ ...history, scheduleMs, expireMs, random }).getTime();
  const latestMs = history.now.getTime() + Math.max(...scheduleMs);
  return retryAtMs === undefined ? scheduled : Math.max(scheduled, Math.min(retryAtMs, latestMs));
}

/** The server by its name only: its address is nobody's business. */
function remoteOf(hop: NextHop | null, outcome: DeliveryOutcome): Pick<ReportedRecipient, "remote"> {
  if (hop === null) return {};
  const name = hop.name ?? "";
  if (outcome.kind === "delivered") return { remote: { name, reply: outcome.reply } };
  return outcome.remote ? { remote: { name, reply: outcome.text } } : { remote: { name } };
}

/** For the sender: what our log says about a failed connection has addresses and paths of ours in it. */
function said(outcome: Exclude<DeliveryOutcome, { kind: "delivered" }>): string {
  if (outcome.remote) return "The next server refused it.";
  if (outcome.kind === "failed") return outcome.text;
  switch (outcome.status) {
    case "4.4.1":
      return "The next server could not be reached.";
    case "4.4.2":
      return "The connection to the next server broke.";
    case "4.4.4":
      return "There is no way to this domain at the moment.";
    case "4.7.5":
      return "No secure connection to the next server could be made.";
    default:
      return "It could not be passed on at the moment.";
  }
}

/** Recipients that were told the same by the same server, together. */
export function grouped(
  attempted: readonly AttemptedRecipient[],
): Array<AttemptedRecipient & { recipients: RecipientIndex[] }> {
  const groups = new Map<string, AttemptedRecipient & { recipients: RecipientIndex[] }>();
  for (const entry of attempted) {
    const key = JSON.stringify([entry.route, entry.hop === null ? null : serverText(entry.hop), entry.outcome]);
    const group = groups.get(key) ?? { ...entry, recipients: [] };
    group.recipients.push(entry.index);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** What `queue show` will tell of the attempt. */
export function attemptRecords(attempted: readonly AttemptedRecipient[], now: Date): AttemptRecord[] {
  return grouped(attempted).map(({ hop, outcome, recipients }) => ({
    atMs: now.getTime(),
    recipients,
    server: hop === null ? null : serverText(hop),
    text: outcome.kind === "delivered" ? outcome.reply : outcome.text,
  }));
}
