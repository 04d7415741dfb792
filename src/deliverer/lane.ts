/**
 * The way to one route: who waits for it, in turns by partner, the connections that are open, and which of its servers are
 * worth trying. A slow or dead route keeps its own lane waiting and no other.
 *
 * Promises: `done` is called once for each job, whatever happens; a server that has given its verdict on a recipient is
 * the last to be asked about it in this attempt; a message that a server may have taken goes to no other.
 */
import { isSame } from "../config/change.ts";
import type { Log } from "../log/log.ts";
import type { NextHop, Route } from "../partner/partner.ts";
import { SpoolFault, type ClaimedMessage, type RecipientIndex } from "../spool/spool.ts";
import { Breaker } from "./breaker.ts";
import { connectToHop, type HopConnection } from "./client.ts";
import { FairQueue } from "./fair-queue.ts";
import type { AddressedRecipient } from "./hop-commands.ts";
import { deliveryLimits, type DeliveryLimits } from "./limits.ts";
import { boundedText, HopFault, serverText, type DeliveryOutcome } from "./outcome.ts";

/** One transaction to be made: a message, and those of its recipients that take this route. */
export interface Job {
  readonly message: ClaimedMessage;
  readonly recipients: readonly AddressedRecipient[];
  readonly done: (result: JobResult) => void;
}

/** What became of a recipient, and by which server; null: none was reached. */
export interface Verdict {
  readonly hop: NextHop | null;
  readonly outcome: DeliveryOutcome;
}

export interface JobResult {
  /** Recipients that are missing were not tried. */
  readonly verdicts: ReadonlyMap<RecipientIndex, Verdict>;
  /** No server is worth trying before; undefined: the schedule decides. */
  readonly retryAtMs?: number | undefined;
  /** The message cannot be sent as it is: its content fails its checks. */
  readonly damaged?: string | undefined;
}

export interface LaneOptions {
  readonly hostname: string;
  readonly log: Log;
  readonly now: () => number;
  readonly limits?: DeliveryLimits;
}

interface Failure {
  readonly hop: NextHop;
  readonly fault: HopFault;
}

export class Lane {
  readonly route: Route;
  readonly #options: LaneOptions;
  readonly #limits: DeliveryLimits;
  readonly #waiting = new FairQueue<Job>();
  readonly #breakers: ReadonlyMap<NextHop, Breaker>;
  readonly #idle: Array<{ readonly connection: HopConnection; readonly timer: NodeJS.Timeout }> = [];
  readonly #stopSignal = new AbortController();
  /** The last failure of a server, to tell why one is left alone. */
  #lastFailure: Failure | undefined;
  #working = 0;

  /** @param before the lane that this one takes the place of: what it knows of the servers that stay is still true. */
  constructor(route: Route, options: LaneOptions, before?: Lane) {
    this.route = route;
    this.#options = options;
    this.#limits = options.limits ?? deliveryLimits;
    this.#breakers = new Map(route.servers.map((server) => [server, breakerOf(server, before) ?? new Breaker()]));
    this.#lastFailure = before?.lastFailure;
  }

  /** The breakers of its servers, for the lane that takes its place. */
  get breakers(): ReadonlyMap<NextHop, Breaker> {
    return this.#breakers;
  }

  get lastFailure(): Failure | undefined {
    return this.#lastFailure;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get working(): number {
    return this.#working;
  }

  /** Has it so much waiting that no more is to be looked for? */
  isBusy(waitingMax: number): boolean {
    return this.#waiting.length >= waitingMax / 2;
  }

  /** May one more of the partner's wait? Where the lane is busy, only if it has not had its share of the room. */
  hasRoomFor(partner: string, waitingMax: number): boolean {
    if (!this.isBusy(waitingMax)) return true;
    const own = this.#waiting.lengthOf(partner);
    const partners = this.#waiting.partners + (own === 0 ? 1 : 0);
    return own < Math.max(1, Math.floor(waitingMax / partners));
  }

  add(partner: string, job: Job): void {
    this.#waiting.add(partner, job);
    this.nudge();
  }

