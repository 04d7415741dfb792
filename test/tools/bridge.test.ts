import { connect } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { useRelay } from "../receiver/support.ts";
import { startBridge } from "./bridge.ts";
import { acmeAddress } from "./relay-folder.ts";
import { SmtpDialogue } from "./smtp-dialogue.ts";

const startRelay = useRelay();

describe("the bridge", () => {
  it("gives a client that speaks no TLS the inside of an authenticated session", async () => {
    const relay = await startRelay();
    const bridge = await startBridge(relay.plain, acmeAddress, relay.certificates.acme);
    onTestFinished(() => bridge.close());
    const client = await SmtpDialogue.open(bridge);
    expect(await client.reply()).toMatch(/^220 mx\.corp\.example /);
    expect(await client.say("EHLO tool.example")).not.toContain("STARTTLS");
    expect(await client.send("Subject: x\r\n\r\nx\r\n")).toMatch(/^250 2\.0\.0 Queued/);
    expect(await client.say("QUIT")).toMatch(/^221 /);
    await client.closed();
    expect((await relay.spooled()).length).toBe(1);
  });

  it("says so when the relay turns it away", async () => {
    const relay = await startRelay();
    const bridge = await startBridge(relay.plain, "127.0.0.99", relay.certificates.acme);
    onTestFinished(() => bridge.close());
    const socket = connect({ host: bridge.address, port: bridge.port });
    onTestFinished(() => void socket.destroy());
    const [text] = (await new Promise((resolve) => socket.once("data", (...args) => resolve(args)))) as [Buffer];
    expect(text.toString()).toMatch(/^421 4\.4\.0 bridge: /);
  });
});
