/**
 * What a next hop answers, command by command and while the content is under way: who of the recipients is settled how,
 * and in what words.
 */
import { describe, expect, test } from "vitest";
import { Lane, type Job } from "../../src/deliverer/lane.ts";
import { startScriptedHop, usualReplies, type Script, type ScriptedHop } from "../tools/scripted-hop.ts";
import { send, told, textsOf, useHops, useLanes } from "./fixtures.ts";
import {
  addressed,
  claimedMessage,
  makeCertificates,
  nextHop,
  patientLimits,
  pinned,
  routeTo,
  shortLimits,
  watchedLog,
} from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const laneTo = useLanes(server);

const withoutPipelining = usualReplies["EHLO"]?.replace("250-PIPELINING\r\n", "");

describe.each([
  ["pipelined", true],
  ["one by one", false],
] as const)("commands %s", (_, pipelining) => {
  test("mixed results are settled recipient by recipient", async () => {
    const replies = new Map([
      ["a", "250 2.1.5 ok"],
      ["b", "550 5.1.1 unknown"],
      ["c", "451 4.2.1 later"],
      ["d", "250 2.1.5 ok"],
      ["e", "252 2.1.5 perhaps"],
      ["f", "552 5.2.2 full"],
    ]);
    const script: Script = (verb, line) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      return verb === "RCPT" ? replies.get(/<(.)/.exec(line)?.[1] ?? "") : undefined;
    };
    const [first, second] = [await hopWith(script), await hopWith()];
    const to = [...replies.keys()].map((name) => `${name}@corp.example`);
    const result = await send(laneTo([first, second]), claimedMessage({ to }));
    expect(told(result)).toEqual(["delivered 1", "failed 1", "temporary 1", "delivered 1", "delivered 1", "failed 1"]);
    expect(first.contents.length).toBe(1);
    expect(second.connections()).toBe(0);
  });

  test("what was refused before the connection broke stays refused; the second server hears of the rest only", async () => {
    const script: Script = (verb, line) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      if (verb === "RCPT" && line.includes("<b")) return "550 5.1.1 unknown";
      if (verb === "RCPT" && line.includes("<c")) return "421 4.3.2 bye";
      return undefined;
    };
    const [first, second] = [await hopWith(script), await hopWith()];
    const to = ["a@corp.example", "b@corp.example", "c@corp.example"];
    expect(told(await send(laneTo([first, second]), claimedMessage({ to })))).toEqual([
      "delivered 2",
      "failed 1",
      "delivered 2",
    ]);
    expect(second.lines.filter((line) => line.startsWith("RCPT"))).toEqual([
      "RCPT TO:<a@corp.example>",
      "RCPT TO:<c@corp.example>",
    ]);
  });

  test("MAIL refused for now: the 503 that follows for each recipient is not about them", async () => {
    const script: Script = (verb) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      if (verb === "MAIL") return "451 4.7.1 greylisted";
      return verb === "RCPT" || verb === "DATA" ? "503 5.5.1 MAIL first" : undefined;
    };
    const only = await hopWith(script);
    const result = await send(laneTo([only]), claimedMessage({ to: ["a@corp.example", "b@corp.example"] }));
    expect(told(result)).toEqual(["temporary 1", "temporary 1"]);
    expect(textsOf(result)).toEqual(["451 4.7.1 greylisted", "451 4.7.1 greylisted"]);
  });

  test("DATA refused: who was accepted hears of that, who was refused keeps his own answer", async () => {
    const script: Script = (verb, line) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      if (verb === "RCPT" && line.includes("<b")) return "450 4.2.1 busy";
      return verb === "DATA" ? "554 5.7.0 no" : undefined;
    };
    const only = await hopWith(script);
    const result = await send(laneTo([only]), claimedMessage({ to: ["a@corp.example", "b@corp.example"] }));
    expect(textsOf(result).toSorted()).toEqual(["450 4.2.1 busy", "554 5.7.0 no"]);
    expect(told(result)).toEqual(["failed 1", "temporary 1"]);
  });

  test("a 354 after all recipients were refused gets no content, and the connection stays in step", async () => {
    let refuse = true;
    const script: Script = (verb) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      if (verb === "RCPT" && refuse) return "550 5.1.1 unknown";
      return verb === "DATA" ? "354 go ahead" : undefined;
    };
    const only = await hopWith(script);
    const lane = laneTo([only]);
    expect(told(await send(lane))).toEqual(["failed 1"]);
    // RFC 2920 §3.1: a single dot ends what the server wants to have begun.
    expect(only.contents).toEqual(pipelining ? [Buffer.alloc(0)] : []);
    refuse = false;
    expect(told(await send(lane, claimedMessage({ content: "Subject: second\r\n" })))).toEqual(["delivered 1"]);
    expect(only.contents.at(-1)?.toString()).toBe("Subject: second\r\n");
    expect(only.connections()).toBe(1);
  });

  test("a 354 after MAIL was refused gets nothing at all", async () => {
    const script: Script = (verb) => {
      if (verb === "EHLO" && !pipelining) return withoutPipelining;
      if (verb === "MAIL") return "550 5.7.1 no";
      return verb === "DATA" ? "354 go ahead" : undefined;
    };
    const only = await hopWith(script);
    expect(told(await send(laneTo([only])))).toEqual(["failed 1"]);
    expect(only.contents).toEqual([]);
  });
});

