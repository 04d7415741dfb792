/** Hops, lanes and relays that end with the test which started them; the last kind to be used ends first. */
import { afterEach } from "vitest";
import { connectToHop, type HopConnection } from "../../src/deliverer/client.ts";
import { Lane, type JobResult } from "../../src/deliverer/lane.ts";
import type { DeliveryLimits } from "../../src/deliverer/limits.ts";
import type { HopTls, Route } from "../../src/partner/partner.ts";
import type { ClaimedMessage } from "../../src/spool/spool.ts";
import {
  startScriptedHop,
  type Answer,
  type Script,
  type ScriptedHop,
  type ScriptedHopOptions,
} from "../tools/scripted-hop.ts";
import { openTestRelay, type TestRelay, type TestRelayOptions } from "./relay.ts";
import {
  addressed,
  claimedMessage,
  nextHop,
  patientLimits,
  pinned,
  routeTo,
  watchedLog,
  type ServerCertificate,
} from "./support.ts";

/** Starts hops, with a script or with options. */
export function useHops(
  server: ServerCertificate,
): (given?: Script | Partial<ScriptedHopOptions>) => Promise<ScriptedHop> {
  const hops: ScriptedHop[] = [];
  afterEach(async () => {
    await Promise.all(hops.splice(0).map((hop) => hop.close()));
  });
  return async (given = {}) => {
    const options = typeof given === "function" ? { script: given } : given;
    const hop = await startScriptedHop({ ...server, ...options });
    hops.push(hop);
    return hop;
  };
}

export function useConnections(server: ServerCertificate): (hop: ScriptedHop, tls?: HopTls) => Promise<HopConnection> {
  const connections: HopConnection[] = [];
  afterEach(() => {
    for (const connection of connections.splice(0)) connection.end();
  });
  return async (hop, tls = pinned(server.pin)) => {
    const connection = await connectToHop(nextHop(hop, tls), { hostname: "mx.corp.example", limits: patientLimits });
    connections.push(connection);
    return connection;
  };
}

/** A clock that stands still unless the test moves it. */
export class LaneClock {
  ms = 1_790_000_000_000;
  readonly now = (): number => this.ms;
}

/** Makes lanes to hops that are called mail1, mail2 and so on. */
export function useLanes(
  server: ServerCertificate,
): (hops: readonly ScriptedHop[], options?: { limits?: DeliveryLimits; clock?: LaneClock }) => Lane {
  const lanes: Lane[] = [];
  afterEach(() => {
    for (const lane of lanes.splice(0)) lane.stop();
  });
  return (hops, { limits = patientLimits, clock = new LaneClock() } = {}) => {
    const servers = hops.map((hop, at) => nextHop(hop, pinned(server.pin), `mail${at + 1}.corp.example`));
    const options = { hostname: "mx.corp.example", log: watchedLog().log, now: clock.now, limits };
    const lane = new Lane(routeTo(...servers), options);
    lanes.push(lane);
    return lane;
  };
}

export function send(lane: Lane, message: ClaimedMessage = claimedMessage(), partner = "acme"): Promise<JobResult> {
  return new Promise((resolve) => lane.add(partner, { message, recipients: addressed(message), done: resolve }));
}

/** What became of each recipient, and by which server: `delivered 2`, `failed 1`, `temporary none`. */
export function told({ verdicts }: JobResult): string[] {
  return [...verdicts]
    .toSorted(([a], [b]) => a - b)
    .map(([, { hop, outcome }]) => `${outcome.kind} ${/^mail(\d)/.exec(hop?.name ?? "")?.[1] ?? "none"}`);
}

/** The servers' words, or ours. */
export function textsOf({ verdicts }: JobResult): string[] {
  return [...verdicts.values()].map(({ outcome }) => (outcome.kind === "delivered" ? outcome.reply : outcome.text));
}

/** Opens relays over a spool of their own, with one route inside if a hop is given. */
export function useRelays(
  server: ServerCertificate,
): (routes: ScriptedHop | readonly Route[], more?: Omit<TestRelayOptions, "routes">) => Promise<TestRelay> {
  const relays: TestRelay[] = [];
  afterEach(async () => {
    await Promise.all(relays.splice(0).map((relay) => relay.close()));
  });
  return async (routes, more = {}) => {
    const relay = await openTestRelay({ routes: "port" in routes ? [routeVia(server, routes)] : routes, ...more });
    relays.push(relay);
    return relay;
  };
}

export function routeVia(server: ServerCertificate, hop: ScriptedHop, more: Partial<Route> = {}): Route {
  return { ...routeTo(nextHop(hop, pinned(server.pin))), ...more };
}

export function partnerRoute(server: ServerCertificate, hop: ScriptedHop, name = "acme"): Route {
  return routeVia(server, hop, { name, kind: "partner", domains: [`${name}.example`] });
}

export const subjectsAt = (hop: ScriptedHop): string[] =>
  hop.contents.map((content) => /^Subject: (.*)\r$/m.exec(content.toString())?.[1] ?? "?");

export const linesOf = (hop: ScriptedHop, verb: string): string[] => hop.lines.filter((line) => line.startsWith(verb));

/** An answer that comes when the test says so. */
export function held(): { readonly answer: Promise<Answer | undefined>; readonly release: (answer?: Answer) => void } {
  const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
  return { answer: promise, release: resolve };
}

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;
