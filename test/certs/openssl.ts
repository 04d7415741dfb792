/**
 * The openssl command as a second opinion. Where it is missing, tests that ask it are skipped with one line; under CI it
 * must be there.
 */
import { spawnSync } from "node:child_process";

export const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

if (!hasOpenssl) {
  if (process.env["CI"] === "true") throw new Error("openssl is missing: CI must have it");
  console.warn("openssl is missing: what asks it is skipped");
}

/** Runs openssl and returns what it printed; fails with what it complained about. */
export function openssl(...args: readonly string[]): string {
  const result = spawnSync("openssl", args, { encoding: "utf8" });
  if (result.status !== 0) throw new Error(`openssl ${args.join(" ")}: ${result.stdout}${result.stderr}`);
  return result.stdout;
}
