/** What the tests of certificates share: fixtures, folders that vanish, authorities in memory. */
import { createPublicKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { createAuthority, openAuthority, type Authority, type LeafPlan } from "../../src/certs/authority.ts";
import { generateKey, keyTypes, type KeyType } from "../../src/certs/key.ts";

export const now = new Date("2026-03-04T05:06:07Z");

export function fixturePath(name: string): string {
  return join(import.meta.dirname, "fixtures", name);
}

export function fixture(name: string): Buffer {
  return readFileSync(fixturePath(name));
}

/** The bytes between the PEM lines of a fixture. */
export function fixtureDer(name: string): Buffer {
  return Buffer.from(
    fixture(name)
      .toString("latin1")
      .replaceAll(/-----.*-----/g, ""),
    "base64",
  );
}

/** A new folder that is removed when the test has ended. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "pinrelay-certs-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export function leafPlan(changes: Partial<LeafPlan> = {}): LeafPlan {
  return {
    commonName: "mx.corp.example",
    dnsNames: ["mx.corp.example"],
    ipAddresses: [],
    usages: "both",
    days: 90,
    now,
    ...changes,
  };
}

export async function authorityOf(keyType: KeyType, at: Date = now): Promise<Authority> {
  return openAuthority(await createAuthority({ commonName: "Test CA", keyType, days: 365, now: at }), at);
}

/** One of each; making RSA keys takes its time, and so they are shared. */
export async function authoritiesOfEveryType(at: Date = now): Promise<Map<KeyType, Authority>> {
  return new Map(await Promise.all(keyTypes.map(async (type) => [type, await authorityOf(type, at)] as const)));
}

export async function keysOfEveryType(): Promise<Map<KeyType, { key: KeyObject; publicKey: KeyObject }>> {
  const pairs = keyTypes.map(async (type) => {
    const key = await generateKey(type);
    return [type, { key, publicKey: createPublicKey(key) }] as const;
  });
  return new Map(await Promise.all(pairs));
}

export function x509(pem: string): X509Certificate {
  return new X509Certificate(pem);
}

/** The value, or the test ends here. */
export function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the test's own preparation is missing something");
  return value;
}
