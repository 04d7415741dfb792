/** The commands that a next hop hears, and what it did not offer to take. */
import { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import type { HopConnection } from "../../src/deliverer/client.ts";
import type { DeliveryOutcome } from "../../src/deliverer/outcome.ts";
import type { ClaimedMessage } from "../../src/spool/spool.ts";
import type { Script, ScriptedHop } from "../tools/scripted-hop.ts";
import { useConnections, useHops } from "./fixtures.ts";
import { addressed, claimedMessage, makeCertificates, recipient, type MessageShape } from "./support.ts";

const { server } = await makeCertificates();
const hopWith = useHops(server);
const connected = useConnections(server);

const allOf = (connection: HopConnection, message: ClaimedMessage) => connection.deliver(message, addressed(message));

async function outcomesOf(connection: HopConnection, message: ClaimedMessage): Promise<DeliveryOutcome[]> {
  const { outcomes, fault } = await allOf(connection, message);
  if (fault !== undefined) throw fault;
  return [...outcomes].toSorted(([a], [b]) => a - b).map(([, outcome]) => outcome);
}

/** A hop whose reply to EHLO lists these extensions (STARTTLS before TLS included). */
const offering =
  (...extensions: readonly string[]): Script =>
  (verb) => {
    if (verb !== "EHLO") return undefined;
    const lines = ["hop.example", ...extensions, "STARTTLS"];
    return lines.map((line, at) => `250${at === lines.length - 1 ? " " : "-"}${line}`).join("\r\n");
  };

const delivered: DeliveryOutcome = { kind: "delivered", reply: "250 2.0.0 taken", dsnPassedOn: true };

describe("commands", () => {
  const commandsOf = (hop: ScriptedHop) => hop.lines.filter((line) => /^(?:MAIL|RCPT|DATA|RSET)/.test(line));

  async function told(script: Script, shape: MessageShape): Promise<string[]> {
    const hop = await hopWith({ script });
    await outcomesOf(await connected(hop), claimedMessage(shape));
    return commandsOf(hop);
  }

  const everything: MessageShape = {
    content: "Subject: x\r\n\r\nH\u00e4llo\r\n",
    to: [
      recipient("orders@corp.example", { notify: ["success", "failure", "delay"], originalRecipient: "rfc822;a+2B@b" }),
      recipient("edi@corp.example", { notify: "never" }),
      recipient("plain@corp.example"),
      recipient("last@corp.example", { originalRecipient: "rfc822;last@corp.example" }),
    ],
    envelope: { returnContent: "headers", envelopeId: "QQ+2B314159", smtpUtf8: true, body: "8bitmime" },
  };

  test("carry each recipient's own NOTIFY and ORCPT, and the message's RET, ENVID, SIZE, BODY and SMTPUTF8", async () => {
    expect(await told(offering("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"), everything)).toEqual([
      "MAIL FROM:<anna@acme.example> SIZE=22 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314159",
      "RCPT TO:<orders@corp.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2B@b",
      "RCPT TO:<edi@corp.example> NOTIFY=NEVER",
      "RCPT TO:<plain@corp.example>",
      "RCPT TO:<last@corp.example> ORCPT=rfc822;last@corp.example",
      "DATA",
    ]);
  });

  test("carry no DSN parameter where DSN is not offered", async () => {
    expect(await told(offering("SIZE", "8BITMIME", "SMTPUTF8"), everything)).toEqual([
      "MAIL FROM:<anna@acme.example> SIZE=22 BODY=8BITMIME SMTPUTF8",
      "RCPT TO:<orders@corp.example>",
      "RCPT TO:<edi@corp.example>",
      "RCPT TO:<plain@corp.example>",
      "RCPT TO:<last@corp.example>",
      "DATA",
    ]);
  });

  test("carry no parameter at all where nothing is offered", async () => {
    expect(await told(offering(), { envelope: { returnContent: "full", envelopeId: "x" } })).toEqual([
      "MAIL FROM:<anna@acme.example>",
      "RCPT TO:<orders@corp.example>",
      "DATA",
    ]);
  });

  test("say no BODY for a message without 8-bit octets, whatever its client said", async () => {
    const [mail] = await told(offering("8BITMIME"), { envelope: { body: "8bitmime" } });
    expect(mail).toBe("MAIL FROM:<anna@acme.example>");
  });

  test("name the null reverse-path, and a recipient who was the bare postmaster", async () => {
    expect(await told(offering(), { from: "", to: ["postmaster"] })).toEqual([
      "MAIL FROM:<>",
      "RCPT TO:<postmaster@corp.example>",
      "DATA",
    ]);
  });

  test("carry quoted local parts verbatim", async () => {
    const quoted = '"very odd \\" <one>, \\\\yes"@corp.example';
    expect(await told(offering(), { from: '"a b"@acme.example', to: [quoted] })).toEqual([
      'MAIL FROM:<"a b"@acme.example>',
      `RCPT TO:<${quoted}>`,
      "DATA",
    ]);
  });

  test("tell the same recipient twice apart", async () => {
    const hop = await hopWith({
      script: (verb, line) => (verb === "RCPT" && line.includes("NEVER") ? "452 4.5.3 once is enough" : undefined),
    });
    const to = [recipient("orders@corp.example"), recipient("orders@corp.example", { notify: "never" })];
    const [first, second] = await outcomesOf(await connected(hop), claimedMessage({ to }));
    expect(first).toEqual(delivered);
    expect(second).toMatchObject({ kind: "temporary", status: "4.5.3" });
  });

  test("say SMTPUTF8 wherever an address needs it", async () => {
    const utf8 = offering("8BITMIME", "SMTPUTF8");
    expect(await told(utf8, { to: ["jörg@corp.example"] })).toEqual([
      "MAIL FROM:<anna@acme.example> SMTPUTF8",
      "RCPT TO:<jörg@corp.example>",
      "DATA",
    ]);
    const [mail] = await told(utf8, { from: "änne@acme.example" });
    expect(mail).toBe("MAIL FROM:<änne@acme.example> SMTPUTF8");
  });

  test("bring ORCPT into ASCII where SMTPUTF8 is not said", async () => {
    const to = [
      recipient("a@corp.example", { originalRecipient: "utf-8;jörg@corp.example" }),
      recipient("b@corp.example", { originalRecipient: "rfc822;jörg@corp.example" }),
    ];
    const [, first, second] = await told(offering("DSN"), { to });
    expect(first).toBe("RCPT TO:<a@corp.example> ORCPT=utf-8;j\\x{F6}rg@corp.example");
    expect(second).toBe("RCPT TO:<b@corp.example>");
  });

  test("are pipelined only where PIPELINING is offered", async () => {
    for (const pipelining of [true, false]) {
      const order: string[] = [];
      const hop = await hopWith({
        script: async (verb, line, connection) => {
          order.push(`said ${verb}`);
          await new Promise((resolve) => setImmediate(resolve));
          order.push(`answered ${verb}`);
          return offering(...(pipelining ? ["PIPELINING"] : []))(verb, line, connection);
        },
      });
      let heard = 0;
      const connection = await connected(hop);
      order.length = 0;
      // What was on its way before the first answer tells whether it was waited for.
      const socket = connection._socket;
      if (socket === false || socket === null) throw new Error("not connected");
      const writes: string[] = [];
      const write = (octets: Buffer) => Socket.prototype.write.call(socket, octets);
      socket.prependListener("data", () => (heard += 1));
      Object.assign(socket, {
        write: (octets: Buffer) => {
          writes.push(`${heard} ${octets.toString().trim().split(/[ :]/)[0]}`);
          return write(octets);
        },
      });
      await outcomesOf(connection, claimedMessage({ to: ["a@corp.example", "b@corp.example"] }));
      const envelope = writes.slice(0, 4);
      expect(envelope).toEqual(
        pipelining ? ["0 MAIL", "0 RCPT", "0 RCPT", "0 DATA"] : ["0 MAIL", "1 RCPT", "2 RCPT", "3 DATA"],
      );
    }
  });

  test("greet with our name", async () => {
    const hop = await hopWith();
    await connected(hop);
    expect(hop.lines).toEqual(["EHLO mx.corp.example", "STARTTLS", "EHLO mx.corp.example"]);
  });
});

describe("what was not offered is not sent", () => {
  const eightBit = { content: "Subject: x\r\n\r\nH\u00e4llo\r\n" };
  const failures: ReadonlyArray<readonly [string, Script, MessageShape, string]> = [
    ["8-bit content without 8BITMIME", offering("SIZE", "SMTPUTF8"), eightBit, "5.6.3"],
    ["a UTF-8 recipient without SMTPUTF8", offering("8BITMIME"), { to: ["jörg@corp.example"] }, "5.6.7"],
    ["a UTF-8 reverse-path without SMTPUTF8", offering("8BITMIME"), { from: "jörg@acme.example" }, "5.6.7"],
    ["8-bit headers without SMTPUTF8", offering("8BITMIME"), { ...eightBit, envelope: { smtpUtf8: true } }, "5.6.7"],
    ["a message larger than SIZE", offering("SIZE 20"), {}, "5.3.4"],
  ];

  test.each(failures)("%s: reported, and the hop hears nothing of it", async (_, script, shape, status) => {
    const hop = await hopWith({ script });
    const connection = await connected(hop);
    expect(await outcomesOf(connection, claimedMessage(shape))).toMatchObject([
      { kind: "failed", status, remote: false },
    ]);
    expect(hop.lines.filter((line) => line.startsWith("MAIL"))).toEqual([]);
    expect(connection.usable).toBe(true);
    expect(await outcomesOf(connection, claimedMessage({ content: "a: b\r\n" }))).toMatchObject([
      { kind: "delivered" },
    ]);
  });

  test("a message of just the size that is offered passes", async () => {
    const hop = await hopWith({ script: offering("SIZE 6") });
    const connection = await connected(hop);
    expect(await outcomesOf(connection, claimedMessage({ content: "a: b\r\n" }))).toMatchObject([
      { kind: "delivered" },
    ]);
  });

  test.each(["SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999"])("%s is no limit", async (size) => {
    const hop = await hopWith({ script: offering(size) });
    expect(await outcomesOf(await connected(hop), claimedMessage())).toMatchObject([{ kind: "delivered" }]);
  });

  test("the recipients who can be named get the message", async () => {
    const hop = await hopWith({ script: offering("8BITMIME") });
    const message = claimedMessage({ to: ["jörg@corp.example", "orders@corp.example"] });
    expect(await outcomesOf(await connected(hop), message)).toMatchObject([
      { kind: "failed", status: "5.6.7" },
      { kind: "delivered" },
    ]);
    expect(hop.lines.filter((line) => line.startsWith("RCPT"))).toEqual(["RCPT TO:<orders@corp.example>"]);
  });

  test("words in a greeting, and names that only contain a keyword, offer nothing", async () => {
    const hop = await hopWith({
      script: (verb) =>
        verb === "EHLO"
          ? "250-hop.example has no 8BITMIME SMTPUTF8 DSN PIPELINING\r\n250-X-8BITMIME\r\n250-XDSN DSN\r\n250 STARTTLS"
          : undefined,
    });
    const connection = await connected(hop);
    expect(await outcomesOf(connection, claimedMessage(eightBit))).toMatchObject([{ kind: "failed", status: "5.6.3" }]);
    const to = [recipient("a@corp.example", { notify: "never" })];
    expect(await outcomesOf(connection, claimedMessage({ to }))).toMatchObject([
      { kind: "delivered", dsnPassedOn: false },
    ]);
    expect(hop.lines).toContain("RCPT TO:<a@corp.example>");
  });

  test("keywords are read in any case", async () => {
    const hop = await hopWith({ script: offering("8bitmime", "Smtputf8") });
    expect(await outcomesOf(await connected(hop), claimedMessage(eightBit))).toMatchObject([{ kind: "delivered" }]);
  });

  test("what is offered before TLS counts for nothing after it (RFC 3207 §4.2)", async () => {
    let ehlos = 0;
    const hop = await hopWith({
      script: (verb, line, connection) => {
        if (verb !== "EHLO") return undefined;
        ehlos += 1;
        return offering(...(ehlos === 1 ? ["8BITMIME", "DSN", "SIZE 1"] : []))(verb, line, connection);
      },
    });
    const connection = await connected(hop);
    expect(await outcomesOf(connection, claimedMessage(eightBit))).toMatchObject([{ status: "5.6.3" }]);
    expect(await outcomesOf(connection, claimedMessage())).toMatchObject([{ kind: "delivered", dsnPassedOn: false }]);
  });
});
