/**
 * `pinrelay check`: is the configuration valid, is what it names (certificates, keys, folders) in order, and what runs out?
 *
 * Promises: opens no connection, changes nothing, and reports everything at once.
 * Exit status 0: all is well, whatever the warnings; 1: the relay can start, but something has run out or is about to;
 * 2: it cannot, or would serve nobody.
 */
import type { X509Certificate } from "node:crypto";
import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { readExpiry, serverChain, type Expiry } from "../config/expiry.ts";
import type { FileSource } from "../config/file-source.ts";
import { loadConfig, locate } from "../config/load.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { formatProblem, plain, shownPath, type Path, type ShownProblem } from "../config/text.ts";
import { isUrgent, type ExpiryItem } from "../partner/expiry.ts";
import { expiryAdvice, expiryCount, expiryEnd } from "../partner/expiry-text.ts";
import { carriesName } from "../partner/identity.ts";
import type { Pin } from "../partner/pin.ts";
import type { Partner } from "../partner/partner.ts";
import { rolloverWarningText } from "../partner/rollover.ts";
import { folderFault, keyFault } from "./check-files.ts";
import { expiryJson, expiryTable } from "./expiry-table.ts";
import { jsonText } from "./output.ts";

export interface CheckOptions {
  readonly json: boolean;
  /** By which dates are judged; now, if it is not given. */
  readonly now?: Date;
  /** Files below it are shown relative to it; the current folder, if it is not given. */
  readonly cwd?: string;
  /** Where the configuration comes from; the disk, if it is not given. */
  readonly files?: FileSource;
}

export interface CheckResult {
  readonly exitCode: 0 | 1 | 2;
  /** Lines for people, or JSON; ends with a line feed. */
  readonly output: string;
  /** What is in `output`, one by one. */
  readonly findings: readonly ShownProblem[];
}

type Severity = "error" | "warning" | "note";
type Finding = ShownProblem & { readonly severity: Severity };

export async function runCheck(configFile: string, options: CheckOptions): Promise<CheckResult> {
  const now = options.now ?? new Date();
  const file = resolve(configFile);
  const loaded = await loadConfig(file, now, options.files);
  const check = new Check(now);
  for (const problem of loaded.kind === "loaded" ? loaded.warnings : loaded.problems) check.findings.push(problem);
  if (loaded.kind === "loaded") await check.config(loaded.config);
  const ok = !check.findings.some(({ severity }) => severity === "error");
  const output = options.json
    ? jsonText({ ok, problems: check.findings, expiry: check.expiry.map(expiryJson) })
    : humanOutput(file, loaded.kind === "loaded" ? loaded.config : undefined, check, options.cwd ?? process.cwd());
  return { exitCode: !ok ? 2 : check.expiry.some(isUrgent) ? 1 : 0, output, findings: check.findings };
}

function humanOutput(file: string, config: RelayConfig | undefined, check: Check, cwd: string): string {
  const countOf = (severity: Severity): number => check.findings.filter((found) => found.severity === severity).length;
  const errors = countOf("error");
  const counts = `${plural(errors, "error")}, ${plural(countOf("warning"), "warning")}`;
  const about =
    config === undefined
      ? ""
      : `${plural(config.partners.length, "partner")}, ${plural(config.routes.length, "route")}, version ${config.version.slice(0, 12)}; `;
  const soon = expiryCount(check.expiry);
  const summary = `${shownPath(file, cwd)}: ${errors === 0 ? "valid" : "invalid"}: ${about}${counts}${soon === undefined ? "" : `; ${soon}`}`;
  const findings = check.findings.map((found) => `${formatProblem(found, cwd)}\n`);
  return [...findings, expiryTable(check.expiry), `${summary}\n`].join("");
}

/** One run: what was found, in the order in which it was looked at. */
class Check {
  readonly findings: Finding[] = [];
  expiry: readonly ExpiryItem[] = [];
  readonly #now: Date;

  constructor(now: Date) {
    this.#now = now;
  }

  async config(config: RelayConfig): Promise<void> {
    await this.#serverCertificate(config);
    await this.#key(config);
    await this.#spool(config);
    for (const partner of config.partners) await this.#partner(partner);
    await this.#expiry(config, await readExpiry(config, this.#now));
    await this.#permissions(config);
    await this.#unused(config.file, "console", "this version serves no console");
  }

