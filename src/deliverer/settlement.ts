/**
 * What is to be done with a message after an attempt: who is settled, who waits until when, who is to be told what.
 * Pure: the clock and chance are passed in.
 */
import { isReportable, wantsReport, type ReportedRecipient } from "../mail/dsn.ts";
import { isExpired, nextAttemptAt, warnDue } from "../mail/schedule.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { ClaimedMessage, Deferral, RecipientIndex } from "../spool/spool.ts";
import type { DeliveryOutcome } from "./outcome.ts";

/** The result of a recipient's attempt. */
export interface AttemptedRecipient {
  readonly index: RecipientIndex;
  readonly route: string | null;
  readonly server: string | null;
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
  const { meta, pending } = message;
  const arrivedAt = new Date(meta.receivedAtMs);
  const failed: RecipientIndex[] = [];
  const deferred: Deferral[] = [...untried];
  const reports: ReportedRecipient[] = [];
  let delayReported = message.delayReported;
  const late: ReportedRecipient[] = [];
  for (const { index, route, server, outcome, retryAtMs } of attempted) {
    const attempts = (pending.find((recipient) => recipient.index === index)?.attempts ?? 0) + 1;
    const history = { attempts, arrivedAt, now };
    const recipient = meta.envelope.recipients[index];
    if (recipient === undefined) continue;
    const told = { recipient, lastAttemptAt: now, ...remoteOf(server, outcome) };
    if (outcome.kind === "delivered") {
      // Who asked for a report of success, of a next hop that cannot give it, hears from us that it was relayed.
      if (!outcome.dsnPassedOn && wantsReport(recipient, "relayed")) {
        reports.push({
          ...told,
          action: "relayed",
          status: "2.0.0",
          explanation: "It was relayed to a server that sends no such reports.",
        });
      }
      continue;
    }
    const expired = outcome.kind === "temporary" && isExpired({ ...history, expireMs: retry.expireMs });
    if (outcome.kind === "failed" || expired) {
      failed.push(index);
      if (wantsReport(recipient, "failed")) {
        reports.push({
          ...told,
          action: "failed",
          status: expired ? "4.4.7" : outcome.status,
          explanation: explanation(outcome, expired),
        });
      }
      continue;
    }
    const scheduledMs = nextAttemptAt({
      ...history,
      scheduleMs: retry.scheduleMs,
      expireMs: retry.expireMs,
      random,
    }).getTime();
    // A server that is being left alone is not worth an attempt before; one that is due to be probed may be tried early.
    const nextAttemptAtMs = retryAtMs === undefined ? scheduledMs : Math.max(scheduledMs, retryAtMs);
    deferred.push({ index, route, attempts, nextAttemptAtMs });
    const warnedAt = message.delayReported ? arrivedAt : undefined;
    if (wantsReport(recipient, "delayed") && warnDue({ ...history, warnAfterMs: retry.warnAfterMs, warnedAt })) {
      const retryUntil = new Date(meta.receivedAtMs + retry.expireMs);
      late.push({
        ...told,
        action: "delayed",
        status: outcome.status,
        explanation: explanation(outcome, false),
        retryUntil,
      });
    }
  }
  if (late.length > 0) {
    delayReported = true;
    reports.push(...late);
  }
  return {
    failed,
    deferred,
    reports: isReportable(meta.envelope) ? reports : reports.filter(isFailure),
    delayReported,
  };
}

/** About a report only its failure is told, and that to our postmaster. */
function isFailure({ action }: ReportedRecipient): boolean {
  return action === "failed";
}

function remoteOf(server: string | null, outcome: DeliveryOutcome): Pick<ReportedRecipient, "remote"> {
  if (server === null) return {};
  if (outcome.kind === "delivered") return { remote: { name: server, reply: outcome.reply } };
  return outcome.remote ? { remote: { name: server, reply: outcome.text } } : { remote: { name: server } };
}

function explanation(outcome: Exclude<DeliveryOutcome, { kind: "delivered" }>, expired: boolean): string {
  if (expired) return "It could not be delivered in time, and is not tried any more.";
  return outcome.remote ? "The next server refused it." : outcome.text;
}
