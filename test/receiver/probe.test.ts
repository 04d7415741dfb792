/** A probe is taken from every partner that was identified, and what was seen of it goes into the spool. */
import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { certificateDigest, pinKey, spkiDigest } from "../../src/partner/pin.ts";
import { makeCertificate } from "./certificates.ts";
import { letter, useRelay } from "./support.ts";

const startRelay = useRelay();
const probe = "RCPT TO:<probe@mx.corp.example>";

describe("a probe", () => {
  it("is taken though no rule of the partner names it, with TLS and certificate in the spool", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^250 /);
    expect(await client.say(probe)).toMatch(/^250 /);
    expect(await client.say("DATA")).toMatch(/^354 /);
    expect(await client.say(`${letter}.`)).toMatch(/^250 2\.0\.0 Queued as /);
    const [spooled] = await relay.spooled();
    const certificate = new X509Certificate(relay.certificates.acme.cert);
    const pin = relay.config.partners.find(({ name }) => name === "acme")?.pins[0];
    expect(spooled?.meta.session?.tls).toEqual({
      version: "TLSv1.3",
      cipher: expect.stringMatching(/^TLS_/),
      group: expect.any(String),
      certificate: certificateDigest(certificate),
      spki: spkiDigest(certificate),
      subject: "CN=mx.acme.example",
      issuer: "CN=test CA",
      validFrom: certificate.validFromDate.toISOString(),
      validTo: certificate.validToDate.toISOString(),
      keyUsage: ["1.3.6.1.5.5.7.3.2"],
      pin: pin === undefined ? "" : pinKey(pin),
    });
  });

  it("must come from a sender that the partner may use", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    expect(await client.say("MAIL FROM:<ceo@corp.example>")).toMatch(/^550 5\.7\.1 /);
    expect(await client.say(probe)).toMatch(/^503 /);
  });

  it("is not for those who were not identified", async () => {
    const relay = await startRelay();
    const client = await relay.connect();
    await client.begin(await makeCertificate());
    expect(await client.say("MAIL FROM:<a@acme.example>")).toMatch(/^454 /);
    expect(await client.say(probe)).toMatch(/^503 /);
  });
});
