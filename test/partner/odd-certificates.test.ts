/** What a peer may write into its own certificate must neither count nor stop anybody from looking at others. */
import { describe, expect, test } from "vitest";
import { eventsNotice } from "../../src/deliverer/notice-text.ts";
import { expiryLine } from "../../src/cli/expiry-table.ts";
import { expiryItems } from "../../src/partner/expiry.ts";
import { judgePeer, PartnerIndex } from "../../src/partner/identity.ts";
import { pinKey } from "../../src/partner/pin.ts";
import { noHistory } from "../../src/partner/rollover.ts";
import { quarantineId } from "../../src/sightings/sightings.ts";
import { mint } from "../config/support.ts";
import { parseMailbox } from "../../src/mail/address.ts";
import { makeCertificate } from "../receiver/certificates.ts";
import { endlessCertificate, namelessCertificate } from "./odd-certificates.ts";
import { partner } from "./partners.ts";
import { anchorPin, spkiPin } from "./pins.ts";

const now = new Date();
const [nameless, endless] = [await namelessCertificate(), await endlessCertificate()];
const postmaster = parseMailbox("postmaster@corp.example", false);
if (postmaster.kind !== "ok") throw new Error("no postmaster");

describe("a certificate whose end nobody can read", () => {
  test("does not count for ever: it does not count", () => {
    const acme = partner("acme", { pins: [spkiPin(endless)] });
    const judged = judgePeer(new PartnerIndex([acme]), { address: "203.0.113.5", chain: [endless] }, now);
    expect(judged).toMatchObject({ kind: "expired", partner: { name: "acme" } });
    expect(judged.kind === "expired" && judged.since.toISOString()).toBe("1970-01-01T00:00:00.000Z");
  });
});

describe("of a certificate without a name", () => {
  test("the end is in the list of what runs out", () => {
    const pin = spkiPin(nameless);
    const seen = { certificate: nameless, firstSeenMs: 0, lastSeenMs: 0, count: 1, addresses: [], refused: undefined };
    const items = expiryItems(
      {
        configFile: "relay.yaml",
        server: { file: "server.pem", chain: [mint({}).certificate] },
        routes: [],
        partners: [partner("acme", { pins: [pin] })],
        uses: [{ ...seen, partner: "acme", pin: pinKey(pin) }],
        history: noHistory,
        authority: undefined,
        signed: [],
      },
      { warnMs: 0, criticalMs: 0 },
      now,
    );
    expect(items.map(({ what }) => what)).toContain("partner certificate");
    expect(expiryLine(items)).toMatch(/^expiry: /);
  });

  test("the postmaster is told when it comes into quarantine", () => {
    const seen = { firstSeenMs: 0, lastSeenMs: 0, count: 1, addresses: ["203.0.113.5"], partners: ["acme"] };
    const { text } = eventsNotice(
      [{ ...seen, id: quarantineId(nameless), certificate: nameless }],
      [],
      { hostname: "mx.corp.example", postmaster: postmaster.value },
      now,
    );
    expect(text.flat().join("\n")).toContain(quarantineId(nameless));
  });
});

describe("a certificate with thousands of names", () => {
  const named = (count: number) => Array.from({ length: count }, (_, index) => `host${index}.evil.example`);

  test("is looked at once, not once for each partner that is known by a CA", async () => {
    const ca = await makeCertificate({ ca: true });
    const partners = named(5000).map((name, index) =>
      partner(`p${index}`, { pins: [anchorPin([ca.certificate], { name: `mx.${name}` })] }),
    );
    const index = new PartnerIndex(partners);
    const { certificate } = await makeCertificate({ dnsNames: named(2500) });
    const begun = performance.now();
    const judged = judgePeer(index, { address: "203.0.113.5", chain: [certificate] }, now);
    expect(judged.kind).toBe("unknownCertificate");
    expect(performance.now() - begun).toBeLessThan(1000); // it was twenty seconds
  });

  test("fits no trust anchor, whoever signed it", async () => {
    const ca = await makeCertificate({ ca: true });
    const acme = partner("acme", { pins: [anchorPin([ca.certificate])] });
    const judge = async (dnsNames: readonly string[]) => {
      const { certificate } = await makeCertificate({ issuer: ca, dnsNames });
      return judgePeer(new PartnerIndex([acme]), { address: "203.0.113.5", chain: [certificate] }, now).kind;
    };
    expect(await judge(["mx.acme.example", ...named(499)])).toBe("partner");
    expect(await judge(["mx.acme.example", ...named(500)])).toBe("unknownCertificate");
  });

  test("is the partner's that comes first in the files, in whatever order it has their names", async () => {
    const ca = await makeCertificate({ ca: true });
    const partners = ["a", "b"].map((name) =>
      partner(name, { pins: [anchorPin([ca.certificate], { name: `mx.${name}.example` })] }),
    );
    const { certificate } = await makeCertificate({ issuer: ca, dnsNames: ["mx.b.example", "mx.a.example"] });
    expect(judgePeer(new PartnerIndex(partners), { address: "203.0.113.5", chain: [certificate] }, now)).toMatchObject({
      identity: { partner: { name: "a" } },
    });
  });
});
