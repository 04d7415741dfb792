/** Whatever two servers say, in any combination: a message is settled once, and delivered only if a server has taken it. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Lane, type JobResult } from "../../src/deliverer/lane.ts";
import { startScriptedHop, usualReplies, type Answer, type Script } from "../tools/scripted-hop.ts";
import {
  addressed,
  claimedMessage,
  makeCertificates,
  nextHop,
  pinned,
  routeTo,
  shortLimits,
  watchedLog,
} from "./support.ts";

const { server } = await makeCertificates();
const verbs = ["CONNECT", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "CONTENT", "RSET"] as const;

const octets = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: fc.constantFrom("2", "3", "4", "5", "0", "-", " ", "\r\n", "\n", "\r", "x", "."), maxLength: 30 }),
);

/** For most commands the usual reply: a conversation is to get somewhere. */
const answer: fc.Arbitrary<Answer | undefined> = fc.oneof(
  { arbitrary: fc.constant(undefined), weight: 12 },
  {
    arbitrary: fc.constantFrom(
      "250 ok",
      "354 go",
      "421 bye",
      "450 busy",
      "451 later",
      "550 no",
      "554 5.7.1 no",
      "503 order",
    ),
    weight: 5,
  },
  { arbitrary: octets.map((text): Answer => ({ raw: `${text}\r\n` })), weight: 2 },
  { arbitrary: octets.map((text): Answer => ({ last: text })), weight: 1 },
  { arbitrary: fc.constant<Answer>({ close: true }), weight: 1 },
);
const behaviour = fc.record(Object.fromEntries(verbs.map((verb) => [verb, answer])));
const recipientRefusals = fc.array(fc.constantFrom(undefined, undefined, "450 4.2.1 busy", "550 5.1.1 no"), {
  minLength: 1,
  maxLength: 4,
});

test("a message is settled once, and delivered only if a server has taken it", async () => {
  await fc.assert(
    fc.asyncProperty(behaviour, behaviour, recipientRefusals, fc.boolean(), async (one, two, refusals, pipelining) => {
      const taken: string[] = [];
      const scriptOf =
        (name: string, answers: Partial<Record<string, Answer | undefined>>): Script =>
        (verb, line) => {
          const position = Number(/<r(\d)@/.exec(line)?.[1]);
          const given = answers[verb] ?? (verb === "RCPT" ? refusals[position] : undefined);
          if (verb === "CONTENT" && (given === undefined || given === "250 ok")) taken.push(name);
          if (verb === "EHLO" && given === undefined && !pipelining) {
            return usualReplies["EHLO"]?.replace("250-PIPELINING\r\n", "");
          }
          return given;
        };
      const hops = await Promise.all([
        startScriptedHop({ ...server, script: scriptOf("one", one) }),
        startScriptedHop({ ...server, script: scriptOf("two", two) }),
      ]);
      const servers = hops.map((hop, at) => nextHop(hop, pinned(server.pin), at === 0 ? "one" : "two"));
      const { log, named } = watchedLog();
      // A server that falls silent is given up soon.
      const limits = { ...shortLimits, replyTimeoutMs: 150, endTimeoutMs: 150 };
      const lane = new Lane(routeTo(...servers), { hostname: "mx.corp.example", log, now: Date.now, limits });
      const message = claimedMessage({ to: refusals.map((_, at) => `r${at}@corp.example`) });
      try {
        const result = await new Promise<JobResult>((resolve) =>
          lane.add("acme", { message, recipients: addressed(message), done: resolve }),
        );
        expect([...result.verdicts.keys()].toSorted((a, b) => a - b)).toEqual([...refusals.keys()]);
        const deliveredBy = new Set<string>();
        for (const { hop, outcome } of result.verdicts.values()) {
          if (outcome.kind === "delivered") deliveredBy.add(hop?.name ?? "?");
          // For good only in the words of a server, and only with a 5xx.
          if (outcome.kind === "failed") expect(outcome.text).toMatch(/^5\d\d/);
        }
        for (const name of deliveredBy) expect(taken).toContain(name);
        expect(named("bug")).toEqual([]);
        expect(lane.working).toBe(0);
      } finally {
        lane.stop();
        await Promise.all(hops.map((hop) => hop.close()));
      }
    }),
    { numRuns: 120 },
  );
}, 120_000);
