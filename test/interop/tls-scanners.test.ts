/** What independent scanners find in the receiver's TLS: sslscan and testssl.sh, from the address of a partner's host. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { useRelay, withRelayLimits } from "../receiver/support.ts";
import { acmeAddress, usualPartners } from "../tools/relay-folder.ts";
import { run, temporaryDirectory } from "./processes.ts";
import { isMissing } from "./servers.ts";

/** From where the scanners connect: they cannot choose. */
const scannerAddresses = "127.0.0.1, 127.0.0.2";

/** A scanner does nothing but shake hands. */
const scanned = { change: withRelayLimits({ handshakesPerMinute: 1e6, badCommandsMax: 1e6 }) };

interface Finding {
  readonly id: string;
  readonly severity: string;
  readonly finding: string;
}

describe.skipIf(isMissing("sslscan", "testssl"))("a scanner", () => {
  const startRelay = useRelay({
    partners: {
      ...usualPartners,
      acme: usualPartners.acme.replace(acmeAddress, `${acmeAddress}, ${scannerAddresses}`),
    },
  });

  it("as sslscan finds TLS 1.2 and 1.3 only, AEAD with forward secrecy only, and no renegotiation or compression", async () => {
    const { plain } = await startRelay(scanned);
    const { stdout } = await run("sslscan", [
      "--starttls-smtp",
      "--xml=-",
      "--no-colour",
      `${plain.address}:${plain.port}`,
    ]);
    const xml = stdout.toString();
    const enabled = [...xml.matchAll(/<protocol type="(\w+)" version="([\d.]+)" enabled="1"/g)].map(
      ([, type, version]) => `${type} ${version}`,
    );
    expect(enabled).toEqual(["tls 1.2", "tls 1.3"]);
    const ciphers = [...xml.matchAll(/<cipher [^>]*cipher="([^"]+)"/g)].map(([, name]) => name ?? "");
    expect(ciphers.length).toBeGreaterThanOrEqual(6);
    expect(ciphers.filter((name) => !/^(TLS_|ECDHE-).*(GCM|POLY1305)/.test(name))).toEqual([]);
    expect(xml).toMatch(/<renegotiation supported="0"/);
    expect(xml).not.toMatch(/vulnerable="1"|<compression supported="1"/);
  }, 60_000);

  it("as testssl.sh finds nothing to object to", async () => {
    const directory = await temporaryDirectory("testssl");
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const { plain } = await startRelay(scanned);
    const file = join(directory, "findings.json");
    await run(
      "testssl",
      // No look-ups of names: no traffic but to the relay.
      `-n none --ip ${plain.address} --warnings batch --color 0 --jsonfile ${file} -t smtp -p -s -f -P -U ${plain.address}:${plain.port}`.split(
        " ",
      ),
      { deadlineMs: 300_000 },
    );
    const findings = JSON.parse(await readFile(file, "utf8")) as Finding[];
    const bySeverity = Map.groupBy(findings, ({ severity }) => severity);
    expect(bySeverity.get("OK")?.length).toBeGreaterThan(25);
    // About the scanner's own openssl, not about us.
    const objections = findings.filter(
      ({ id, severity }) => !["OK", "INFO"].includes(severity) && id !== "engine_problem",
    );
    expect(objections).toEqual([]);
  }, 330_000);
});
