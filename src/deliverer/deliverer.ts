/**
 * The deliverer: takes messages from the spool, sends them by their routes, settles each recipient, reports, and puts back
 * what has to wait. It dials the configured addresses and nothing else, and listens nowhere.
 *
 * Promises: a recipient's mark is written when the next hop has answered, before anything else; a report is on stable
 * storage before its failure is marked; what is claimed is bounded; one lane waits for no other. A report that cannot be
 * written is tried until it can. Fails for good, by `fatal`, only where the spool's own records are damaged.
 */
import { setTimeout as delay } from "node:timers/promises";
import { isSame } from "../config/change.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import type { ReportedRecipient } from "../mail/dsn.ts";
import type { Route } from "../partner/partner.ts";
import { SpoolFault, type ClaimedMessage, type Deferral, type RecipientIndex, type Spool } from "../spool/spool.ts";
import type { AddressedRecipient } from "./hop-commands.ts";
import { Lane, type JobResult } from "./lane.ts";
import { deliveryLimits, type DeliveryLimits } from "./limits.ts";
import { serverText } from "./outcome.ts";
import { laneKey, Planner } from "./plan.ts";
import { answerProbe, probesOf } from "./probe.ts";
import { report } from "./report.ts";
import { attemptRecords, grouped, settlementOf, type AttemptedRecipient } from "./settlement.ts";

export interface DelivererOptions {
  readonly config: RelayConfig;
  readonly spool: Spool;
  readonly log: Log;
  readonly now?: () => Date;
  readonly random?: () => number;
  readonly limits?: DeliveryLimits;
  /** The spool cannot be worked on by this process any more. Unless told otherwise this ends it. */
  readonly fatal?: (error: unknown) => void;
}

/** What one transaction came to. */
interface Attempt {
  readonly attempted: readonly AttemptedRecipient[];
  readonly untried: readonly Deferral[];
  readonly damaged?: string | undefined;
}

/** Of routes that have much waiting, how much is claimed at each scan all the same: a partner with little must get in. */
const busyRoutesClaimMax = 20;

export class Deliverer {
  #config: RelayConfig;
  readonly #spool: Spool;
  readonly #log: Log;
  readonly #now: () => Date;
  readonly #random: () => number;
  readonly #limits: DeliveryLimits;
  readonly #fatal: (error: unknown) => void;
  #planner: Planner;
  readonly #lanes = new Map<string, Lane>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #stopSignal = new AbortController();
  #inHand = 0;
  /** Of those in hand, how many wait for a lane. */
  #inLanes = 0;
  #filling: Promise<void> | undefined;
  #fillAgain = false;
  /** Is the next claim to look at busy routes too? */
  #everyRoute = false;
  /** Was less claimed than there may be? */
  #isLimited = false;
  #timer: NodeJS.Timeout | undefined;
  #watcher: { close(): void } | undefined;

  constructor({ config, spool, log, now, random, limits, fatal }: DelivererOptions) {
    this.#config = config;
    this.#spool = spool;
    this.#log = log;
    this.#now = now ?? (() => new Date());
    this.#random = random ?? Math.random;
    this.#limits = limits ?? deliveryLimits;
    this.#fatal = fatal ?? endProcess;
    this.#planner = new Planner(config, this.#limits.recipientsPerTransactionMax);
  }

