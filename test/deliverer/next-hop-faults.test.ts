/**
 * Every command, answered in every way that goes wrong, pipelined and not: what becomes of the message, which servers hear
 * of it, and what the connection is good for afterwards. Two servers; the first one misbehaves.
 */
import { describe, expect, test } from "vitest";
import { usualReplies, type Answer, type Script } from "../tools/scripted-hop.ts";
import { send, told, textsOf, useHops, useLanes } from "./fixtures.ts";
import { makeCertificates, patientLimits, shortLimits } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const laneTo = useLanes(server);

const steps = ["CONNECT", "EHLO", "STARTTLS", "EHLO again", "MAIL", "RCPT", "DATA", "CONTENT"] as const;
type Step = (typeof steps)[number];

const answers = {
  "4xx": "451 4.3.0 not now",
  "5xx": "550 5.7.1 never",
  "421": "421 4.3.2 shutting down",
  garbage: "fine, thank you",
  "an enormous line": { raw: Buffer.alloc(1024 * 1024, "250 x") },
  "an enormous number of lines": { raw: Buffer.alloc(1024 * 1024, "250-sixteen octets\r\n") },
  "a flood of empty lines": { raw: Buffer.alloc(1024 * 1024, "\r\n") },
  nothing: { silent: true },
  "a close": { close: true },
  "a reply without its end, and a close": { last: "250-this goes on\r\n250" },
  "mixed codes": "250-yes, gladly\r\n550 or rather not",
  "mixed codes the other way": "550-no\r\n250 or rather yes",
  "single octets": "bytewise",
} as const satisfies Record<string, Answer>;
type Given = keyof typeof answers;

const withoutPipelining = usualReplies["EHLO"]?.replace("250-PIPELINING\r\n", "");

/** A hop that answers one step as told, on every connection, and is sound otherwise. */
function faulty(step: Step, given: Given, pipelining: boolean): Script {
  const ehlos = new Map<number, number>();
  return (verb, _, connection) => {
    const ehlo = verb === "EHLO" ? (ehlos.get(connection) ?? 0) + 1 : 0;
    if (ehlo > 0) ehlos.set(connection, ehlo);
    const usual = verb === "EHLO" && !pipelining ? withoutPipelining : undefined;
    if (step !== (ehlo === 2 ? "EHLO again" : verb)) return usual;
    const answer = answers[given];
    if (answer === "bytewise") return { bytewise: usual ?? usualReplies[verb] ?? "" };
    return answer;
  };
}

type Expected = "delivered 1" | "delivered 2" | "failed 1" | "temporary 1";

/** The rule, in one place. */
function expected(step: Step, given: Given): Expected {
  const isSetup = step === "CONNECT" || step === "EHLO" || step === "STARTTLS" || step === "EHLO again";
  if (given === "single octets") return "delivered 1";
  // Whatever a server says of itself: the next one gets the message in the same attempt.
  if (isSetup || given === "421") return "delivered 2";
  if (given === "5xx") return "failed 1";
  // A recipient has got an answer; a message that was refused for now may find another server in a better mood.
  if (given === "4xx") return step === "RCPT" ? "temporary 1" : "delivered 2";
  // No answer, or none that makes sense: only before the end of the message is it sure that it was not taken.
  return step === "CONTENT" ? "temporary 1" : "delivered 2";
}

describe.each([
  ["pipelined", true],
  ["one by one", false],
] as const)("commands %s", (_, pipelining) => {
  describe.each(steps)("%s answered by", (step) => {
    test.each(Object.keys(answers) as Given[])("%s", async (given) => {
      const first = await hopWith(faulty(step, given, pipelining));
      const second = await hopWith();
      const limits = given === "nothing" ? shortLimits : patientLimits;
      const outcome = expected(step, given);
      const result = await send(laneTo([first, second], { limits }));
      expect(told(result)).toEqual([outcome]);
      expect(result.damaged).toBeUndefined();
      for (const text of textsOf(result)) expect(text.length).toBeLessThan(1_100);
      // Content goes to whom it is for, once; the second server is asked only where the first gave no verdict.
      expect(second.contents.length).toBe(outcome === "delivered 2" ? 1 : 0);
      expect(second.connections()).toBe(outcome === "delivered 2" ? 1 : 0);
      if (step !== "CONTENT") expect(first.contents.length).toBe(outcome === "delivered 1" ? 1 : 0);
      expect(first.connections()).toBe(1);
    });

    test.each(["4xx", "5xx", "421", "garbage", "a close"] as const)(
      "%s, and there is no other server",
      async (given) => {
        const only = await hopWith(faulty(step, given, pipelining));
        const outcome = expected(step, given) === "failed 1" ? "failed" : "temporary";
        const { verdicts } = await send(laneTo([only]));
        const verdict = verdicts.get(0);
        expect(verdict?.outcome.kind).toBe(outcome);
        if (verdict?.outcome.kind !== outcome) return;
        expect(verdict.outcome).toMatchObject({ remote: given !== "a close" && given !== "garbage" });
        expect("status" in verdict.outcome && verdict.outcome.status).toMatch(outcome === "failed" ? /^5\./ : /^4\./);
      },
    );
  });
});

describe("RSET answered by", () => {
  test.each(Object.keys(answers) as Given[])("%s: the next message gets through all the same", async (given) => {
    let refuse = true;
    const only = await hopWith((verb, line, connection) => {
      if (verb === "RCPT" && refuse) return "550 5.1.1 unknown";
      if (verb !== "RSET") return undefined;
      return given === "single octets"
        ? { bytewise: "250 2.0.0 ok" }
        : faulty("MAIL", given, true)("MAIL", line, connection);
    });
    const lane = laneTo([only], { limits: given === "nothing" ? shortLimits : patientLimits });
    // The refusal is told at once: nothing waits for RSET.
    expect(told(await send(lane))).toEqual(["failed 1"]);
    expect(only.lines).not.toContain("RSET");
    refuse = false;
    expect(told(await send(lane))).toEqual(["delivered 1"]);
    expect(only.lines.filter((line) => line === "RSET").length).toBe(1);
    expect(only.connections()).toBe(given === "single octets" ? 1 : 2);
  });
});

describe("QUIT answered by", () => {
  test.each(Object.keys(answers) as Given[])("%s: the connection ends", async (given) => {
    const only = await hopWith((verb, line, connection) => {
      if (verb !== "QUIT") return undefined;
      return given === "single octets"
        ? { bytewise: "221 2.0.0 bye" }
        : faulty("MAIL", given, true)("MAIL", line, connection);
    });
    const lane = laneTo([only], { limits: shortLimits });
    expect(told(await send(lane))).toEqual(["delivered 1"]);
    expect(lane.stop()).toEqual([]);
    await only.until(() => only.open() === 0);
    expect(only.lines).toContain("QUIT");
  });
});
