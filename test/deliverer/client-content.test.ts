/** The content that goes to a next hop, and one connection for many messages. */
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { connectToHop, type HopConnection } from "../../src/deliverer/client.ts";
import type { DeliveryOutcome } from "../../src/deliverer/outcome.ts";
import { SpoolFault, type ClaimedMessage } from "../../src/spool/spool.ts";
import { useConnections, useHops } from "./fixtures.ts";
import { addressed, claimedMessage, makeCertificates, nextHop, patientLimits, pinned, plaintext } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const connected = useConnections(server);

const allOf = (connection: HopConnection, message: ClaimedMessage) => connection.deliver(message, addressed(message));

async function outcomesOf(connection: HopConnection, message: ClaimedMessage): Promise<DeliveryOutcome[]> {
  const { outcomes, fault } = await allOf(connection, message);
  if (fault !== undefined) throw fault;
  return [...outcomes].toSorted(([a], [b]) => a - b).map(([, outcome]) => outcome);
}

const delivered: DeliveryOutcome = { kind: "delivered", reply: "250 2.0.0 taken", dsnPassedOn: true };

describe("the content leaves exactly as the spool has it", () => {
  const shapes: ReadonlyArray<readonly [string, Buffer]> = [
    ["an empty message", Buffer.alloc(0)],
    ["a header and nothing else", Buffer.from("Subject: x\r\n")],
    ["an empty line and nothing else", Buffer.from("\r\n")],
    ["dots, doubled as the wire form has them", Buffer.from("Subject: dots\r\n\r\n..\r\n...\r\n..a\r\na.\r\n.\t\r\n")],
    ["one doubled dot", Buffer.from("..\r\n")],
    ["8-bit octets of all kinds", Buffer.concat([everyOctet(), Buffer.from("\r\n")])],
    ["a line of 100,000 octets", Buffer.from(`Subject: long\r\n\r\n${"x".repeat(100_000)}\r\n`)],
    ["lines that look like commands", Buffer.from("QUIT\r\nMAIL FROM:<>\r\n354 x\r\n")],
    ["empty lines at the end", Buffer.from("Subject: x\r\n\r\n\r\n\r\n\r\n")],
  ];

  function everyOctet(): Buffer {
    const octets = Buffer.from(Array.from({ length: 256 }, (_, octet) => octet));
    return octets.filter((octet) => octet !== 0x0d && octet !== 0x0a && octet !== 0) as Buffer;
  }

  for (const tls of ["with TLS", "in plain text"] as const) {
    test.each(shapes)(`${tls}: %s`, async (_, content) => {
      const hop = await hopWith();
      const connection = await connected(hop, tls === "with TLS" ? undefined : plaintext);
      expect(await outcomesOf(connection, claimedMessage({ content }))).toEqual([delivered]);
      expect(hop.contents).toEqual([content]);
    });
  }

  test.each(shapes)("streamed, in pieces of one octet and more: %s", async (_, content) => {
    const hop = await hopWith();
    const stream = async function* () {
      const cuts = content.length > 1000 ? [1, 2, 500] : [...content.keys()].slice(1);
      for (const [at, from] of [0, ...cuts].entries()) yield content.subarray(from, cuts[at]);
    };
    const message = claimedMessage({ content, stream });
    expect(await outcomesOf(await connected(hop), message)).toEqual([delivered]);
    expect(hop.contents).toEqual([content]);
  });

  test("many messages of all shapes over one connection", async () => {
    const hop = await hopWith();
    const connection = await connected(hop);
    for (const [, content] of shapes) await outcomesOf(connection, claimedMessage({ content }));
    expect(hop.contents).toEqual(shapes.map(([, content]) => content));
    expect(hop.connections()).toBe(1);
    expect(hop.lines).not.toContain("RSET");
  });

  test("20 MiB and more are streamed: never more than a little of it is in memory", async () => {
    const hop = await hopWith({ digestsOnly: true });
    const pieces = 256;
    const piece = Buffer.alloc(256 * 1024, `${"0123456789".repeat(9)}abcdefgh\r\n`);
    const wireBytes = pieces * piece.length;
    const digest = createHash("sha256");
    let readBytes = 0;
    let inFlightMax = 0;
    const stream = async function* () {
      for (let count = 0; count < pieces; count += 1) {
        digest.update(piece);
        readBytes += piece.length;
        inFlightMax = Math.max(inFlightMax, readBytes - hop.contentBytes());
        yield piece;
      }
    };
    // A piece ends in the middle of a line; the content ends with one that is whole.
    const message = claimedMessage({
      meta: { wireBytes: wireBytes + 2, sizeBytes: 1000 },
      stream: async function* () {
        yield* stream();
        digest.update("\r\n");
        yield Buffer.from("\r\n");
      },
    });
    expect(await outcomesOf(await connected(hop), message)).toEqual([delivered]);
    expect(hop.digests).toEqual([digest.digest("hex")]);
    // Most of it stands in the kernel's buffers.
    expect(inFlightMax).toBeLessThan(wireBytes / 4);
  }, 60_000);

  test("content that fails its check is cut off before the final dot", async () => {
    const hop = await hopWith();
    const connection = await connected(hop);
    const stream = async function* () {
      yield Buffer.from("Subject: x\r\n\r\nfirst piece\r\n");
      await hop.until(() => hop.contentBytes() > 0);
      throw new SpoolFault("damaged", "the checksum does not match");
    };
    await expect(allOf(connection, claimedMessage({ stream }))).rejects.toMatchObject({ kind: "damaged" });
    await hop.until(() => hop.open() === 0);
    expect(hop.contents).toEqual([]);
    expect(connection.usable).toBe(false);
  });

  test("a failing disk is a fault of the spool, whatever it threw", async () => {
    const hop = await hopWith();
    const stream = (): AsyncIterable<Buffer> => ({
      [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error("EIO: i/o error, read")) }),
    });
    const sent = allOf(await connected(hop), claimedMessage({ stream }));
    await expect(sent).rejects.toMatchObject({ name: "SpoolFault", kind: "io" });
    expect(hop.contents).toEqual([]);
  });

  test("the file behind a content is let go of, however far it was read", async () => {
    for (const script of [
      (verb: string) => (verb === "MAIL" ? "550 5.7.1 no" : undefined),
      (verb: string) => (verb === "RCPT" ? "550 5.1.1 no" : undefined),
      (verb: string) => (verb === "DATA" ? ({ close: true } as const) : undefined),
      (verb: string) => (verb === "PIECE" ? "552 5.3.4 too much" : undefined),
      () => undefined,
    ]) {
      const hop = await hopWith({ script });
      const { promise: closed, resolve: close } = Promise.withResolvers<void>();
      let isOpen = false;
      const stream = async function* () {
        isOpen = true;
        try {
          for (let left = 500; left > 0; left -= 1) yield Buffer.alloc(64 * 1024, "sixteen octets\r\n");
        } finally {
          close();
        }
      };
      await allOf(await connected(hop), claimedMessage({ stream, meta: { wireBytes: 500 * 64 * 1024 } }));
      if (isOpen) await closed;
    }
  });
});

