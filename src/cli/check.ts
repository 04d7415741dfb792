/**
 * `pinrelay check`: is the configuration valid, and is what it names (certificates, keys, folders) in order?
 *
 * Promises: opens no connection, changes nothing, and reports everything at once.
 * Exit status 0: the relay can start, whatever the warnings; 2: it cannot, or would serve nobody.
 */
import { createPrivateKey, type KeyObject, type X509Certificate } from "node:crypto";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { loadConfig, locate } from "../config/load.ts";
import { parsePem } from "../config/pem.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { readBounded } from "../config/source.ts";
import {
  formatProblem,
  keyPathText,
  plain,
  shownPath,
  systemFault,
  type Path,
  type ShownProblem,
} from "../config/text.ts";
import { carriesName } from "../partner/identity.ts";
import type { Partner, Route } from "../partner/partner.ts";

export interface CheckOptions {
  readonly json: boolean;
  /** By which dates are judged; now, if it is not given. */
  readonly now?: Date;
  /** Files below it are shown relative to it; the current folder, if it is not given. */
  readonly cwd?: string;
}

export interface CheckResult {
  readonly exitCode: 0 | 1 | 2;
  /** Lines for people, or JSON; ends with a line feed. */
  readonly output: string;
}

type Severity = "error" | "warning" | "note";
type Finding = ShownProblem & { readonly severity: Severity };

/** A certificate that the relay relies on. */
interface CertificateRow {
  /** The key path that names it, behind the partner's name where it is in a partner's file. */
  readonly what: string;
  readonly file: string;
  readonly subject: string;
  readonly notAfter: string;
  readonly daysLeft: number;
}

const dayMs = 86_400_000;
const warnDays = 30;

export async function runCheck(configFile: string, options: CheckOptions): Promise<CheckResult> {
  const now = options.now ?? new Date();
  const file = resolve(configFile);
  const loaded = await loadConfig(file, now);
  const check = new Check(now);
  for (const problem of loaded.kind === "loaded" ? loaded.warnings : loaded.problems) check.findings.push(problem);
  if (loaded.kind === "loaded") await check.config(loaded.config);
  const ok = !check.findings.some(({ severity }) => severity === "error");
  const output = options.json
    ? `${JSON.stringify({ ok, problems: check.findings, certificates: check.certificates }, undefined, 2)}\n`
    : humanOutput(file, loaded.kind === "loaded" ? loaded.config : undefined, check, options.cwd ?? process.cwd());
  return { exitCode: ok ? 0 : 2, output };
}

function humanOutput(file: string, config: RelayConfig | undefined, check: Check, cwd: string): string {
  const countOf = (severity: Severity): number => check.findings.filter((found) => found.severity === severity).length;
  const errors = countOf("error");
  const counts = `${plural(errors, "error")}, ${plural(countOf("warning"), "warning")}`;
  const about =
    config === undefined
      ? ""
      : `${plural(config.partners.length, "partner")}, ${plural(config.routes.length, "route")}, version ${config.version.slice(0, 12)}; `;
  const summary = `${shownPath(file, cwd)}: ${errors === 0 ? "valid" : "invalid"}: ${about}${counts}`;
  return [...check.findings.map((found) => formatProblem(found, cwd)), summary, ""].join("\n");
}

/** One run: what was found, in the order in which it was looked at. */
class Check {
  readonly findings: Finding[] = [];
  readonly certificates: CertificateRow[] = [];
  readonly #now: Date;
  readonly #anchorFilesSeen = new Set<string>();

  constructor(now: Date) {
    this.#now = now;
  }

  async config(config: RelayConfig): Promise<void> {
    await this.#serverCertificate(config);
    await this.#key(config);
    await this.#spool(config);
    for (const route of config.routes) await this.#hops(route, undefined, config.file, ["routes", route.name]);
    for (const partner of config.partners) await this.#partner(partner);
    await this.#permissions(config);
    await this.#unused(config.file, "audit", "this version writes no audit trail");
    await this.#unused(config.file, "console", "this version serves no console");
  }

