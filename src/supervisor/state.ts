/**
 * What the running relay says of itself, in a file of the spool: `pinrelay status` reads it. It tells what was true when a
 * compartment last started or ended; whether the processes live is asked of the system.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface CompartmentState {
  readonly name: string;
  readonly pid: number | null;
  readonly ready: boolean;
  readonly restarts: number;
  /** As `192.0.2.1:25`, with ` (TLS)` behind an implicit TLS port. */
  readonly listening: readonly string[];
  /** The version of the configuration that it works by; null while it does not run. */
  readonly policy: string | null;
}

/** What came of the last time that the relay was asked to read its files again. */
export interface LastReload {
  readonly kind: "reloaded" | "refused";
  /** ISO 8601: before any file was read, and when all was done. */
  readonly begunAt: string;
  readonly at: string;
  /** The version of the configuration that is in force since. */
  readonly policy: string;
  /** One line for each thing that is another now; none, although reloaded: the files are what was in force already. */
  readonly changes: readonly string[];
  /** Why it was refused, one line each; else warnings. */
  readonly problems: readonly string[];
}

export interface RelayState {
  readonly pid: number;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly configFile: string;
  /** The version of the configuration in force. */
  readonly policy: string;
  readonly compartments: readonly CompartmentState[];
  readonly lastReload?: LastReload;
}

export function stateFile(spoolPath: string): string {
  return join(spoolPath, "relay.json");
}

/** Held by the supervisor as long as it lives. */
export function lockFile(spoolPath: string): string {
  return join(spoolPath, "relay.lock");
}

/** The configuration in force: compartments start with it, whatever the files say meanwhile. */
export function snapshotFile(spoolPath: string): string {
  return join(spoolPath, "policy.json");
}

/** One that is about to come into force. */
export function nextSnapshotFile(spoolPath: string): string {
  return join(spoolPath, "policy.next.json");
}

/** Undefined where no relay has been started, or where it ended as it should. */
export async function readState(spoolPath: string): Promise<RelayState | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(stateFile(spoolPath), "utf8"));
    return isState(value) ? value : undefined;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    if (error instanceof SyntaxError) return undefined; // not ours
    throw error;
  }
}

function isState(value: unknown): value is RelayState {
  return (
    typeof value === "object" &&
    value !== null &&
    "pid" in value &&
    typeof value.pid === "number" &&
    "compartments" in value &&
    Array.isArray(value.compartments)
  );
}