  async #report(severity: Severity, file: string, path: Path, message: string): Promise<void> {
    const { line, keyPath } = await locate(file, path);
    this.findings.push({ severity, file, line, keyPath, message });
  }

  async #serverCertificate(config: RelayConfig): Promise<void> {
    const path = ["tls", "certificate"];
    const chain = serverChain(config);
    for (const certificate of chain) await this.#beginning(certificate, config, path);
    const [leaf, issuer] = chain;
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

  async #beginning({ validFromDate, subject }: X509Certificate, { file, tls }: RelayConfig, path: Path): Promise<void> {
    if (validFromDate <= this.#now) return;
    const about = `${plain(tls.certificateFile)} (${plain(subject.replaceAll("\n", ", "))})`;
    const message = `${about} is not valid before ${validFromDate.toISOString()}: is the clock right?`;
    await this.#report("error", file, path, message);
  }

  async #key({ file, tls }: RelayConfig): Promise<void> {
    const fault = await keyFault(tls.keyFile, tls.certificate);
    if (fault !== undefined) await this.#report("error", file, ["tls", "key"], `${tls.keyFile} ${fault}`);
  }

  async #spool({ file, spool }: RelayConfig): Promise<void> {
    const fault = await folderFault(spool.path);
    if (fault !== undefined) await this.#report("error", file, ["spool", "path"], fault);
  }

  async #partner({ name, file, pins, deliver }: Partner): Promise<void> {
    for (const [index, pin] of pins.entries()) {
      if (pin.state !== "pending") continue;
      const message = `waits for its confirmation: pinrelay partner confirm ${name} FINGERPRINT, or remove it`;
      await this.#report("warning", file, ["pins", index, "state"], message);
    }
    const counts = ({ state, notAfter }: Pin): boolean =>
      (state === "active" || state === "next") && (notAfter === undefined || notAfter >= this.#now);
    if (!pins.some(counts))
      await this.#report("warning", file, ["pins"], "no pin counts: the partner can send nothing");
    if (deliver === undefined) {
      const message = "absent: the partner gets no mail, and reports about its mail go to our postmaster";
      this.findings.push({ severity: "note", file, line: 1, keyPath: "deliver", message });
    }
  }

  async #expiry({ file, spool, expiry }: RelayConfig, { items, rollovers, unseen }: Expiry): Promise<void> {
    this.expiry = items;
    if (expiry.criticalMs > expiry.warnMs) {
      const message = "is longer than `expiry.warn`: nothing is ever warned of, it is critical at once";
      await this.#report("warning", file, ["expiry", "critical"], message);
    }
    for (const item of items) await this.#ending(item);
    for (const { partner, warning } of rollovers) {
      await this.#report("warning", partner.file, ["pins"], rolloverWarningText(warning, partner, this.#now));
    }
    if (unseen !== undefined) {
      const message = `what the receiver has seen, in ${spool.path}, ${unseen}: the certificates of partners are not looked at; check as the relay's user`;
      await this.#report("warning", file, ["spool", "path"], message);
    }
  }

  async #ending(item: ExpiryItem): Promise<void> {
    const { what, partner, file, subject, at, state } = item;
    // Of these, if they are past, the loader has spoken.
    if (state === "ok" || (state === "expired" && (what === "pin" || what === "revocation list"))) return;
    const named = [
      ...(file === undefined || what === "pin" ? [] : [plain(file)]),
      ...(subject === undefined ? [] : [`(${plain(subject)})`]),
    ];
    const thing =
      what === "pin"
        ? `this pin ${plain(subject ?? "")}`
        : what === "partner certificate"
          ? `the certificate as last seen ${named.join(" ")}`
          : named.join(" ");
    const message = `${thing} ${expiryEnd(item)}: ${expiryAdvice(item)}`;
    // What only one partner's mail needs does not keep the others' from going on.
    const stopsAll = state === "expired" && partner === undefined && what !== "CA certificate";
    const severity = stopsAll ? "error" : "warning";
    if (at === undefined) {
      this.findings.push({ severity, file: file ?? "", line: undefined, keyPath: "", message });
    } else {
      await this.#report(severity, at.file, at.path, message);
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
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
