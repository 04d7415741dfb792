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
import { endlessCertificate, namelessCertificate } from "./odd-certificates.ts";
import { partner } from "./partners.ts";
import { spkiPin } from "./pins.ts";

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