describe("the content is under way", () => {
  const long = () =>
    claimedMessage({
      meta: { wireBytes: 64 * 1024 * 1024 },
      stream: async function* () {
        for (let count = 0; count < 1024; count += 1) yield Buffer.alloc(64 * 1024, "sixteen octets\r\n");
      },
    });

  test.each([
    ["552 5.3.4 too much", "failed 1", 0],
    ["452 4.3.1 no space", "delivered 2", 1],
    ["421 4.3.2 bye", "delivered 2", 1],
    ["250 2.0.0 that will do", "delivered 2", 1],
    ["what is this", "delivered 2", 1],
  ])("and the server says %s: %s", async (reply, outcome, secondContents) => {
    let isSaid = false;
    const first = await hopWith({
      digestsOnly: true,
      script: (verb) => {
        if (verb !== "PIECE" || isSaid) return undefined;
        isSaid = true;
        return reply;
      },
    });
    const second = await hopWith({ digestsOnly: true });
    expect(told(await send(laneTo([first, second]), long()))).toEqual([outcome]);
    await first.until(() => first.open() === 0);
    // No final dot, and no command in the middle of the content.
    expect(first.digests).toEqual([]);
    expect(first.lines.at(-1)).toBe("DATA");
    expect(second.digests.length).toBe(secondContents);
  });

  test("and the server closes: another one gets it", async () => {
    const first: ScriptedHop = await hopWith((verb) => {
      if (verb === "PIECE") first.drop();
      return undefined;
    });
    const second = await hopWith({ digestsOnly: true });
    expect(told(await send(laneTo([first, second]), long()))).toEqual(["delivered 2"]);
  });

  test("and the server takes nothing: it is given up after the time for a block, not after the time for all of it", async () => {
    const first: ScriptedHop = await hopWith((verb) => {
      if (verb === "PIECE") for (const socket of first.sockets()) socket.pause();
      return undefined;
    });
    const second = await hopWith({ digestsOnly: true });
    expect(told(await send(laneTo([first, second], { limits: shortLimits }), long()))).toEqual(["delivered 2"]);
  });

  test("a 250 that came together with 354 answers nothing", async () => {
    const first = await hopWith((verb) => (verb === "DATA" ? "354 go ahead\r\n250 2.0.0 taken" : undefined));
    const second = await hopWith();
    expect(told(await send(laneTo([first, second])))).toEqual(["delivered 2"]);
    expect(first.contents).toEqual([]);
  });

  test.each(["MAIL", "RCPT"])("a 354 to %s is no answer to it", async (step) => {
    const first = await hopWith((verb) => (verb === step ? "354 go ahead" : undefined));
    const second = await hopWith();
    expect(told(await send(laneTo([first, second])))).toEqual(["delivered 2"]);
    expect(first.contents).toEqual([]);
  });

  test("a 250 in place of 354 is no leave to send", async () => {
    const first = await hopWith((verb) => (verb === "DATA" ? "250 2.0.0 ok" : undefined));
    const second = await hopWith();
    expect(told(await send(laneTo([first, second])))).toEqual(["delivered 2"]);
    expect(first.contents).toEqual([]);
  });
});

describe("the reply to the final dot", () => {
  const lost = { "a close": { close: true }, nothing: { silent: true }, garbage: "fine" } as const;

  test.each(["a close", "nothing", "garbage"] as const)(
    "is %s: the message waits, and no other server gets a copy",
    async (given) => {
      const first = await hopWith((verb) => (verb === "CONTENT" ? lost[given] : undefined));
      const second = await hopWith();
      const lane = laneTo([first, second], { limits: given === "nothing" ? shortLimits : patientLimits });
      expect(told(await send(lane))).toEqual(["temporary 1"]);
      expect(first.contents.length).toBe(1);
      expect(second.connections()).toBe(0);
      // The next message finds the first server left alone.
      expect(told(await send(lane))).toEqual(["delivered 2"]);
      expect(first.connections()).toBe(1);
    },
  );

  test("is lost for accepted recipients only: refused ones keep their answer", async () => {
    const script: Script = (verb, line) => {
      if (verb === "RCPT" && line.includes("<b")) return "550 5.1.1 unknown";
      return verb === "CONTENT" ? { close: true } : undefined;
    };
    const [first, second] = [await hopWith(script), await hopWith()];
    const to = ["a@corp.example", "b@corp.example"];
    const result = await send(laneTo([first, second]), claimedMessage({ to }));
    expect(told(result)).toEqual(["temporary 1", "failed 1"]);
    expect(second.connections()).toBe(0);
  });
});

