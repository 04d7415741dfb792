/**
 * Which of the real mail programs this machine has. Without them the tests that need them are skipped, and the run says
 * once which were not found; where CI=true says that they ought to be there, the tests fail instead.
 *
 * A test file says `describe.skipIf(isMissing("postfix", "openssl"))(…)`.
 */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { unpacked } from "./machine.ts";

const checks = {
  /** Postfix drops its privileges itself and takes nothing less than root to start from. */
  postfix: () => process.getuid?.() === 0 && succeeds("postconf", ["-d", "mail_version"]),
  /** Its package can be there without the TLS library of Perl, which it only recommends. */
  swaks: () => succeeds("swaks", ["--support"], /TLS supported/),
  openssl: () => succeeds("openssl", ["version"]),
  sslscan: () => succeeds("sslscan", ["--version"]),
  testssl: () => succeeds("testssl", ["--version"]),
  exim: () => isUnpacked("exim", "usr/sbin/exim4"),
  opensmtpd: () => isUnpacked("opensmtpd", "usr/sbin/smtpd"),
  sendmail: () => isUnpacked("sendmail", "usr/libexec/sendmail/sendmail"),
};

export type ServerName = keyof typeof checks;

const names = Object.keys(checks) as ServerName[]; // Exactly the keys of the literal above.

export function missingServers(): ServerName[] {
  return names.filter((name) => !checks[name]());
}

/** Is one of these missing? Throws instead where that is an error. */
export function isMissing(...needed: ServerName[]): boolean {
  const missing = needed.filter((name) => !checks[name]());
  if (missing.length > 0 && process.env["CI"] === "true") throw new Error(describeMissing(missing));
  return missing.length > 0;
}

export function describeMissing(missing: ServerName[]): string {
  const root = missing.includes("postfix") && process.getuid?.() !== 0 ? " (postfix needs root)" : "";
  return `interop: not found: ${missing.join(", ")}${root}; to run their tests: apt-get install postfix swaks libnet-ssleay-perl openssl sslscan testssl.sh, and test/interop/fetch-servers.sh`;
}

/** Has `fetch-servers.sh` brought it? It is run by root, with mounts of its own. */
function isUnpacked(server: string, program: string): boolean {
  return (
    process.getuid?.() === 0 && existsSync(join(unpacked(server), program)) && succeeds("unshare", ["--mount", "true"])
  );
}

function succeeds(program: string, args: string[], says = /(?:)/): boolean {
  const { status, stdout } = spawnSync(program, args, { stdio: ["ignore", "pipe", "ignore"], encoding: "utf8" });
  return status === 0 && says.test(stdout);
}
