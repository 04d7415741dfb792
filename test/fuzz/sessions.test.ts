/**
 * Random conversations, in random pieces, over a real TLS session: every reply is one that the model allows, the server
 * outlives them all, 250 after data is given to what is in the spool and to nothing else, and no session hangs.
 *
 * `PINRELAY_FUZZ_SECONDS` says for how long (60 in CI, 600 by hand); a failure prints the seed, `PINRELAY_FUZZ_SEED` runs it
 * again.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SmtpDialogue } from "../tools/smtp-dialogue.ts";
import { acmeAddress } from "../tools/relay-folder.ts";
import { until, useRelay, withPartner, withRelayLimits } from "../receiver/support.ts";
import { expectation, initialState, type Command } from "./smtp-model.ts";

const seconds = Number(process.env["PINRELAY_FUZZ_SECONDS"] ?? 10);
const seed = process.env["PINRELAY_FUZZ_SEED"];

const startRelay = useRelay();

const casings = fc.constantFrom(
  (text: string) => text,
  (text: string) => text.toLowerCase(),
  (text: string) => text.replaceAll(/[A-Z]/g, (letter, at: number) => (at % 2 === 0 ? letter : letter.toLowerCase())),
);

function commands(kind: Command["kind"], valid: readonly string[], invalid: readonly string[]): fc.Arbitrary<Command> {
  const verb = kind === "garbage" ? "" : kind;
  const of = (args: readonly string[], isValid: boolean): Array<fc.Arbitrary<Command>> =>
    args.length === 0
      ? []
      : [
          fc
            .tuple(casings, fc.constantFrom(...args))
            .map(([casing, argument]) => ({ line: `${casing(verb)}${argument}`, kind, valid: isValid })),
        ];
  return fc.oneof(...of(valid, true), ...of(invalid, false));
}

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    arbitrary: commands("EHLO", [" mx.acme.example", " [127.0.0.11]", " x"], ["", " a b", ` ${"x".repeat(300)}`]),
    weight: 3,
  },
  { arbitrary: commands("HELO", [" mx.acme.example"], ["", " a b"]), weight: 1 },
  {
    arbitrary: commands(
      "MAIL",
      [
        " FROM:<a@acme.example>",
        " FROM:<>",
        ' FROM:<"a b"@acme.example>',
        " FROM:<a@acme.example> SIZE=100",
        " FROM:<a@sub.acme.example> BODY=8BITMIME",
      ],
      [
        "",
        " FROM:a@acme.example>",
        " FROM:<a@elsewhere.example>",
        " FROM:<a@acme.example> SIZE=x",
        " FROM:<a@acme.example> AUTH=<>",
        " FROM:<a@acme.example> SIZE=99999999999",
        " FROM:<@a.example,@b.example:a@elsewhere.example>",
        " TO:<a@acme.example>",
        " FROM:<\u00e4@acme.example>",
        " FROM:<a@acme.example>\0",
      ],
    ),
    weight: 6,
  },
  {
    arbitrary: commands(
      "RCPT",
      [
        " TO:<orders@corp.example>",
        " TO:<x@edi.corp.example>",
        " TO:<postmaster>",
        " TO:<Postmaster@corp.example>",
        " TO:<orders@CORP.example> NOTIFY=NEVER",
        " TO:<@relay.example:orders@corp.example>",
      ],
      [
        "",
        " TO:<>",
        " TO:<other@corp.example>",
        " TO:<orders@elsewhere.example>",
        " TO:<orders%elsewhere.example@corp.example>",
        " TO:<elsewhere.example!orders@corp.example>",
        " TO:<orders@corp.example> NOTIFY=SOMETIMES",
        " FROM:<orders@corp.example>",
        " TO:<orders@[127.0.0.1]>",
      ],
    ),
    weight: 6,
  },
  { arbitrary: commands("DATA", [""], [" now"]), weight: 4 },
  { arbitrary: commands("RSET", [""], []), weight: 1 },
  { arbitrary: commands("NOOP", ["", " x"], []), weight: 1 },
  { arbitrary: commands("STARTTLS", [""], [" x"]), weight: 1 },
  {
    arbitrary: commands(
      "garbage",
      [],
      [
        "",
        "XYZZY",
        "AUTH PLAIN AAAA",
        "BDAT 10 LAST",
        "VRFY x",
        "EXPN x",
        "TURN",
        "MAILFROM:<a@acme.example>",
        "\u0001",
        "HELP ".padEnd(400, "x"),
      ],
    ),
    weight: 1,
  },
);

const content = fc.oneof(
  fc.constantFrom(
    "Subject: x\r\n\r\nx\r\n",
    "",
    "\r\n",
    "Subject: x\r\n\r\n..\r\n..x\r\n",
    "Subject: a\r\n b\r\n\r\n\r\n",
    "no header at all\r\n",
  ),
  fc.constantFrom(
    "Subject: x\r\n\r\na\nb\r\n",
    "Subject: x\r\n\r\n\n.\r\nMAIL FROM:<x@acme.example>\r\n",
    "Subject: x\r\n\r\na\r.\rb\r\n",
    "Subject: x\r\n\r\n\0\r\n",
    "Subject: x\r\n\r\n\r\n.\nRSET\r\n",
  ),
  fc.uint8Array({ maxLength: 300 }).map(
    (octets) =>
      `${dotStuffed(
        Buffer.from(octets)
          .toString("latin1")
          .replaceAll(/\r\n\.(?=\r\n)/g, ""),
      )}\r\n`,
  ),
);

/** No line of it ends the message. */
function dotStuffed(text: string): string {
  return text.replaceAll(/(^|\r\n)\./g, "$1..");
}

