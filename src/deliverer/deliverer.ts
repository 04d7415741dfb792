/**
 * The deliverer: takes messages from the spool, sends them by their routes, settles each recipient, reports, and puts back
 * what has to wait. It dials the configured addresses and nothing else, and listens nowhere.
 *
 * Promises: a recipient's mark is written when the next hop has answered, before anything else; a report is on stable
 * storage before its failure is marked; what is claimed is bounded; one lane waits for no other.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import type { ForwardPath, Mailbox } from "../mail/address.ts";
import type { ReportedRecipient } from "../mail/dsn.ts";
import type { Route } from "../partner/partner.ts";
import { RouteTable } from "../partner/policy.ts";
import {
  SpoolFault,
  type AttemptRecord,
  type ClaimedMessage,
  type Deferral,
  type RecipientIndex,
  type Spool,
} from "../spool/spool.ts";
import type { AddressedRecipient } from "./client.ts";
import { Lane, type JobResult } from "./lane.ts";
import { report } from "./report.ts";
import { settlementOf, type AttemptedRecipient } from "./settlement.ts";

export interface DelivererOptions {
  readonly config: RelayConfig;
  readonly spool: Spool;
  readonly log: Log;
  readonly now?: () => Date;
  readonly random?: () => number;
}

/** Messages in hand at once; and how many of them may wait for one lane, so that the others get theirs. */
const inHandMax = 1_000;
const waitingPerLaneMax = 200;
const scanIntervalMs = 1_000;
/** After a fault of the spool: how long before it is tried again. */
const faultPauseMs = 5_000;

export class Deliverer {
  readonly #config: RelayConfig;
  readonly #spool: Spool;
  readonly #log: Log;
  readonly #now: () => Date;
  readonly #random: () => number;
  readonly #routes: RouteTable;
  readonly #partnerRoutes: ReadonlyMap<string, Route>;
  readonly #lanes = new Map<string, Lane>();
  readonly #underWay = new Set<Promise<void>>();
  #inHand = 0;
  #filling: Promise<void> | undefined;
  #fillAgain = false;
  #stopping = false;
  #timer: NodeJS.Timeout | undefined;
  #watcher: { close(): void } | undefined;