describe("a reply that reaches log, queue and report", () => {
  test.each([
    ["control characters", "550 5.7.1 \u001b[31mred\u0000 \u0007bell \u202egnp\u2028x", /^550 5\.7\.1 \ufffd\[31mred/],
    ["50,000 characters", `550 5.7.1 ${"x".repeat(50_000)}`, /^550 5\.7\.1 x{980,990} \[\.\.\.\]$/],
    ["300 lines", `${"550-5.7.1 line\r\n".repeat(299)}550 5.7.1 end`, /^550-5\.7\.1 line\n550-/],
    ["octets that are not UTF-8", Buffer.from("550 5.7.1 caf\u00e9\r\n", "latin1"), /^550 5\.7\.1 caf\u00e9$/],
    ["UTF-8", "550 5.7.1 caf\u00e9", /^550 5\.7\.1 caf\u00e9$/],
  ])("with %s is kept as text of bounded length", async (_, reply, kept) => {
    const only = await hopWith((verb) =>
      verb === "RCPT" ? (Buffer.isBuffer(reply) ? { raw: reply } : reply) : undefined,
    );
    const result = await send(laneTo([only]));
    const [text = ""] = textsOf(result);
    expect(text).toMatch(kept);
    expect(text.length).toBeLessThan(1_100);
    // eslint-disable-next-line no-control-regex -- that is what it is about
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2028]/u);
    expect(result.verdicts.get(0)?.outcome).toMatchObject({ kind: "failed", status: "5.7.1" });
  });

  test("the same for an acceptance, and for a greeting that sends us away", async () => {
    const content = await hopWith((verb) => (verb === "CONTENT" ? `250 2.0.0 ${"y".repeat(5_000)}\u0007` : undefined));
    const [reply = ""] = textsOf(await send(laneTo([content])));
    expect(reply).toMatch(/^250 2\.0\.0 y+ \[\.\.\.\]$/);
    const greeting = await hopWith((verb) => (verb === "CONNECT" ? `554 5.7.1 ${"z".repeat(5_000)}` : undefined));
    const result = await send(laneTo([greeting]));
    expect(textsOf(result)[0]).toMatch(/^554 5\.7\.1 z+ \[\.\.\.\]$/);
    // 5xx, but not about the message.
    expect(result.verdicts.get(0)?.outcome).toMatchObject({ kind: "temporary", status: "4.7.1", remote: true });
  });
});

describe("time", () => {
  test("each reply has its own limit: many recipients may take long together", async () => {
    const limits = { ...patientLimits, replyTimeoutMs: 1_000 };
    const pauseMs = limits.replyTimeoutMs / 5;
    const only = await hopWith(async (verb) => {
      if (verb === "EHLO") return withoutPipelining;
      if (verb === "RCPT") await new Promise((resolve) => setTimeout(resolve, pauseMs));
      return undefined;
    });
    const to = Array.from({ length: 8 }, (_, at) => `r${at}@corp.example`);
    const result = await send(laneTo([only], { limits }), claimedMessage({ to }));
    expect(new Set(told(result))).toEqual(new Set(["delivered 1"]));
  });

  test("an envelope has a limit as a whole", async () => {
    const only = await hopWith(async (verb) => {
      if (verb === "RCPT") await new Promise((resolve) => setTimeout(resolve, 50));
      return undefined;
    });
    const to = Array.from({ length: 50 }, (_, at) => `r${at}@corp.example`);
    const limits = { ...patientLimits, envelopeTimeoutMs: 200 };
    expect(new Set(told(await send(laneTo([only], { limits }), claimedMessage({ to }))))).toEqual(
      new Set(["temporary 1"]),
    );
  });

  test("a reply that comes in drops is not waited for without end", async () => {
    for (const step of ["CONNECT", "EHLO", "RCPT"]) {
      const only: ScriptedHop = await hopWith(async (verb) => {
        if (verb !== step) return undefined;
        const timer = setInterval(() => {
          for (const socket of only.sockets()) if (socket.writable) socket.write("2");
        }, 20);
        await only.until(() => only.open() === 0);
        clearInterval(timer);
        return { silent: true };
      });
      expect(told(await send(laneTo([only], { limits: shortLimits })))).toEqual(["temporary 1"]);
    }
  });
});

test("a server that does not listen, one that does not answer, and one that works: one attempt", async () => {
  const gone = await startScriptedHop(server);
  await gone.close();
  const silent = await hopWith((verb) => (verb === "CONNECT" ? { silent: true } : undefined));
  const third = await hopWith();
  expect(told(await send(laneTo([gone, silent, third], { limits: shortLimits })))).toEqual(["delivered 3"]);
});

test("a job is done once, whatever its owner does in between", async () => {
  const only = await hopWith();
  const { log, named } = watchedLog();
  const route = routeTo(nextHop(only, pinned(server.pin)));
  const lane = new Lane(route, { hostname: "mx.corp.example", log, now: Date.now, limits: patientLimits });
  const message = claimedMessage();
  let calls = 0;
  const broken: Job = {
    message,
    recipients: addressed(message),
    done: () => {
      calls += 1;
      throw new Error("the owner has a bug");
    },
  };
  lane.add("acme", broken);
  expect(told(await send(lane))).toEqual(["delivered 1"]);
  expect(calls).toBe(1);
  expect(named("bug")).toMatchObject([{ error: "the owner has a bug" }]);
});