const said = (kind: Command["kind"], line: string): fc.Arbitrary<Command> => fc.constant({ line, kind, valid: true });

/** Single commands, and whole transactions among them, or random ones would hardly ever come to DATA. */
const fragment: fc.Arbitrary<Command[]> = fc.oneof(
  { arbitrary: command.map((one) => [one]), weight: 3 },
  {
    arbitrary: fc
      .tuple(
        said("EHLO", "EHLO mx.acme.example"),
        said("MAIL", "MAIL FROM:<a@acme.example>"),
        fc.option(command, { nil: undefined, freq: 4 }),
        said("RCPT", "RCPT TO:<orders@corp.example>"),
        fc.option(command, { nil: undefined, freq: 4 }),
        said("DATA", "DATA"),
      )
      .map((commandsOfOne) => commandsOfOne.filter((one) => one !== undefined)),
    weight: 2,
  },
);

/** Where the octets are cut into packets. */
const cuts = fc.array(fc.nat({ max: 60 }), { maxLength: 6 });

/** RFC 5321 §4.5.2 and §2.3.8: what may be taken. */
function isWellFormed(wire: string): boolean {
  return !wire.includes("\0") && !/\r(?!\n)|(?<!\r)\n/.test(wire);
}

describe("random conversations", () => {
  it(
    "get legal replies, leave no session hanging, and no 250 without a message in the spool",
    async () => {
      const relay = await startRelay({
        change: (config) =>
          withRelayLimits({ handshakesPerMinute: 1e6 })(
            withPartner("acme", {
              limits: {
                messageBytesMax: 1e6,
                recipientsMax: 100,
                messagesPerMinute: 1e6,
                messagesPerDay: undefined,
                bytesPerMinute: undefined,
                bytesPerDay: undefined,
                recipientsPerMinute: undefined,
                recipientsPerDay: undefined,
                connectionsMax: 100,
                queueBytesMax: 1e9,
              },
            })(config),
          ),
      });
      let accepted = 0;
      let conversations = 0;
      const property = fc.asyncProperty(
        fc.array(fc.tuple(fragment, content, cuts), { minLength: 1, maxLength: 8 }),
        async (steps) => {
          conversations += 1;
          const client = await SmtpDialogue.open(relay.plain, acmeAddress);
          try {
            await client.reply();
            await client.say("EHLO x");
            await client.say("STARTTLS");
            await client.secure(relay.certificates.acme);
            let state = initialState;
            for (const [step, message, where] of steps.flatMap(([fragments, ...more]) =>
              fragments.map((one) => [one, ...more] as const),
            )) {
              const { codes, next } = expectation(state, step);
              await inPieces(client, Buffer.from(`${step.line}\r\n`, "utf8"), where);
              const reply = await client.reply();
              const code = reply.slice(0, 3);
              expect({ line: step.line, state, reply, legal: codes.test(code) }).toMatchObject({ legal: true });
              if (code === "421") return;
              if (code === "354") {
                await inPieces(client, Buffer.from(`${message}.\r\n`, "latin1"), where);
                const verdict = await client.reply();
                expect({ message, verdict, ok: verdict.startsWith("250 ") === isWellFormed(message) }).toMatchObject({
                  ok: true,
                });
                if (verdict.startsWith("250 ")) accepted += 1;
              }
              state = next(code);
            }
            // Still in step: what comes now is the reply to this.
            expect(await client.say("RSET")).toMatch(/^250 /);
            expect(await client.say("QUIT")).toMatch(/^221 /);
            await client.closed();
          } finally {
            client.close();
          }
        },
      );
      await fc.assert(property, {
        numRuns: 1_000_000,
        interruptAfterTimeLimit: seconds * 1000,
        markInterruptAsFailure: false,
        ...(seed === undefined ? {} : { seed: Number(seed) }),
      });
      // The time limit leaves the last conversation to itself: what it brings counts as well.
      await until("the last one has ended", () => relay.receiver.connections() === 0);
      expect(conversations).toBeGreaterThan(10);
      expect((await relay.spooled()).length).toBe(accepted);
      expect(accepted).toBeGreaterThan(0);
      expect(relay.log().filter(({ event }) => event === "fault")).toEqual([]);
    },
    (seconds + 60) * 1000,
  );
});

async function inPieces(client: SmtpDialogue, octets: Buffer, where: readonly number[]): Promise<void> {
  let from = 0;
  for (const cut of where) {
    const to = Math.min(octets.length, from + cut);
    if (to === from) continue;
    await client.writeApart(octets.subarray(from, to));
    from = to;
  }
  if (from < octets.length) client.write(octets.subarray(from));
}
