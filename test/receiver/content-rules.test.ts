/** Rules for a message's header, over a real session: off, observed, enforced. */
import { describe, expect, it } from "vitest";
import { useRelay, withPartner } from "./support.ts";

const startRelay = useRelay();
const posing = "From: The Boss <boss@corp.example>\r\nSubject: x\r\n\r\nx\r\n";

describe("a partner's message that poses as ours", () => {
  it("passes and is reported, unless told otherwise", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.send(posing)).toMatch(/^250 /);
    expect(relay.log().find(({ event }) => event === "observed")).toMatchObject({
      partner: "acme",
      observed: ["fromFieldNotAllowed"],
    });
  });

  it("is refused behind the end of data where that is enforced, and the session goes on", async () => {
    const relay = await startRelay({
      change: withPartner("acme", {
        content: { headerSyntax: "off", singleFrom: "enforce", fromAlignment: "enforce" },
      }),
    });
    const client = await relay.partner();
    expect(await client.send(posing)).toMatch(/^550 5\.7\.1 From field has an address that you may not use here/);
    expect(await client.send("Subject: x\r\n\r\nx\r\n")).toMatch(/^550 5\.6\.0 Message needs exactly one From field/);
    expect(await client.send("From: <a@acme.example>\r\n\r\nx\r\n")).toMatch(/^250 /);
    expect((await relay.spooled()).length).toBe(1);
  });
});
