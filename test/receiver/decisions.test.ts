/** What the receiver hands to the decision log: what its rules said, once for each question, and nothing else. */
import { writeFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { noDecisions, type DecisionLog } from "../../src/audit/decision-log.ts";
import { readDecisions } from "../../src/audit/decision-reader.ts";
import type { Decision } from "../../src/audit/decision-record.ts";
import { acmeAddress, strangerAddress } from "../tools/relay-folder.ts";
import { letter, until, useRelay } from "./support.ts";

const startRelay = useRelay();

function memory(): { readonly decisions: DecisionLog; readonly noted: Decision[] } {
  const noted: Decision[] = [];
  return { noted, decisions: { ...noDecisions, note: (decision) => void noted.push(decision) } };
}

describe("the receiver notes", () => {
  it("MAIL and RCPT with what was asked, by whom, and the rule", async () => {
    const { decisions, noted } = memory();
    const relay = await startRelay({ decisions });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example> SIZE=100 SMTPUTF8");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("RCPT TO:<a@elsewhere.example>");
    const peer = { address: acmeAddress, partner: "acme", helo: "mx.acme.example", smtpUtf8: true };
    expect(noted).toMatchObject([
      { ...peer, stage: "mail", from: "a@acme.example", to: undefined, declaredBytes: 100, reply: "senderAccepted" },
      { ...peer, stage: "recipient", from: "a@acme.example", to: "orders@corp.example", reply: "recipientAccepted" },
      { ...peer, stage: "recipient", to: "a@elsewhere.example", reply: "relayingDenied" },
    ]);
    expect(noted.map(({ rule }) => rule?.())).toEqual([
      expect.stringMatching(/^allow\.from @acme\.example \(.*acme\.yaml:4\)$/),
      expect.stringMatching(/^allow\.to orders@corp\.example \(.*acme\.yaml:5\)$/),
      expect.stringMatching(/^no route inside has the domain of a@elsewhere\.example \(.*relay\.yaml: routes\)$/),
    ]);
    expect(noted[0]?.chain[0]?.subject).toBe("CN=mx.acme.example");
    expect(noted[0]?.chain).toBe(noted[1]?.chain);
  });

  it("who is refused at MAIL, with the sender", async () => {
    const { decisions, noted } = memory();
    const relay = await startRelay({ decisions });
    for (const certificate of [relay.certificates.globex, relay.certificates.outsider]) {
      const client = await relay.connect();
      await client.begin(certificate);
      await client.say("MAIL FROM:<a@acme.example>");
      await client.say("RCPT TO:<orders@corp.example>"); // out of order: no rule is asked
    }
    expect(noted).toMatchObject([
      { stage: "mail", from: "a@acme.example", reply: "addressNotOfPartner", partner: "globex" },
      { stage: "mail", from: "a@acme.example", reply: "certificateUnknown", partner: undefined },
    ]);
  });

  it("who is turned away, at both kinds of listeners", async () => {
    const { decisions, noted } = memory();
    const relay = await startRelay({ decisions });
    expect(await (await relay.connect(strangerAddress)).reply()).toMatch(/^554 /);
    await expect(relay.connectTls(strangerAddress)).rejects.toThrow();
    await until("both are noted", () => noted.length === 2);
    const turnedAway = { stage: "greeting", address: strangerAddress, chain: [], reply: "addressUnknown" };
    expect(noted).toEqual([turnedAway, turnedAway]);
  });

  it("no order and no syntax of commands", async () => {
    const { decisions, noted } = memory();
    const relay = await startRelay({ decisions });
    const client = await relay.connect();
    await client.reply();
    for (const line of ["MAIL FROM:<a@acme.example>", "EHLO x", "MAIL FROM:<a@acme.example>", "RCPT TO:<x>", "NOOP"]) {
      await client.say(line);
    }
    const inside = await relay.partner();
    for (const line of ["MAIL FROM:a@acme.example", "RCPT TO:<a@corp.example>"]) await inside.say(line);
    expect(noted).toEqual([]);
  });
});

describe("a reload that names another audit folder", () => {
  it("has decisions go there from then on", async () => {
    const relay = await startRelay({
      change: (config) => ({ ...config, audit: { path: `${config.spool.path}/audit-1` } }),
    });
    const client = await relay.partner();
    await client.send(letter);
    const audit = { path: `${relay.config.spool.path}/audit-2` };
    await relay.receiver.reload({ ...relay.config, audit });
    await client.send(letter);
    await relay.receiver.stop();
    const counts = async (path: string): Promise<number[]> => {
      for await (const { decisions, certificates } of readDecisions(path, new Date(0))) {
        expect(certificates.size).toBe(1);
        return decisions.map(({ count }) => count);
      }
      return [];
    };
    expect(await counts(relay.config.audit.path)).toEqual([1, 1]);
    expect(await counts(audit.path)).toEqual([1, 1]);
  });
});

describe("a decision log that cannot be written", () => {
  it("keeps no mail from coming in", async () => {
    const relay = await startRelay({
      change: (config) => ({ ...config, audit: { path: `${config.spool.path}.audit` } }),
    });
    await writeFile(relay.config.audit.path, "in the place of the folder");
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    await relay.receiver.stop();
    expect(relay.log()).toContainEqual(expect.objectContaining({ event: "fault", during: "recording decisions" }));
  });
});
