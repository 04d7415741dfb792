/**
 * What supervisor and compartments say to each other over the channel between them. Whatever else comes over it is
 * ignored.
 */

/** What a compartment tells its supervisor. */
export type CompartmentNews =
  | { readonly kind: "ready"; readonly listening: readonly string[]; readonly policy: string }
  /** The answers to a {@link ReloadOrder}. */
  | {
      readonly kind: "reloaded";
      readonly order: number;
      readonly listening: readonly string[];
      readonly policy: string;
    }
  | { readonly kind: "refused"; readonly order: number; readonly reason: string };

/** What a supervisor tells a compartment: to work by the configuration in this file. */
export interface ReloadOrder {
  readonly kind: "reload";
  readonly order: number;
  readonly snapshot: string;
}

export function newsOf(value: unknown): CompartmentNews | undefined {
  if (!isRecord(value)) return undefined;
  const { kind, listening, policy, order, reason } = value;
  if (kind === "refused" && typeof order === "number" && typeof reason === "string") return { kind, order, reason };
  if (!Array.isArray(listening) || typeof policy !== "string") return undefined;
  const places = listening.filter((place) => typeof place === "string");
  if (kind === "ready") return { kind, listening: places, policy };
  if (kind === "reloaded" && typeof order === "number") return { kind, order, listening: places, policy };
  return undefined;
}

export function orderOf(value: unknown): ReloadOrder | undefined {
  if (!isRecord(value)) return undefined;
  const { kind, order, snapshot } = value;
  return kind === "reload" && typeof order === "number" && typeof snapshot === "string"
    ? { kind, order, snapshot }
    : undefined;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
