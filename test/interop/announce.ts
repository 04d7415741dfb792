/** Vitest's global setup for the interop tests: says once a run, in one line, what their tests are skipped for. */

import { describeMissing, missingServers } from "./servers.ts";

export function setup(): void {
  const missing = missingServers();
  if (missing.length > 0) console.warn(describeMissing(missing));
}
