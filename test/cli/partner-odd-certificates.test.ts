/** Certificates in quarantine that hold what no CA writes: the operator can still see all, and lets none of them in. */
import { expect, it } from "vitest";
import type { X509Certificate } from "node:crypto";
import { loadConfig } from "../../src/config/load.ts";
import { certificateDigest, spkiDigest } from "../../src/partner/pin.ts";
import { quarantineId } from "../../src/sightings/sightings.ts";
import { required } from "../certs/support.ts";
import { endlessCertificate, namelessCertificate } from "../partner/odd-certificates.ts";
import { makeCertificate, subjectOf } from "../receiver/certificates.ts";
import { bench, confirmWith, enrolCert, now, partner, seeUnknown, type Bench } from "./support.ts";

async function seen(at: Bench, certificate: X509Certificate): Promise<void> {
  const loaded = await loadConfig(at.config, now);
  if (loaded.kind === "invalid") throw new Error(JSON.stringify(loaded.problems));
  await seeUnknown(at, certificate, "203.0.113.5", required(loaded.config.partners[0]));
}

async function quarantined(...certificates: X509Certificate[]): Promise<Bench> {
  const at = await bench();
  await enrolCert(at, "acme");
  for (const certificate of certificates) await seen(at, certificate);
  return at;
}

it("lists certificates without a name or a date that can be read, as text and as JSON", async () => {
  const [nameless, endless] = [await namelessCertificate(), await endlessCertificate()];
  const at = await quarantined(nameless, endless);
  for (const format of [[], ["--json"]]) {
    const ran = await partner(["list", "--quarantine", "--config", at.config, ...format]);
    expect(ran).toMatchObject({ exitCode: 0, err: "" });
    expect(ran.out).toContain(quarantineId(nameless));
    expect(ran.out).toContain(quarantineId(endless));
  }
});

it.each([
  ["key", spkiDigest],
  ["certificate", certificateDigest],
])("does not confirm one without a date that can be read, by its %s", async (_, digestOf) => {
  const endless = await endlessCertificate();
  const at = await quarantined(endless);
  const ran = await confirmWith(at, "acme", digestOf(endless));
  expect(ran.exitCode).toBe(1);
  expect(ran.err).toContain("dates");
});

it("lets no subject steer the terminal, in no format", async () => {
  const evil = "\u001b[2J\u009b31m\u202eevil\r\nforged";
  const { certificate } = await makeCertificate({ subject: subjectOf(evil) });
  const at = await quarantined(certificate);
  for (const format of [[], ["--json"]]) {
    const { out } = await partner(["list", "--quarantine", "--config", at.config, ...format]);
    expect(out).toContain(quarantineId(certificate));
    expect(out.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  }
});
