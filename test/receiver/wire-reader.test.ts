import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Intake } from "../../src/receiver/intake.ts";
import { WireReader } from "../../src/receiver/wire-reader.ts";

const notClosed = () => false;
const lineBytesMax = () => 4096;

/** Reads the octets in pieces, and tells what was heard. */
async function hear(wire: string, cuts: readonly number[] = []): Promise<string[]> {
  const heard: string[] = [];
  let faulty = false;
  const reader = new WireReader(
    {
      onCommand: (line) => {
        heard.push(line.toString("latin1"));
        // Now and then a reply has to wait for the client.
        return heard.length % 2 === 0 ? Promise.resolve() : undefined;
      },
      onEndOfData: () => Promise.resolve(),
      onFault: (fault) => {
        heard.push(`fault ${fault}`);
        faulty = true;
      },
    },
    lineBytesMax,
  );
  const places = [...new Set(cuts)].filter((place) => place > 0 && place < wire.length).toSorted((a, b) => a - b);
  let from = 0;
  for (const to of [...places, wire.length]) {
    await reader.read(Buffer.from(wire.slice(from, to), "latin1"), () => faulty);
    from = to;
  }
  return heard;
}

describe("command lines", () => {
  it("end at CRLF and nowhere else, in any split", async () => {
    const unit = fc.constantFrom("\r\n", "\r", "NOOP", " ", "\0", "\xe4");
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit, maxLength: 30 }),
        fc.array(fc.nat(80), { maxLength: 8 }),
        async (wire, cuts) => {
          const expected = wire.split("\r\n").slice(0, -1);
          expect(await hear(wire, cuts)).toEqual(expected);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it.each(["NOOP\n", "\n", "a\r\nb\nc\r\n", "a\rb\n"])(
    "with a bare LF are the last thing that is read: %j",
    async (wire) => {
      const complete = wire.slice(0, Math.max(0, wire.lastIndexOf("\r\n", wire.search(/(?<!\r)\n/)) + 2));
      const expected = [...complete.split("\r\n").slice(0, -1), "fault bareLineFeed"];
      for (let cut = 0; cut < wire.length; cut += 1) expect(await hear(wire, [cut])).toEqual(expected);
    },
  );

  it("of 4094 octets are read, and longer ones are not, wherever they are split", async () => {
    const line = "x".repeat(4094);
    for (const cut of [0, 1, 4093, 4094, 4095]) {
      expect(await hear(`${line}\r\nb\r\n`, [cut])).toEqual([line, "b"]);
      expect(await hear(`${line}x\r\nb\r\n`, [cut])).toEqual(["fault lineTooLong"]);
      expect(await hear(`${line}xxx`, [cut])).toEqual(["fault lineTooLong"]);
    }
  });

  it("are not read any more when the session is closed by one of them", async () => {
    const heard: string[] = [];
    const reader = new WireReader(
      {
        onCommand: (line) => void heard.push(line.toString()),
        onEndOfData: () => Promise.resolve(),
        onFault: () => undefined,
      },
      lineBytesMax,
    );
    await reader.read(Buffer.from("a\r\nQUIT\r\nb\r\n"), () => heard.at(-1) === "QUIT");
    expect(heard).toEqual(["a", "QUIT"]);
  });

  it("in great number leave others their turn", async () => {
    const reader = new WireReader(
      {
        onCommand: () => undefined,
        onEndOfData: () => Promise.resolve(),
        onFault: () => undefined,
      },
      lineBytesMax,
    );
    let turns = 0;
    const other = setInterval(() => (turns += 1), 0);
    let reading = true;
    const turn = () => {
      turns += 1;
      if (reading) setImmediate(turn);
    };
    setImmediate(turn);
    await reader.read(Buffer.from("NOOP\r\n".repeat(10_000)), notClosed);
    reading = false;
    clearInterval(other);
    expect(turns).toBeGreaterThanOrEqual(90);
  });
});

describe("content", () => {
  it("is read up to its end, what follows is read as commands, and a flood that needs no waiting leaves others their turn", async () => {
    const heard: string[] = [];
    const reader = new WireReader(
      {
        onCommand: (line) => void heard.push(line.toString()),
        onEndOfData: async () => {
          heard.push("end");
          await Promise.resolve();
        },
        onFault: () => undefined,
      },
      lineBytesMax,
    );
    const written: Buffer[] = [];
    const intake = new Intake({
      dropBox: {
        receive: () => ({
          id: "0mwu62vcbeujfwm1ta",
          write: (wire) => void written.push(wire),
          commit: () => Promise.reject(new Error("not asked for")),
          discard: () => Promise.resolve(),
        }),
        close: () => Promise.resolve(),
      },
      hostname: "mx.corp.example",
      partner: "acme",
      envelope: { reversePath: { kind: "null" }, recipients: [], body: "7bit", smtpUtf8: false },
      session: { id: "s", address: "127.0.0.11", helo: "x" },
      messageBytesMax: 100,
      limits: { headerBytesMax: 1024, headerLinesMax: 100, hopsMax: 50 },
      takeBytes: () => undefined,
      giveBackBytes: () => undefined,
      judgeHeader: () => ({ refusal: undefined, observed: [] }),
      traceFields: () => "X-Trace: 1\r\n",
      now: () => 0,
    });
    reader.receiveContent(intake);
    let turns = 0;
    let reading = true;
    const turn = () => {
      turns += 1;
      if (reading) setImmediate(turn);
    };
    setImmediate(turn);
    for (let piece = 0; piece < 50; piece += 1) await reader.read(Buffer.from("x".repeat(65_536)), notClosed);
    expect(turns).toBeGreaterThanOrEqual(45);
    await reader.read(Buffer.from("\r\n.\r\nRSET\r\nQU"), notClosed);
    await reader.read(Buffer.from("IT\r\n"), notClosed);
    reading = false;
    expect(heard).toEqual(["end", "RSET", "QUIT"]);
    expect(written).toEqual([]);
  });
});