  async #report(severity: Severity, file: string, path: Path, message: string): Promise<void> {
    const { line, keyPath } = await locate(file, path);
    this.findings.push({ severity, file, line, keyPath, message });
  }

  async #serverCertificate(config: RelayConfig): Promise<void> {
    const path = ["tls", "certificate"];
    const read = parsePem(Buffer.from(config.tls.certificate));
    if (read.kind === "fault") throw new Error(`a certificate that was loaded ${read.fault}`);
    for (const [index, certificate] of read.certificates.entries()) {
      const what = index === 0 ? "tls.certificate" : `tls.certificate (${index + 1} of ${read.certificates.length})`;
      const row = this.#addRow(what, config.tls.certificateFile, certificate);
      if (index === 0) await this.#report("note", config.file, path, `${row.subject}: ${daysText(row)}`);
      await this.#dates(row, certificate, config.file, path, "error");
    }
    const [leaf, issuer] = read.certificates;
    if (leaf !== undefined && !carriesName(leaf, config.hostname)) {
      const names = leaf.subjectAltName === undefined ? "no names" : plain(leaf.subjectAltName);
      const message = `does not carry the hostname ${config.hostname} but ${names}: partners that verify names will refuse it`;
      await this.#report("warning", config.file, path, message);
    }
    if (leaf !== undefined && issuer !== undefined && !leaf.checkIssued(issuer)) {
      const message = "its second certificate did not issue the first: put the server's own first, then its issuers";
      await this.#report("warning", config.file, path, message);
    }
  }

  async #key({ file, tls }: RelayConfig): Promise<void> {
    const fault = await keyFault(tls.keyFile, tls.certificate);
    if (fault !== undefined) await this.#report("error", file, ["tls", "key"], `${tls.keyFile} ${fault}`);
  }

  async #spool({ file, spool }: RelayConfig): Promise<void> {
    const fault = await folderFault(spool.path);
    if (fault !== undefined) await this.#report("error", file, ["spool", "path"], fault);
  }

  async #hops(route: Route, partner: Partner | undefined, file: string, path: Path): Promise<void> {
    for (const [index, { tls }] of route.servers.entries()) {
      if (tls.mode === "none" || tls.verification.kind === "pin") continue;
      await this.#anchors(tls.verification, partner, file, [...path, "servers", index, "tls", "trust-anchor"]);
    }
  }

  /** An anchor of the past is an error, but for one that only one partner's mail needs: the others' shall go on. */
  async #anchors(
    anchor: { readonly file: string; readonly anchors: readonly X509Certificate[] },
    partner: Partner | undefined,
    file: string,
    path: Path,
  ): Promise<void> {
    if (this.#anchorFilesSeen.has(anchor.file)) return;
    this.#anchorFilesSeen.add(anchor.file);
    const what = `${partner === undefined ? "" : `${partner.name}: `}${keyPathText(path)}`;
    for (const certificate of anchor.anchors) {
      const row = this.#addRow(what, anchor.file, certificate);
      // Of several anchors one may be on its way out: only the last one that counts is missed.
      const othersCount = anchor.anchors.some((other) => other !== certificate && other.validToDate > this.#now);
      await this.#dates(row, certificate, file, path, partner !== undefined || othersCount ? "warning" : "error");
    }
  }

  async #partner(partner: Partner): Promise<void> {
    const { file, pins, deliver } = partner;
    for (const [index, pin] of pins.entries()) {
      const path = ["pins", index];
      if (pin.kind === "trustAnchor") await this.#anchors(pin, partner, file, [...path, "trust-anchor"]);
      const daysLeft = pin.notAfter === undefined ? warnDays : this.#daysUntil(pin.notAfter);
      // One that is past has been reported by the loader.
      if (daysLeft >= 0 && daysLeft < warnDays) {
        const message = `this pin ends in ${plural(daysLeft, "day")}: is the next one there?`;
        await this.#report("warning", file, [...path, "not-after"], message);
      }
    }
    if (pins.every(({ notAfter }) => notAfter !== undefined && notAfter < this.#now)) {
      await this.#report("warning", file, ["pins"], "no pin counts any more: the partner can send nothing");
    }
    if (deliver === undefined) {
      const message = "absent: the partner gets no mail, and reports about its mail go to our postmaster";
      this.findings.push({ severity: "note", file, line: 1, keyPath: "deliver", message });
    } else {
      await this.#hops(deliver, partner, file, ["deliver"]);
    }
  }

  /** Whoever can write the configuration can let anybody in. */
  async #permissions(config: RelayConfig): Promise<void> {
    const files = [config.file, ...config.partners.map(({ file }) => file)];
    for (const path of new Set([...files, ...files.map((file) => dirname(file))])) {
      const mode = await stat(path).then(
        (found) => found.mode,
        () => 0, // gone since it was loaded
      );
      if ((mode & 0o002) === 0) continue;
      const message = `may be written by everybody: chmod o-w ${plain(path)}`;
      this.findings.push({ severity: "warning", file: path, line: undefined, keyPath: "", message });
    }
  }

  async #unused(file: string, key: string, message: string): Promise<void> {
    const { isSet, ...place } = await locate(file, [key]);
    if (isSet) this.findings.push({ severity: "note", ...place, message: `has no effect: ${message}` });
  }

  #addRow(what: string, file: string, certificate: X509Certificate): CertificateRow {
    const row = {
      what,
      file,
      subject: plain(certificate.subject.replaceAll("\n", ", ")),
      notAfter: certificate.validToDate.toISOString(),
      daysLeft: this.#daysUntil(certificate.validToDate),
    };
    this.certificates.push(row);
    return row;
  }

  async #dates(
    row: CertificateRow,
    certificate: X509Certificate,
    file: string,
    path: Path,
    expired: Severity,
  ): Promise<void> {
    const about = `${plain(row.file)} (${row.subject})`;
    if (certificate.validToDate < this.#now) {
      await this.#report(expired, file, path, `${about} has expired on ${row.notAfter.slice(0, 10)}: renew it`);
    } else if (certificate.validFromDate > this.#now) {
      const from = certificate.validFromDate.toISOString();
      await this.#report(expired, file, path, `${about} is not valid before ${from}: is the clock right?`);
    } else if (row.daysLeft < warnDays) {
      await this.#report("warning", file, path, `${about} expires soon, ${daysText(row)}: renew it`);
    }
  }

  #daysUntil(date: Date): number {
    return Math.floor((date.getTime() - this.#now.getTime()) / dayMs);
  }
}