describe("one connection for many messages", () => {
  test("RSET is said only where a transaction was left open", async () => {
    let refuse: string | undefined;
    const hop = await hopWith({ script: (verb) => (verb === refuse ? "550 5.7.1 no" : undefined) });
    const connection = await connected(hop);
    for (const [verb, wanted] of [
      ["MAIL", false],
      ["RCPT", true],
      ["DATA", true],
      ["CONTENT", false],
    ] as const) {
      hop.lines.length = 0;
      refuse = verb;
      expect(await outcomesOf(connection, claimedMessage())).toMatchObject([{ kind: "failed", status: "5.7.1" }]);
      refuse = undefined;
      expect(await outcomesOf(connection, claimedMessage())).toEqual([delivered]);
      expect([verb, hop.lines.includes("RSET")]).toEqual([verb, wanted]);
    }
    expect(hop.connections()).toBe(1);
  });

  test("after so many messages it is not used again", async () => {
    const hop = await hopWith();
    const limits = { ...patientLimits, messagesPerConnectionMax: 2 };
    const options = { hostname: "mx.corp.example", limits };
    const connection = await connectToHop(nextHop(hop, pinned(server.pin)), options);
    await outcomesOf(connection, claimedMessage());
    expect(connection.usable).toBe(true);
    await outcomesOf(connection, claimedMessage());
    expect(connection.usable).toBe(false);
    connection.end();
  });

  test("end() says QUIT and closes, also where a transaction was left open", async () => {
    const hop = await hopWith({ script: (verb) => (verb === "RCPT" ? "550 5.1.1 no" : undefined) });
    const connection = await connected(hop);
    await outcomesOf(connection, claimedMessage());
    connection.end();
    expect(connection.usable).toBe(false);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.slice(-2)).toEqual(["DATA", "QUIT"]);
  });

  test("an idle connection that the server ends is not usable, and harms nobody", async () => {
    for (const end of ["421 4.4.2 idle too long\r\n", "", "\r\n\r\n", "250 what?\r\n"]) {
      const hop = await hopWith();
      const connection = await connected(hop);
      const ended = new Promise((resolve) => connection.once("end", resolve));
      const sockets = hop.sockets();
      for (const socket of sockets) socket.end(end);
      await ended;
      expect(connection.usable).toBe(false);
      const { fault } = await allOf(connection, claimedMessage());
      expect(fault).toMatchObject({ name: "HopFault", afterData: false });
      connection.end();
    }
  });
});
