/** What an identified partner may do: senders, recipients, rates and limits, each with the reply that the design promises. */
import { describe, expect, it } from "vitest";
import { acmeAddress } from "../tools/relay-folder.ts";
import { letter, useRelay, withLimits, withPartner, type Relay } from "./support.ts";

const startRelay = useRelay();

async function afterMail(relay: Relay, parameters = "", mail = "a@acme.example") {
  const client = await relay.partner();
  expect(await client.say(`MAIL FROM:<${mail}>${parameters}`)).toBe("250 2.1.0 Sender OK");
  return client;
}

describe("a sender", () => {
  it.each([
    ["of another domain", "<a@evil.example>"],
    ["of our own domain: nobody poses as us", "<ceo@corp.example>"],
    ["of the other partner", "<a@globex.example>"],
    ["of a domain that only ends like the partner's", "<a@notacme.example>"],
    ["of a domain that only begins like the partner's", "<a@acme.example.evil.example>"],
  ])("is refused: %s", async (_name, path) => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say(`MAIL FROM:${path}`)).toMatch(/^550 5\.7\.1 Sender address is not one .* \[\w+\]$/);
    expect(await client.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 5\.5\.1 /);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ event: "refused", reply: "senderNotAllowed", partner: "acme" }),
    );
  });

  it.each([
    ["the null reverse-path", "<>"],
    ["a subdomain by @*.acme.example", "<a@deep.below.acme.example>"],
    ["capitals in the domain", "<a@ACME.Example>"],
    ["a trailing dot", "<a@acme.example.>"],
    ["a quoted local part", '<"a b"@acme.example>'],
    ["a source route, which is dropped", "<@hop.example:a@acme.example>"],
    ["a space behind the colon", " <a@acme.example>"],
  ])("is accepted: %s", async (_name, path) => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say(`MAIL FROM:${path}`)).toBe("250 2.1.0 Sender OK");
  });
});