  constructor({ config, spool, log, now, random }: DelivererOptions) {
    this.#config = config;
    this.#spool = spool;
    this.#log = log;
    this.#now = now ?? (() => new Date());
    this.#random = random ?? Math.random;
    this.#routes = new RouteTable(config.routes, config.partners);
    this.#partnerRoutes = new Map(
      config.partners.flatMap(({ name, deliver }) => (deliver ? [[name, deliver] as const] : [])),
    );
  }

  start(): void {
    this.#watcher = this.#spool.watch(() => this.#fill());
    this.#timer = setInterval(() => this.#fill(), scanIntervalMs);
    this.#fill();
  }

  /** Finishes what is under way, puts the rest back, and resolves when nothing is in hand. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    this.#watcher?.close();
    await this.#filling;
    for (const lane of this.#lanes.values()) {
      for (const job of lane.stop()) job.done({ server: null, outcomes: new Map() });
    }
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** What is in hand, for `status`. */
  get inHand(): number {
    return this.#inHand;
  }

  // ── taking ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #fill(): void {
    this.#fillAgain = true;
    this.#filling ??= this.#fillUp().finally(() => {
      this.#filling = undefined;
    });
  }

  async #fillUp(): Promise<void> {
    while (this.#fillAgain && !this.#stopping) {
      this.#fillAgain = false;
      try {
        await this.#claim();
      } catch (error) {
        this.#log.error({ event: "spool fault", error: errorText(error) });
        await new Promise((resolve) => setTimeout(resolve, faultPauseMs).unref());
      }
    }
  }

  async #claim(): Promise<void> {
    const nowMs = this.#now().getTime();
    const due = await this.#spool.claimDue({ nowMs, countMax: this.#room(), busyRoutes: this.#busyRoutes() });
    for (const message of due) this.#dispatch(message);
    const fresh = await this.#spool.claimNew({ nowMs, countMax: this.#room() });
    for (const message of fresh) this.#dispatch(message);
    // As long as something comes there may be more.
    if (due.length + fresh.length > 0 && this.#room() > 0) this.#fillAgain = true;
  }

  #room(): number {
    return Math.max(0, inHandMax - this.#inHand);
  }

  #busyRoutes(): string[] {
    return [...this.#lanes].flatMap(([name, lane]) => (lane.waiting >= waitingPerLaneMax / 2 ? [name] : []));
  }

  // ── sending ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #dispatch(message: ClaimedMessage): void {
    this.#inHand += 1;
    const work = this.#deliver(message)
      .catch((error: unknown) => {
        // Claimed and not put back: a restart finds it. What is here is a fault of the spool or a bug.
        this.#log.error({ event: "message stuck", id: message.meta.id, error: errorText(error) });
      })
      .finally(() => {
        this.#inHand -= 1;
        this.#underWay.delete(work);
        if (this.#inHand < inHandMax / 2) this.#fill();
      });
    this.#underWay.add(work);
  }

  async #deliver(message: ClaimedMessage): Promise<void> {
    const { jobs, untried, attempted } = this.#plan(message);
    const results = await Promise.all(jobs.map(({ route, recipients }) => this.#attempt(message, route, recipients)));
    const damaged = results.find((result) => result.damaged !== undefined)?.damaged;
    if (damaged !== undefined) {
      await this.#spool.setAside(message, damaged);
      return;
    }
    for (const result of results) {
      attempted.push(...result.attempted);
      untried.push(...result.untried);
    }
    await this.#conclude(message, attempted, untried);
  }

  /** Sorts the recipients: into transactions by route, those that are not due, and those that have no route. */
  #plan(message: ClaimedMessage): {
    jobs: Array<{ route: Route; recipients: AddressedRecipient[] }>;
    untried: Deferral[];
    attempted: AttemptedRecipient[];
  } {
    const jobs = new Map<string, { route: Route; recipients: AddressedRecipient[] }>();
    const untried: Deferral[] = [];
    const attempted: AttemptedRecipient[] = [];
    const nowMs = this.#now().getTime();
    for (const { index, attempts, nextAttemptAtMs } of message.pending) {
      const path = message.meta.envelope.recipients[index]?.path;
      const mailbox = path === undefined ? undefined : this.#mailboxOf(path);
      const route = mailbox === undefined ? undefined : this.#routeFor(message, mailbox);
      if (nextAttemptAtMs > nowMs && nextAttemptAtMs - nowMs <= Math.max(...this.#config.retry.scheduleMs)) {
        untried.push({ index, attempts, nextAttemptAtMs, route: route === undefined ? null : laneKey(route) });
      } else if (mailbox === undefined || route === undefined) {
        const outcome = {
          kind: "temporary",
          status: "4.4.4",
          text: "No route leads to this domain",
          remote: false,
        } as const;
        attempted.push({ index, route: null, server: null, outcome });
      } else {
        const job = jobs.get(laneKey(route)) ?? { route, recipients: [] };
        job.recipients.push({ index, mailbox });
        jobs.set(laneKey(route), job);
      }
    }
    return { jobs: [...jobs.values()], untried, attempted };
  }

  #mailboxOf(path: ForwardPath): Mailbox {
    return path.kind === "postmaster" ? this.#config.postmaster : path.mailbox;
  }

  /** Our own domains inside; a report to a partner by that partner's servers. Nothing leads from partner to partner. */
  #routeFor({ meta }: ClaimedMessage, mailbox: Mailbox): Route | undefined {
    if (meta.toPartner !== null) return this.#partnerRoutes.get(meta.toPartner);
    return this.#routes.internal(mailbox.domain);
  }

  async #attempt(
    message: ClaimedMessage,
    route: Route,
    recipients: readonly AddressedRecipient[],
  ): Promise<{ attempted: AttemptedRecipient[]; untried: Deferral[]; damaged?: string | undefined }> {
    const lane = this.#lane(route);
    const waiting = (index: RecipientIndex): Deferral => ({
      index,
      route: laneKey(route),
      attempts: message.pending.find((recipient) => recipient.index === index)?.attempts ?? 0,
      nextAttemptAtMs: this.#now().getTime(),
    });
    // A lane that is full takes its turn later, so that it does not fill the hands of all others.
    if (lane.waiting >= waitingPerLaneMax || this.#stopping) {
      return { attempted: [], untried: recipients.map(({ index }) => waiting(index)) };
    }
    const partner = message.meta.partner ?? "";
    const result = await new Promise<JobResult>((done) =>
      lane.add(partner, {
        message,
        recipients,
        done: (outcome) => {
          this.#markDelivered(message, outcome);
          done(outcome);
        },
      }),
    );
    const attempted: AttemptedRecipient[] = [];
    const untried: Deferral[] = [];
    for (const { index } of recipients) {
      const outcome = result.outcomes.get(index);
      if (outcome === undefined) untried.push(waiting(index));
      else
        attempted.push({ index, route: laneKey(route), server: result.server, outcome, retryAtMs: result.retryAtMs });
    }
    return { attempted, untried, damaged: result.damaged };
  }

  /** At once when the next hop has answered: a kill from here on repeats nothing. */
  #markDelivered(message: ClaimedMessage, { outcomes }: JobResult): void {
    const delivered = [...outcomes].flatMap(([index, { kind }]) => (kind === "delivered" ? [index] : []));
    if (delivered.length > 0) this.#spool.settle(message, delivered, "delivered");
  }

  // ── settling ───────────────────────────────────────────────────────────────────────────────────────────────────────

  async #conclude(
    message: ClaimedMessage,
    attempted: readonly AttemptedRecipient[],
    untried: readonly Deferral[],
  ): Promise<void> {
    const now = this.#now();
    const settlement = settlementOf(message, attempted, untried, this.#config.retry, now, this.#random);
    this.#logAttempts(message, attempted);
    if (settlement.reports.length > 0) await this.#report(message, settlement.reports);
    if (settlement.failed.length > 0) this.#spool.settle(message, settlement.failed, "failed");
    await this.#spool.putBack(message, {
      deferred: settlement.deferred,
      attempts: attemptRecords(attempted, now),
      delayReported: settlement.delayReported,
    });
  }

  /** A report that cannot be written is tried until it can: what was accepted must not vanish without a word. */
  async #report(message: ClaimedMessage, recipients: readonly ReportedRecipient[]): Promise<void> {
    for (;;) {
      try {
        const context = { config: this.#config, dropBox: this.#spool.dropBox, now: this.#now };
        const id = await report(message, recipients, context);
        const actions = recipients.map(({ action }) => action);
        this.#log.info({
          event: id === undefined ? "report undeliverable" : "report",
          id: message.meta.id,
          report: id,
          actions,
        });
        return;
      } catch (error) {
        if (!(error instanceof SpoolFault) || error.kind === "damaged" || this.#stopping) throw error;
        this.#log.error({ event: "spool fault", id: message.meta.id, error: error.message });
        await new Promise((resolve) => setTimeout(resolve, faultPauseMs));
      }
    }
  }

  #logAttempts({ meta }: ClaimedMessage, attempted: readonly AttemptedRecipient[]): void {
    for (const { route, server, outcome, recipients } of grouped(attempted)) {
      this.#log.info({
        event: outcome.kind === "delivered" ? "delivered" : outcome.kind === "failed" ? "failed" : "deferred",
        id: meta.id,
        partner: meta.partner,
        route,
        server,
        recipients,
        delayMs: this.#now().getTime() - meta.receivedAtMs,
        remote: { text: outcome.kind === "delivered" ? outcome.reply : outcome.text },
      });
    }
  }

  #lane(route: Route): Lane {
    const key = laneKey(route);
    const options = { hostname: this.#config.hostname, log: this.#log, now: () => this.#now().getTime() };
    const lane = this.#lanes.get(key) ?? new Lane(route, options);
    this.#lanes.set(key, lane);
    return lane;
  }
}

/** A partner may have the name of a route. */
function laneKey(route: Route): string {
  return route.kind === "partner" ? `partner ${route.name}` : route.name;
}

/** Recipients that were told the same by the same server, together. */
function grouped(
  attempted: readonly AttemptedRecipient[],
): Array<AttemptedRecipient & { recipients: RecipientIndex[] }> {
  const groups = new Map<string, AttemptedRecipient & { recipients: RecipientIndex[] }>();
  for (const entry of attempted) {
    const key = JSON.stringify([entry.route, entry.server, entry.outcome]);
    const group = groups.get(key) ?? { ...entry, recipients: [] };
    group.recipients.push(entry.index);
    groups.set(key, group);
  }
  return [...groups.values()];
}

function attemptRecords(attempted: readonly AttemptedRecipient[], now: Date): AttemptRecord[] {
  return grouped(attempted).map(({ server, outcome, recipients }) => ({
    atMs: now.getTime(),
    recipients,
    server,
    text: outcome.kind === "delivered" ? outcome.reply : outcome.text,
  }));
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
