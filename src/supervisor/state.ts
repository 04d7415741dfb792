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
}

export interface RelayState {
  readonly pid: number;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly configFile: string;
  /** The version of the configuration in force. */
  readonly policy: string;
  readonly compartments: readonly CompartmentState[];
}

export function stateFile(spoolPath: string): string {
  return join(spoolPath, "relay.json");
}

/** Held by the supervisor as long as it lives. */
export function lockFile(spoolPath: string): string {
  return join(spoolPath, "relay.lock");
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
