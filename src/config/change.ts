/**
 * What a new configuration would change in a relay that runs: in words for the operator, and what cannot be changed
 * without a restart. Pure.
 */
import { isDeepStrictEqual } from "node:util";
import type { RelayConfig } from "./relay-config.ts";
import type { Path } from "./text.ts";

/** A key of relay.yaml, and what is to be said about its new value. */
export interface FixedKey {
  readonly path: Path;
  readonly message: string;
}

/** What must stay as it is while the relay runs: sessions, the spool's locks and reports are bound to it. */
export function changesThatNeedRestart(before: RelayConfig, after: RelayConfig): FixedKey[] {
  const fixed: ReadonlyArray<readonly [Path, string, string]> = [
    [["hostname"], before.hostname, after.hostname],
    [["spool", "path"], before.spool.path, after.spool.path],
    [["tls", "minimum-version"], before.tls.minimumVersion, after.tls.minimumVersion],
  ];
  return fixed
    .filter(([, old, now]) => old !== now)
    .map(([path, old]) => ({
      path,
      message: `is ${old} in the relay that runs, which cannot change it: restart the relay`,
    }));
}

const namesMax = 5;

/** One line for each kind of thing that is another; none: they are the same policy. */
export function describeChanges(before: RelayConfig, after: RelayConfig): string[] {
  if (before.version === after.version) return [];
  const old = new Map(before.partners.map((partner) => [partner.name, partner]));
  const now = new Map(after.partners.map((partner) => [partner.name, partner]));
  const lines = [
    named(
      "added",
      [...now.keys()].filter((name) => !old.has(name)),
    ),
    named(
      "removed",
      [...old.keys()].filter((name) => !now.has(name)),
    ),
    named(
      "changed",
      [...now].flatMap(([name, partner]) => {
        const earlier = old.get(name);
        return earlier !== undefined && !isSame(earlier, partner) ? [name] : [];
      }),
    ),
  ].filter((line) => line !== undefined);
  const { partners: _old, version: _before, ...relayBefore } = before;
  const { partners: _now, version: _after, ...relayAfter } = after;
  // The certificate is renewed when its file changes, and is no policy.
  const isRelaySame = isSame(
    { ...relayBefore, tls: { ...relayBefore.tls, certificate: "" } },
    { ...relayAfter, tls: { ...relayAfter.tls, certificate: "" } },
  );
  if (!isRelaySame) lines.push("relay.yaml changed");
  return lines.length > 0 ? lines : ["only comments or the order of lines changed"];
}

/** Places in files do not count: a line more above changes nothing. Certificates are compared by what they are. */
export function isSame(before: unknown, after: unknown): boolean {
  return isDeepStrictEqual(comparable(before), comparable(after));
}

function comparable(value: unknown): unknown {
  if (typeof value !== "object" || value === null || value instanceof Date || Buffer.isBuffer(value)) return value;
  if ("fingerprint256" in value) return value.fingerprint256;
  if (Array.isArray(value)) return value.map(comparable);
  if (value instanceof Set) return [...value].map(comparable);
  if (value instanceof Map) return [...value].map(comparable);
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, inner]) => key !== "source" && typeof inner !== "function")
      .map(([key, inner]) => [key, comparable(inner)]),
  );
}

function named(what: "added" | "removed" | "changed", names: readonly string[]): string | undefined {
  if (names.length === 0) return undefined;
  const shown = names.slice(0, namesMax).join(", ");
  const more = names.length > namesMax ? `, and ${names.length - namesMax} more` : "";
  return `${names.length === 1 ? "partner" : `${names.length} partners`} ${what}: ${shown}${more}`;
}
