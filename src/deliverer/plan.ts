/**
 * Which way a claimed message goes: its recipients by route, in transactions of bounded size, those that are not due yet,
 * and those that no route leads to. Pure.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import type { ForwardPath, Mailbox } from "../mail/address.ts";
import { isDue } from "../mail/schedule.ts";
import type { Route } from "../partner/partner.ts";
import { RouteTable } from "../partner/policy.ts";
import type { ClaimedMessage, Deferral, MessageMeta, RecipientIndex } from "../spool/spool.ts";
import type { AddressedRecipient } from "./hop-commands.ts";
import type { AttemptedRecipient } from "./settlement.ts";

export interface Plan {
  readonly transactions: ReadonlyArray<{ readonly route: Route; readonly recipients: readonly AddressedRecipient[] }>;
  readonly untried: readonly Deferral[];
  readonly attempted: readonly AttemptedRecipient[];
}

export class Planner {
  readonly #config: RelayConfig;
  readonly #recipientsMax: number;
  readonly #routes: RouteTable;
  readonly #partnerRoutes: ReadonlyMap<string, Route>;

  constructor(config: RelayConfig, recipientsPerTransactionMax: number) {
    this.#config = config;
    this.#recipientsMax = recipientsPerTransactionMax;
    this.#routes = new RouteTable(config.routes, config.partners);
    this.#partnerRoutes = new Map(
      config.partners.flatMap(({ name, deliver }) => (deliver ? [[name, deliver] as const] : [])),
    );
  }

  /** @param done recipients that there is nothing left to do for. */
  plan({ meta, pending, request }: ClaimedMessage, now: Date, done: readonly RecipientIndex[] = []): Plan {
    if (request === "bounce") {
      const attempted = pending.map(({ index }) => ({ index, route: null, hop: null, outcome: sentBack }));
      return { transactions: [], untried: [], attempted };
    }
    const byRoute = new Map<Route, AddressedRecipient[]>();
    const untried: Deferral[] = [];
    const attempted: AttemptedRecipient[] = [];
    for (const { index, attempts, nextAttemptAtMs } of pending) {
      if (done.includes(index)) continue;
      const path = meta.envelope.recipients[index]?.path;
      const mailbox = path === undefined ? undefined : this.#mailboxOf(path);
      const route = mailbox === undefined ? undefined : this.#routeFor(meta, mailbox);
      if (!isDue(new Date(nextAttemptAtMs), now, this.#config.retry.scheduleMs)) {
        untried.push({ index, attempts, nextAttemptAtMs, route: route === undefined ? null : laneKey(route) });
      } else if (mailbox === undefined || route === undefined) {
        attempted.push({ index, route: null, hop: null, outcome: noRoute });
      } else {
        byRoute.set(route, [...(byRoute.get(route) ?? []), { index, mailbox }]);
      }
    }
    const transactions = [...byRoute].flatMap(([route, recipients]) =>
      chunks(recipients, this.#recipientsMax).map((chunk) => ({ route, recipients: chunk })),
    );
    return { transactions, untried, attempted };
  }

  #mailboxOf(path: ForwardPath): Mailbox {
    return path.kind === "postmaster" ? this.#config.postmaster : path.mailbox;
  }

  /** Our own domains inside; a report to a partner by that partner's servers. Nothing leads from partner to partner. */
  #routeFor({ toPartner }: MessageMeta, mailbox: Mailbox): Route | undefined {
    return toPartner === null ? this.#routes.internal(mailbox.domain) : this.#partnerRoutes.get(toPartner);
  }
}

/** The route as the spool and the log know it: a partner may have the name of a route. */
export function laneKey(route: Route): string {
  return route.kind === "partner" ? `partner ${route.name}` : route.name;
}

/** The route may come back with the next configuration. */
const noRoute = { kind: "temporary", status: "4.4.4", text: "No route leads to this domain", remote: false } as const;

/** The operator wants it so. */
const sentBack = {
  kind: "failed",
  status: "5.0.0",
  text: "The postmaster of the relay has sent it back.",
  remote: false,
} as const;

function chunks<T>(items: readonly T[], lengthMax: number): T[][] {
  const pieces: T[][] = [];
  for (let from = 0; from < items.length; from += lengthMax) pieces.push(items.slice(from, from + lengthMax));
  return pieces;
}
