/**
 * The way to one route: who waits for it, in turns by partner, the connections that are open, and which of its servers are
 * worth trying. A slow or dead route keeps its own lane waiting and no other.
 */
import type { Log } from "../log/log.ts";
import type { NextHop, Route } from "../partner/partner.ts";
import { SpoolFault, type ClaimedMessage, type RecipientIndex } from "../spool/spool.ts";
import { Breaker } from "./breaker.ts";
import { connectToHop, type AddressedRecipient, type HopConnection } from "./client.ts";
import { FairQueue } from "./fair-queue.ts";
import { HopFault, type DeliveryOutcome } from "./outcome.ts";

/** One transaction to be made: a message, and those of its recipients that take this route. */
export interface Job {
  readonly message: ClaimedMessage;
  readonly recipients: readonly AddressedRecipient[];
  readonly done: (result: JobResult) => void;
}

export interface JobResult {
  /** Name, address and port of the server; null if none could be used. */
  readonly server: string | null;
  readonly outcomes: ReadonlyMap<RecipientIndex, DeliveryOutcome>;
  /** No server is worth trying before; undefined: the schedule decides. */
  readonly retryAtMs?: number | undefined;
  /** The message cannot be sent as it is: its content fails its checks. */
  readonly damaged?: string | undefined;
}

export interface LaneOptions {
  readonly hostname: string;
  readonly log: Log;
  readonly now: () => number;
}

export const connectionsPerRouteMax = 5;
const idleConnectionMs = 5_000;

export class Lane {
  route: Route;
  readonly #options: LaneOptions;
  readonly #waiting = new FairQueue<Job>();
  readonly #breakers = new Map<string, Breaker>();
  readonly #idle: Array<{ connection: HopConnection; timer: NodeJS.Timeout }> = [];
  #working = 0;
  #stopping = false;

  constructor(route: Route, options: LaneOptions) {
    this.route = route;
    this.#options = options;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get working(): number {
    return this.#working;
  }

  add(partner: string, job: Job): void {
    this.#waiting.add(partner, job);
    this.#start();
  }

  /** Gives back what waits; what is under way goes on. */
  stop(): Job[] {
    this.#stopping = true;
    for (const { connection, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      connection.end();
    }
    return this.#waiting.takeAll();
  }

  #start(): void {
    while (this.#working < connectionsPerRouteMax && this.#waiting.length > 0) {
      this.#working += 1;
      void this.#work().finally(() => {
        this.#working -= 1;
        if (this.#waiting.length > 0) this.#start();
      });
    }
  }

  /** One worker: takes jobs as long as there are any, over one connection as long as it lasts. */
  async #work(): Promise<void> {
    let connection: HopConnection | undefined;
    for (let job = this.#waiting.take(); job !== undefined; job = this.#waiting.take()) {
      connection = await this.#deliver(job, connection?.usable === true ? connection : undefined);
    }
    if (connection?.usable === true) this.#keep(connection);
  }

  /** Delivers over the connection, or over a new one to the first server that can be used. */
  async #deliver(job: Job, open: HopConnection | undefined): Promise<HopConnection | undefined> {
    let connection = open ?? this.#takeIdle();
    let last: { hop: NextHop; fault: HopFault } | undefined;
    const tried = new Set<NextHop>();
    for (;;) {
      const reused = connection !== undefined;
      try {
        connection ??= await this.#connect(tried);
        if (connection === undefined) break;
        const outcomes = await connection.deliver(job.message, job.recipients);
        job.done({ server: serverText(connection.hop), outcomes });
        return connection;
      } catch (error) {
        if (!(error instanceof HopFault)) {
          // Not the server's doing: damage in the spool, or a bug. The job's owner sorts it out.
          const damaged = error instanceof SpoolFault && error.kind === "damaged" ? error.message : undefined;
          job.done({ server: null, outcomes: faultOutcomes(job, error), damaged });
          return undefined;
        }
        const hop = connection?.hop ?? [...tried].at(-1);
        if (hop !== undefined) last = { hop, fault: error };
        connection = undefined;
        // It may have taken the message: another server would make a second copy. The schedule decides.
        if (error.afterData) break;
        // A connection that had been idle may have been closed in between: that says nothing about its server.
        if (hop !== undefined && !reused) this.#breaker(hop).failed(this.#options.now());
      }
    }
    job.done(this.#unreachable(job, last));
    return undefined;
  }

  /** Tries the servers in order; undefined: none is left. Throws the fault of a server that was tried and failed. */
  async #connect(tried: Set<NextHop>): Promise<HopConnection | undefined> {
    const now = this.#options.now();
    const hop = this.route.servers.find((server) => !tried.has(server) && this.#breaker(server).mayTry(now));
    if (hop === undefined) return undefined;
    tried.add(hop);
    const breaker = this.#breaker(hop);
    breaker.tried();
    try {
      const connection = await connectToHop(hop, this.#options.hostname);
      breaker.succeeded();
      this.#options.log.info({
        event: "connected",
        route: this.route.name,
        server: serverText(hop),
        ...connection.facts,
      });
      return connection;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#options.log.warn({
        event: "next hop failed",
        route: this.route.name,
        server: serverText(hop),
        remote: { text },
      });
      throw error;
    }
  }

  #unreachable(job: Job, last: { hop: NextHop; fault: HopFault } | undefined): JobResult {
    const now = this.#options.now();
    const text = last?.fault.message ?? "No server of the route could be reached a moment ago";
    const outcome: DeliveryOutcome = {
      kind: "temporary",
      status: last?.fault.status ?? "4.4.1",
      text,
      remote: last?.fault.remote ?? false,
    };
    const retries = this.route.servers.map((server) => this.#breaker(server).retryAtMs(now));
    return {
      server: last === undefined ? null : serverText(last.hop),
      outcomes: new Map(job.recipients.map(({ index }) => [index, outcome])),
      retryAtMs: retries.includes(undefined) ? undefined : Math.min(...retries.filter((at) => at !== undefined)),
    };
  }

  #takeIdle(): HopConnection | undefined {
    for (let entry = this.#idle.pop(); entry !== undefined; entry = this.#idle.pop()) {
      clearTimeout(entry.timer);
      if (entry.connection.usable) return entry.connection;
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
      }, idleConnectionMs),
    };
    entry.timer.unref();
    this.#idle.push(entry);
  }

  #breaker(hop: NextHop): Breaker {
    const key = serverText(hop);
    const breaker = this.#breakers.get(key) ?? new Breaker();
    this.#breakers.set(key, breaker);
    return breaker;
  }
}

/** A fault of ours is temporary; the text is for the operator. */
function faultOutcomes(job: Job, error: unknown): JobResult["outcomes"] {
  const text = error instanceof Error ? error.message : String(error);
  const outcome: DeliveryOutcome = { kind: "temporary", status: "4.3.0", text, remote: false };
  return new Map(job.recipients.map(({ index }) => [index, outcome]));
}

export function serverText(hop: NextHop): string {
  const address = hop.address.includes(":") ? `[${hop.address}]` : hop.address;
  return `${hop.name === undefined ? "" : `${hop.name} `}${address}:${hop.port}`;
}