  /** Sees whether what waits can go on: a server that was left alone may be due to be probed. */
  nudge(): void {
    while (
      this.#working < this.#limits.connectionsPerRouteMax &&
      this.#waiting.length > 0 &&
      this.#canServe(undefined, this.#working)
    ) {
      this.#working += 1;
      this.#work().catch((error: unknown) => this.#options.log.error({ event: "bug", error: errorText(error) }));
    }
  }

  /** Gives back what waits; content that is on its way goes on to its end. */
  stop(): Job[] {
    for (const { connection, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      connection.end();
    }
    this.#stopSignal.abort();
    return this.#waiting.takeAll();
  }

  get #stopping(): boolean {
    return this.#stopSignal.signal.aborted;
  }

  /** One worker: takes jobs as long as there are any, over one connection as long as it lasts. */
  async #work(): Promise<void> {
    let connection: HopConnection | undefined;
    try {
      while (this.#canServe(connection, this.#working - 1)) {
        const job = this.#waiting.take();
        if (job === undefined) break;
        const sent = await this.#send(job, connection);
        connection = this.#usable(sent.connection);
        this.#finish(job, sent.result);
        this.nudge(); // what this one has found out may be of use to more
      }
      if (connection !== undefined) this.#keep(connection);
    } finally {
      this.#working -= 1;
    }
  }

  /**
   * Is a job in the right hands here? Not where no connection is to be had while others are at work: they have one, or
   * are finding out. If nobody is, there is no use in waiting, and the job is put off.
   */
  #canServe(connection: HopConnection | undefined, others: number): boolean {
    if (this.#usable(connection) !== undefined || this.#idle.length > 0 || others === 0) return true;
    const now = this.#options.now();
    return this.route.servers.some((server) => this.#breaker(server).mayTry(now));
  }

  #usable(connection: HopConnection | undefined): HopConnection | undefined {
    if (connection?.usable === true) return connection;
    connection?.end(); // one that has carried enough; nothing happens to one that is gone
    return undefined;
  }

  #finish(job: Job, result: JobResult): void {
    try {
      job.done(result);
    } catch (error) {
      this.#options.log.error({ event: "bug", id: job.message.meta.id, error: errorText(error) });
    }
  }

  /** Sends over the connection, or over a new one to the first server that can be used, and so on. Never fails. */
  async #send(job: Job, open: HopConnection | undefined): Promise<{ result: JobResult; connection?: HopConnection }> {
    const verdicts = new Map<RecipientIndex, Verdict>();
    const tried = new Set<NextHop>();
    let rest = job.recipients;
    let failure: Failure | undefined;
    let connection = open;
    for (;;) {
      const reused = connection ?? this.#takeIdle(tried);
      const hop = reused?.hop ?? this.#nextServer(tried);
      if (hop === undefined || this.#stopping) {
        if (!this.#stopping) this.#putOff(rest, verdicts, failure);
        return { result: { verdicts, retryAtMs: this.#retryAtMs() }, ...(reused ? { connection: reused } : {}) };
      }
      const breaker = this.#breaker(hop);
      const era = reused === undefined ? breaker.tried() : breaker.era;
      let fault: HopFault | undefined;
      try {
        connection = reused ?? (await this.#connect(hop));
        const delivery = await connection.deliver(job.message, rest);
        for (const [index, outcome] of delivery.outcomes) verdicts.set(index, { hop, outcome });
        rest = rest.filter(({ index }) => !verdicts.has(index));
        fault = delivery.fault;
      } catch (error) {
        if (!(error instanceof HopFault)) {
          breaker.released(era);
          connection?.end();
          return { result: this.#ownFault(rest, verdicts, error) };
        }
        fault = error;
      }
      if (fault === undefined || connection?.usable === true) {
        if (reused === undefined) breaker.succeeded(era);
      } else if (this.#stopping) {
        breaker.released(era);
      } else if (reused === undefined || fault.afterData) {
        // A connection that had been idle may have been closed in between: that says nothing about its server.
        breaker.failed(this.#options.now(), era);
      }
      if (fault === undefined) {
        return { result: { verdicts }, ...(connection ? { connection } : {}) };
      }
      failure = { hop, fault };
      if (!this.#stopping) this.#note(failure);
      // It may have taken the message: another server would make a second copy. The schedule decides.
      if (fault.afterData) {
        this.#putOff(rest, verdicts, failure);
        return { result: { verdicts } };
      }
      // Not this message now, but all is well with the server otherwise: another one may take it.
      if (connection?.usable === true) {
        this.#keep(connection);
        tried.add(hop);
      } else if (reused === undefined) {
        tried.add(hop);
      }
      connection = undefined;
    }
  }

  /** The servers in order, without those that have failed for this message and those that are left alone. */
  #nextServer(tried: ReadonlySet<NextHop>): NextHop | undefined {
    const now = this.#options.now();
    return this.route.servers.find((server) => !tried.has(server) && this.#breaker(server).mayTry(now));
  }

  async #connect(hop: NextHop): Promise<HopConnection> {
    const { hostname, log } = this.#options;
    const connection = await connectToHop(hop, { hostname, limits: this.#limits, signal: this.#stopSignal.signal });
    log.info({ event: "connected", route: this.route.name, server: serverText(hop), ...connection.facts });
    return connection;
  }

  #note(failure: Failure): void {
    this.#lastFailure = failure;
    const { hop, fault } = failure;
    const event = { event: "next hop failed", route: this.route.name, server: serverText(hop), status: fault.status };
    this.#options.log.warn({ ...event, remote: { text: fault.message } });
  }

  /** No server is left for these. */
  #putOff(
    rest: readonly AddressedRecipient[],
    verdicts: Map<RecipientIndex, Verdict>,
    failure: Failure | undefined,
  ): void {
    const outcome: DeliveryOutcome =
      failure === undefined
        ? {
            kind: "temporary",
            status: "4.4.1",
            text: `No server of the route could be used a moment ago${this.#lastFailure === undefined ? "" : `: ${this.#lastFailure.fault.message}`}`,
            remote: false,
          }
        : {
            kind: "temporary",
            status: failure.fault.status,
            text: failure.fault.message,
            remote: failure.fault.remote,
          };
    for (const { index } of rest) verdicts.set(index, { hop: failure?.hop ?? null, outcome });
  }

  #retryAtMs(): number | undefined {
    const now = this.#options.now();
    const retries = this.route.servers.map((server) => this.#breaker(server).retryAtMs(now));
    return retries.includes(undefined) ? undefined : Math.min(...retries.filter((at) => at !== undefined));
  }

  /** Not the server's doing: damage in the spool, or a bug. It is temporary; the text is for the operator. */
  #ownFault(rest: readonly AddressedRecipient[], verdicts: Map<RecipientIndex, Verdict>, error: unknown): JobResult {
    const text = boundedText(errorText(error));
    const outcome: DeliveryOutcome = { kind: "temporary", status: "4.3.0", text, remote: false };
    for (const { index } of rest) verdicts.set(index, { hop: null, outcome });
    return { verdicts, damaged: error instanceof SpoolFault && error.kind === "damaged" ? text : undefined };
  }

  #takeIdle(tried: ReadonlySet<NextHop>): HopConnection | undefined {
    for (let at = this.#idle.length - 1; at >= 0; at -= 1) {
      const entry = this.#idle[at];
      if (entry === undefined || tried.has(entry.connection.hop)) continue;
      this.#idle.splice(at, 1);
      clearTimeout(entry.timer);
      const connection = this.#usable(entry.connection);
      if (connection !== undefined) return connection;
    }
    return undefined;
  }

  #keep(connection: HopConnection): void {
    if (this.#stopping) {
      connection.end();
      return;
    }
    const entry = {
      connection,
      timer: setTimeout(() => {
        this.#idle.splice(this.#idle.indexOf(entry), 1);
        connection.end();
      }, this.#limits.idleConnectionMs).unref(),
    };
    this.#idle.push(entry);
  }

  #breaker(hop: NextHop): Breaker {
    const breaker = this.#breakers.get(hop);
    if (breaker === undefined) throw new Error(`${serverText(hop)} is no server of route ${this.route.name}`);
    return breaker;
  }
}

function breakerOf(server: NextHop, lane: Lane | undefined): Breaker | undefined {
  return [...(lane?.breakers ?? [])].find(([known]) => isSame(known, server))?.[1];
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