  start(): void {
    this.#watcher = this.#spool.watch(() => this.#fill());
    this.#timer = setInterval(() => {
      this.#everyRoute = true;
      this.#fill();
    }, this.#limits.scanIntervalMs);
    this.#fill();
  }

  /**
   * Works by another configuration from now on. A route that is another, or gone, gives back what waits for it, to be
   * planned anew; content that is on its way to its servers goes on to its end. Spool and host name are the same as before.
   */
  reload(config: RelayConfig): void {
    if (this.#stopping) return;
    this.#config = config;
    this.#planner = new Planner(config, this.#limits.recipientsPerTransactionMax);
    const routes = new Map(
      [...config.routes, ...config.partners.flatMap(({ deliver }) => deliver ?? [])].map((route) => [
        laneKey(route),
        route,
      ]),
    );
    for (const [key, lane] of this.#lanes) {
      const route = routes.get(key);
      if (route !== undefined && isSame(route.servers, lane.route.servers)) continue;
      if (route === undefined) this.#lanes.delete(key);
      else this.#lanes.set(key, this.#makeLane(route, lane));
      for (const job of lane.stop()) job.done({ verdicts: new Map() });
    }
    this.#everyRoute = true;
    this.#fill();
  }

  /** Finishes content that is on its way, puts the rest back, and resolves when nothing is in hand. */
  async stop(): Promise<void> {
    this.#stopSignal.abort();
    clearInterval(this.#timer);
    this.#watcher?.close();
    await this.#filling;
    for (const lane of this.#lanes.values()) {
      for (const job of lane.stop()) job.done({ verdicts: new Map() });
    }
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** What is in hand, for `status`. */
  get inHand(): number {
    return this.#inHand;
  }

  get #stopping(): boolean {
    return this.#stopSignal.signal.aborted;
  }

  // ── taking ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #fill(): void {
    this.#fillAgain = true;
    this.#filling ??= this.#fillUp().finally(() => {
      this.#filling = undefined;
      if (this.#fillAgain && !this.#stopping) this.#fill(); // asked for between the last look and now
    });
  }

  async #fillUp(): Promise<void> {
    while (this.#fillAgain && !this.#stopping) {
      this.#fillAgain = false;
      for (const lane of this.#lanes.values()) lane.nudge();
      const nowMs = this.#now().getTime();
      const everyRoute = this.#everyRoute;
      this.#everyRoute = false;
      const busy = this.#busyRoutes();
      const busyRoutes = everyRoute ? [] : busy;
      this.#isLimited = busy.length > 0;
      // Each has its share, or old mail would keep new mail out, and a fault of the one the other.
      const due = await this.#claim(everyRoute ? busyRoutesClaimMax : this.#limits.claimMax, (countMax) =>
        this.#spool.claimDue({ nowMs, countMax, busyRoutes }),
      );
      const fresh = await this.#claim(this.#limits.claimMax, (countMax) => this.#spool.claimNew({ nowMs, countMax }));
      // As long as something comes there may be more.
      if (due === "claimed" || fresh === "claimed") this.#fillAgain = true;
      if (due === "fault" || fresh === "fault") await this.#pause();
    }
  }

  async #claim(
    countMax: number,
    claim: (countMax: number) => Promise<ClaimedMessage[]>,
  ): Promise<"claimed" | "nothing" | "fault"> {
    const room = Math.min(countMax, this.#limits.unplacedMax - (this.#inHand - this.#inLanes));
    if (room <= 0) {
      this.#isLimited = true;
      return "nothing";
    }
    try {
      const messages = await claim(room);
      for (const message of messages) this.#dispatch(message);
      return messages.length > 0 ? "claimed" : "nothing";
    } catch (error) {
      this.#log.error({ event: "spool fault", error: errorText(error) });
      if (error instanceof SpoolFault && error.kind === "damaged") this.#fatal(error);
      return "fault";
    }
  }

  #busyRoutes(): string[] {
    const share = this.#routeShare();
    return [...this.#lanes].flatMap(([name, lane]) => (lane.isBusy(share) ? [name] : []));
  }

  /** How many may wait for one route. All together stay bounded, and a route that is free always has room. */
  #routeShare(): number {
    const busy = [...this.#lanes.values()].filter((lane) => lane.waiting > 0).length;
    const share = Math.floor(this.#limits.waitingMax / Math.max(1, busy));
    return Math.max(1, Math.min(share, this.#limits.waitingPerRouteMax));
  }

  // ── sending ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #dispatch(message: ClaimedMessage): void {
    this.#inHand += 1;
    const work = this.#deliver(message)
      .catch((error: unknown) => this.#rescue(message, error))
      .finally(() => {
        this.#inHand -= 1;
        this.#underWay.delete(work);
        if (this.#isLimited) this.#fill();
      });
    this.#underWay.add(work);
  }

  /**
   * What nobody expected must not keep an accepted message from its recipients and its sender until somebody restarts us:
   * what is not settled is tried again after the longest pause. While stopping, the next to open the spool finds it.
   */
  async #rescue(message: ClaimedMessage, error: unknown): Promise<void> {
    const { meta, pending, delayReported } = message;
    this.#log.error({ event: "message stuck", id: meta.id, error: errorText(error) });
    if (this.#stopping) return;
    try {
      if (error instanceof SpoolFault && error.kind === "damaged") {
        await this.#spool.setAside(message, error.message);
        return;
      }
      const nextAttemptAtMs = this.#now().getTime() + Math.max(...this.#config.retry.scheduleMs);
      const deferred = pending.map(({ index, attempts }) => ({ index, route: null, attempts, nextAttemptAtMs }));
      await this.#spool.putBack(message, { deferred, attempts: [], delayReported });
    } catch (cause) {
      // It was put back already, or cannot be: a restart finds it.
      this.#log.error({ event: "bug", id: meta.id, error: errorText(cause) });
    }
  }

  async #deliver(message: ClaimedMessage): Promise<void> {
    const probes = await this.#answerProbes(message);
    const plan = this.#planner.plan(message, this.#now(), probes);
    this.#inLanes += 1;
    const attempts = await Promise.all(
      plan.transactions.map(({ route, recipients }) => this.#attempt(message, route, recipients)),
    ).finally(() => {
      this.#inLanes -= 1;
    });
    const damaged = attempts.find((attempt) => attempt.damaged !== undefined)?.damaged;
    if (damaged !== undefined) {
      await this.#insist(message, () => this.#spool.setAside(message, damaged));
      return;
    }
    await this.#conclude(
      message,
      [...plan.attempted, ...attempts.flatMap(({ attempted }) => attempted)],
      [...plan.untried, ...attempts.flatMap(({ untried }) => untried)],
    );
  }

  async #attempt(message: ClaimedMessage, route: Route, recipients: readonly AddressedRecipient[]): Promise<Attempt> {
    const lane = this.#lane(route);
    const partner = message.meta.partner ?? "";
    // A lane that is full takes its turn later, so that it does not fill the hands of all others.
    const isAdmitted = !this.#stopping && lane.hasRoomFor(partner, this.#routeShare());
    const result = isAdmitted
      ? await new Promise<JobResult>((resolve) =>
          lane.add(partner, {
            message,
            recipients,
            done: (outcome) => {
              this.#markDelivered(message, outcome);
              resolve(outcome);
            },
          }),
        )
      : { verdicts: new Map() };
    const { verdicts, retryAtMs, damaged }: JobResult = result;
    const key = laneKey(route);
    const attempted: AttemptedRecipient[] = [];
    const untried: Deferral[] = [];
    for (const { index } of recipients) {
      const verdict = verdicts.get(index);
      const attempts = message.pending.find((recipient) => recipient.index === index)?.attempts ?? 0;
      if (verdict === undefined) {
        untried.push({ index, route: key, attempts, nextAttemptAtMs: this.#now().getTime() });
      } else {
        attempted.push({ index, route: key, retryAtMs, ...verdict });
      }
    }
    return { attempted, untried, damaged };
  }

  /** At once when the next hop has answered: a kill from here on repeats nothing. */
  #markDelivered(message: ClaimedMessage, { verdicts }: JobResult): void {
    const delivered = [...verdicts].flatMap(([index, { outcome }]) => (outcome.kind === "delivered" ? [index] : []));
    if (delivered.length === 0) return;
    try {
      this.#spool.settle(message, delivered, "delivered");
    } catch (error) {
      // The spool tries again by itself; what it throws is about the call. Then it does not take the message back either.
      this.#log.error({ event: "bug", id: message.meta.id, error: errorText(error) });
    }
  }

  #lane(route: Route): Lane {
    const key = laneKey(route);
    const lane = this.#lanes.get(key) ?? this.#makeLane(route);
    this.#lanes.set(key, lane);
    return lane;
  }

  #makeLane(route: Route, before?: Lane): Lane {
    const now = () => this.#now().getTime();
    const options = { hostname: this.#config.hostname, log: this.#log, now, limits: this.#limits };
    return new Lane(route, options, before);
  }

  // ── settling ───────────────────────────────────────────────────────────────────────────────────────────────────────

  async #conclude(
    message: ClaimedMessage,
    attempted: readonly AttemptedRecipient[],
    untried: readonly Deferral[],
  ): Promise<void> {
    const now = this.#now();
    const settlement = settlementOf(message, attempted, untried, this.#config.retry, now, this.#random);
    const { failed, deferred, reports, delayReported } = settlement;
    this.#logAttempts(message, attempted);
    const expired = attempted.filter(({ index, outcome }) => outcome.kind === "temporary" && failed.includes(index));
    if (expired.length > 0) {
      const { id, partner } = message.meta;
      this.#log.warn({ event: "expired", id, partner, recipients: expired.map(({ index }) => index) });
    }
    if (reports.length > 0) await this.#insist(message, () => this.#report(message, reports));
    if (failed.length > 0) this.#spool.settle(message, failed, "failed");
    await this.#spool.putBack(message, { deferred, attempts: attemptRecords(attempted, now), delayReported });
  }

  /** Probes are answered in place of a delivery, and settled when the answer is on stable storage. */
  async #answerProbes(message: ClaimedMessage): Promise<RecipientIndex[]> {
    const probes = probesOf(message, this.#config);
    if (probes.length === 0) return probes;
    await this.#insist(message, async () => {
      const answer = await answerProbe(message, { config: this.#config, dropBox: this.#spool.dropBox, now: this.#now });
      const event = answer === undefined ? "probe not answered" : "probe answered";
      this.#log.info({ event, id: message.meta.id, partner: message.meta.partner, answer });
    });
    this.#spool.settle(message, probes, "delivered");
    return probes;
  }

  async #report(message: ClaimedMessage, recipients: readonly ReportedRecipient[]): Promise<void> {
    const context = { config: this.#config, dropBox: this.#spool.dropBox, now: this.#now };
    const id = await report(message, recipients, context);
    const event = id === undefined ? "report undeliverable" : "report";
    const actions = recipients.map(({ action }) => action);
    this.#log.info({ event, id: message.meta.id, report: id, actions });
  }

  /** What the spool cannot do now is tried until it can: what was accepted must not vanish without a word. */
  async #insist(message: ClaimedMessage, action: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await action();
        return;
      } catch (error) {
        if (this.#stopping || !isSystemFault(error)) throw error;
        this.#log.error({ event: "spool fault", id: message.meta.id, error: errorText(error) });
        await this.#pause();
      }
    }
  }

  /** Waits a while; not when stopping. */
  async #pause(): Promise<void> {
    const { signal } = this.#stopSignal;
    await delay(this.#limits.faultPauseMs, undefined, { signal }).catch(() => undefined);
  }

  #logAttempts({ meta }: ClaimedMessage, attempted: readonly AttemptedRecipient[]): void {
    for (const { route, hop, outcome, recipients } of grouped(attempted)) {
      this.#log.info({
        event: outcome.kind === "delivered" ? "delivered" : outcome.kind === "failed" ? "failed" : "deferred",
        id: meta.id,
        partner: meta.partner,
        route,
        server: hop === null ? null : serverText(hop),
        recipients,
        delayMs: this.#now().getTime() - meta.receivedAtMs,
        remote: { text: outcome.kind === "delivered" ? outcome.reply : outcome.text },
      });
    }
  }
}

/** Disk and database, as opposed to bugs, which have no code, and to damage, which no waiting mends. */
function isSystemFault(error: unknown): boolean {
  if (error instanceof SpoolFault) return error.kind !== "damaged";
  return error instanceof Error && "code" in error;
}

/** By an exception that nobody catches: the supervisor starts a successor, which mends the spool. */
function endProcess(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