describe("a recipient", () => {
  it.each([
    ["not in the partner's list", "<ceo@corp.example>", /^550 5\.7\.1 Recipient is not one that you may write to \[/],
    [
      "not in the list, though another case of the local part is",
      "<Orders@corp.example>",
      /^550 5\.7\.1 Recipient is not/,
    ],
    ["of no domain of ours", "<orders@elsewhere.example>", /^550 5\.7\.1 Relaying denied \[/],
    ["of a subdomain of ours", "<orders@sub.corp.example>", /^550 5\.7\.1 Relaying denied \[/],
    ["postmaster of no domain of ours", "<postmaster@elsewhere.example>", /^550 5\.7\.1 Relaying denied \[/],
    ["at an address literal", "<orders@[127.0.0.2]>", /^550 5\.7\.1 Relaying denied \[/],
    ["routed on by percent", "<victim%elsewhere.example@corp.example>", /^550 5\.7\.1 Relaying denied \[/],
    ["routed on by bang", "<elsewhere.example!victim@corp.example>", /^550 5\.7\.1 Relaying denied \[/],
    ["routed on in quotes", '<"victim@elsewhere.example"@corp.example>', /^550 5\.7\.1 Relaying denied \[/],
    [
      "behind a source route to elsewhere",
      "<@corp.example:orders@elsewhere.example>",
      /^550 5\.7\.1 Relaying denied \[/,
    ],
    ["with two domains", "<orders@corp.example@elsewhere.example>", /^501 5\.1\.3 /],
    ["with nothing in it", "<>", /^501 5\.1\.3 /],
    ["without angle brackets", "orders@corp.example", /^501 5\.1\.3 /],
    ["bare, and no postmaster", "<root>", /^501 5\.1\.3 /],
  ])("is refused: %s", async (_name, path, reply) => {
    const relay = await startRelay();
    const client = await afterMail(relay);
    expect(await client.say(`RCPT TO:${path}`)).toMatch(reply);
    expect(await client.say("DATA")).toMatch(/^503 5\.5\.1 /);
  });

  it.each([
    ["<orders@corp.example>", "orders@corp.example"],
    ["<orders@CORP.Example.>", "orders@CORP.Example"],
    ["<AnyBody+Tag@edi.corp.example>", "AnyBody+Tag@edi.corp.example"],
    ['<"Or ders"@edi.corp.example>', '"Or ders"@edi.corp.example'],
    ["<@hop.example,@hop2.example:orders@corp.example>", "orders@corp.example"],
    ["<PostMaster@corp.example>", "PostMaster@corp.example"],
    ["<postmaster@EDI.corp.example>", "postmaster@EDI.corp.example"],
  ])("is accepted and kept as it was written: %s", async (path, kept) => {
    const relay = await startRelay();
    const client = await afterMail(relay);
    expect(await client.say(`RCPT TO:${path}`)).toBe("250 2.1.5 Recipient OK");
    await client.say("DATA");
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
    const [spooled] = await relay.spooled();
    expect(spooled?.meta.envelope.recipients).toMatchObject([{ path: { mailbox: { address: kept } } }]);
  });

  it.each(["<postmaster>", "<POSTMASTER>", "<Postmaster>"])("is accepted: the bare %s", async (path) => {
    const relay = await startRelay();
    const client = await afterMail(relay);
    expect(await client.say(`RCPT TO:${path}`)).toBe("250 2.1.5 Recipient OK");
    await client.say("DATA");
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
    expect((await relay.spooled())[0]?.meta.envelope.recipients).toEqual([{ path: { kind: "postmaster" } }]);
  });

  it("is one recipient if it is given twice, in whatever spelling of the domain", async () => {
    const relay = await startRelay();
    const client = await afterMail(relay);
    for (const path of ["<orders@corp.example>", "<orders@CORP.example.>", '<"orders"@corp.example>'])
      expect(await client.say(`RCPT TO:${path}`)).toMatch(/^250 /);
    await client.say("DATA");
    await client.say(`${letter}.`);
    expect((await relay.spooled())[0]?.meta.envelope.recipients).toHaveLength(1);
  });
});

describe("a domain in several alphabets", () => {
  const change = withPartner("acme", {});
  const international = (relay: Relay) => relay.config.partners[0];
  const relayOf = async () =>
    startRelay({
      change: (config) =>
        change({
          ...config,
          routes: config.routes.map((route) => ({ ...route, domains: [...route.domains, "xn--bcher-kva.example"] })),
          partners: config.partners.map((partner) => ({
            ...partner,
            allow: {
              ...partner.allow,
              to: [
                ...partner.allow.to,
                {
                  kind: "domain",
                  text: "@bücher.example",
                  domain: "xn--bcher-kva.example",
                  source: { file: "", line: 1 },
                },
              ],
            },
          })),
        }),
    });

  it("is one domain: A-label, capital A-label, U-label", async () => {
    const relay = await relayOf();
    expect(international(relay)?.name).toBe("acme");
    const client = await afterMail(relay, " SMTPUTF8");
    for (const domain of [
      "xn--bcher-kva.example",
      "XN--BCHER-KVA.EXAMPLE",
      "b\xc3\xbccher.example",
      "B\xc3\x9cCHER.example.",
    ])
      expect(await client.say(`RCPT TO:<orders@${domain}>`)).toBe("250 2.1.5 Recipient OK");
  });

  it("is refused as a U-label without SMTPUTF8", async () => {
    const relay = await relayOf();
    const client = await afterMail(relay);
    expect(await client.say("RCPT TO:<orders@b\xc3\xbccher.example>")).toMatch(
      /^553 5\.6\.7 Address needs SMTPUTF8 \[/,
    );
  });

  it.each([
    ["octets that are no UTF-8", "<\xff@edi.corp.example>"],
    ["an overlong form of @", "<orders\xc1\x80corp.example>"],
    ["something invisible", "<or\xe2\x80\x8bders@edi.corp.example>"],
    ["a control character", "<or\x07ders@edi.corp.example>"],
    ["a C1 control character", "<or\xc2\x9bders@edi.corp.example>"],
  ])("lets nothing hidden into an address: %s", async (_name, path) => {
    const relay = await relayOf();
    const client = await afterMail(relay, " SMTPUTF8");
    expect(await client.say(`RCPT TO:${path}`)).toMatch(/^50[01] 5\./);
  });
});

describe("mode observe", () => {
  const observing = withPartner("acme", { mode: "observe" });

  it("lets pass what the rules would refuse, and reports it", async () => {
    const relay = await startRelay({ change: observing });
    const client = await relay.partner();
    expect(await client.send(letter, "a@evil.example", ["ceo@corp.example"])).toMatch(/^250 2\.0\.0 /);
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ level: "warn", event: "observed", observed: "senderNotAllowed", partner: "acme" }),
    );
    expect(relay.log()).toContainEqual(
      expect.objectContaining({ level: "warn", event: "observed", observed: "recipientNotAllowed" }),
    );
  });

  it("opens no relay: a domain that is not ours is refused", async () => {
    const relay = await startRelay({ change: observing });
    const client = await afterMail(relay);
    expect(await client.say("RCPT TO:<a@elsewhere.example>")).toMatch(/^550 5\.7\.1 Relaying denied/);
  });

  it("lets in nobody without the right certificate", async () => {
    const relay = await startRelay({ change: observing });
    const client = await relay.connect(acmeAddress);
    await client.begin(relay.certificates.outsider);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 4\.7\.0 /);
  });
});

describe("the limits of a partner", () => {
  it("answer 452 4.5.3 to one recipient too many, and the message goes to the others", async () => {
    const relay = await startRelay({ change: withLimits({ recipientsMax: 2 }) });
    const client = await afterMail(relay);
    for (const name of ["a", "b"]) expect(await client.say(`RCPT TO:<${name}@edi.corp.example>`)).toMatch(/^250 /);
    expect(await client.say("RCPT TO:<c@edi.corp.example>")).toMatch(/^452 4\.5\.3 Too many recipients/);
    expect(await client.say("RCPT TO:<a@edi.corp.example>")).toMatch(/^250 /); // one of the two
    await client.say("DATA");
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
    expect((await relay.spooled())[0]?.meta.envelope.recipients).toHaveLength(2);
  });

  it("let a client that names far too many recipients at once send to those that were accepted", async () => {
    const relay = await startRelay({ change: withLimits({ recipientsMax: 3 }) });
    const client = await relay.partner();
    const recipients = Array.from({ length: 800 }, (_, index) => `RCPT TO:<u${index}@edi.corp.example>\r\n`);
    client.write(`MAIL FROM:<a@acme.example>\r\n${recipients.join("")}DATA\r\n`);
    const replies = [await client.reply()];
    while (!replies.at(-1)?.startsWith("354")) replies.push(await client.reply());
    expect(replies.filter((reply) => reply.startsWith("452 4.5.3"))).toHaveLength(797);
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 /);
  });

  it("answer 451 4.7.1 to one message a minute too many, on all connections together, and leave others alone", async () => {
    const at = { now: new Date() };
    const relay = await startRelay({ now: () => at.now, change: withLimits({ messagesPerMinute: 2 }) });
    const [one, two] = [await relay.partner(), await relay.partner()];
    expect(await one.send(letter)).toMatch(/^250 /);
    expect(await two.send(letter)).toMatch(/^250 /);
    expect(await one.say("MAIL FROM:<a@acme.example>")).toMatch(/^451 4\.7\.1 Too many messages, try again later \[/);
    expect(await two.say("MAIL FROM:<a@acme.example>")).toMatch(/^451 4\.7\.1 /);
    const globex = await relay.partner(relay.certificates.globex, "127.0.0.12");
    expect(await globex.say("MAIL FROM:<a@globex.example>")).toMatch(/^250 /);
    at.now = new Date(at.now.getTime() + 30_000);
    expect(await one.send(letter)).toMatch(/^250 /);
    expect(await one.say("MAIL FROM:<a@acme.example>")).toMatch(/^451 4\.7\.1 /);
  });

  it("answer 452 4.3.1 before the content when too much of its mail waits, and leave others alone", async () => {
    const relay = await startRelay({ change: withLimits({ queueBytesMax: 100 }) });
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^250 /); // 100 octets are not in use yet
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^452 4\.3\.1 Too much of your mail is waiting/);
    expect(await relay.spooled()).toHaveLength(1);
    const generous = await startRelay({ change: withLimits({ queueBytesMax: 1_000_000 }) });
    expect(await (await generous.partner()).send(letter)).toMatch(/^250 /);
  });

  it("answer 452 4.3.1 to a message whose declared size has no room any more", async () => {
    const relay = await startRelay({ change: withLimits({ queueBytesMax: 10_000 }) });
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@acme.example> SIZE=20000")).toMatch(/^452 4\.3\.1 /);
    expect(await client.say("MAIL FROM:<a@acme.example> SIZE=2000")).toMatch(/^250 /);
  });

  it("stand below the relay's own: a full spool answers 452 4.3.1 to everybody", async () => {
    const relay = await startRelay({
      change: (config) => ({ ...config, limits: { ...config.limits, spoolBytesMax: 100 } }),
    });
    expect(await (await relay.partner()).send(letter)).toMatch(/^250 /);
    const globex = await relay.partner(relay.certificates.globex, "127.0.0.12");
    expect(await globex.send(letter, "a@globex.example")).toMatch(/^452 4\.3\.1 Insufficient storage/);
  });

  it("do not count a message that was refused for its sender", async () => {
    const relay = await startRelay({ change: withLimits({ messagesPerMinute: 1 }) });
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@evil.example>")).toMatch(/^550 /);
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
  });

  it("answer 451 4.7.1 on one connection too many, whose loss of a turn costs the rate nothing", async () => {
    const relay = await startRelay({ change: withLimits({ connectionsMax: 1, messagesPerMinute: 2 }) });
    const [one, two] = [await relay.partner(), await relay.partner()];
    expect(await one.send(letter)).toMatch(/^250 /);
    expect(await two.say("MAIL FROM:<a@acme.example>")).toMatch(/^451 4\.7\.1 /);
    expect(await two.say("RCPT TO:<orders@corp.example>")).toMatch(/^503 /);
    expect(await one.send(letter)).toMatch(/^250 /);
    const globex = await relay.partner(relay.certificates.globex, "127.0.0.12");
    expect(await globex.say("MAIL FROM:<a@globex.example>")).toMatch(/^250 /);
  });
});