/** What is wrong with the private key, in words that follow its name; undefined if nothing is. */
async function keyFault(keyFile: string, certificatePem: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(keyFile);
    if ((mode & 0o077) !== 0) {
      const digits = (mode & 0o777).toString(8);
      return `is open to others (mode ${digits}): chmod 600, and let the relay's user own it`;
    }
  } catch (error) {
    const fault = systemFault(error);
    return fault === "does not exist" ? `${fault}: the key of \`tls.certificate\` belongs there` : fault;
  }
  const bytes = await readBounded(keyFile);
  if ("fault" in bytes) return `${bytes.fault}; check as the user that the relay runs as`;
  const key = parseKey(bytes);
  if (typeof key === "string") return key;
  const read = parsePem(Buffer.from(certificatePem));
  const matches = read.kind === "certificates" && read.certificates[0]?.checkPrivateKey(key) === true;
  return matches ? undefined : "is not the key of `tls.certificate`: the two must be made together";
}

function parseKey(pem: Buffer): KeyObject | string {
  if (/^(-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: *4,ENCRYPTED)/m.test(pem.toString("latin1"))) {
    return "is encrypted, and a relay has nobody to ask: `openssl pkey -in FILE -out NEW` takes the passphrase off";
  }
  try {
    return createPrivateKey(pem);
  } catch {
    // The library's words ("DECODER routines::unsupported") help nobody.
    return "holds no private key in PEM: it must begin with -----BEGIN PRIVATE KEY----- or the like";
  }
}

/** What is wrong with a folder that must be there, or be possible to make. */
async function folderFault(folder: string): Promise<string | undefined> {
  const found = await stat(folder).catch((error: unknown) => systemFault(error));
  if (typeof found === "string") return found === "does not exist" ? parentFault(folder) : `${folder} ${found}`;
  if (!found.isDirectory()) return `${folder} is no folder: remove it, or name another`;
  if ((found.mode & 0o002) !== 0) return `${folder} may be written by everybody: chmod o-w`;
  return (await mayWrite(folder)) ? undefined : `${folder} may not be written by this user: check as the relay's user`;
}

async function parentFault(folder: string): Promise<string | undefined> {
  const parent = dirname(folder);
  const found = await stat(parent).catch((error: unknown) => systemFault(error));
  if (found === "does not exist" && parent !== folder) return parentFault(parent);
  if (typeof found === "string" || !found.isDirectory()) return `cannot be made: ${parent} is no folder`;
  return (await mayWrite(parent)) ? undefined : `cannot be made: ${parent} may not be written by this user`;
}

async function mayWrite(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
}

function daysText({ notAfter, daysLeft }: CertificateRow): string {
  return `valid until ${notAfter.slice(0, 10)}, ${plural(daysLeft, "day")} left`;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
