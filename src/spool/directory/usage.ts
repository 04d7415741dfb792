/**
 * How much of the spool is in use, overall and by partner, for the quotas that the receiver answers with 452.
 *
 * The deliverer publishes what it has taken in a small file, `usage.json`; the receiver adds what stands in `incoming/`. Whose
 * that is the receiver knows of what it committed itself since it started; of the rest it knows the size. A batch that
 * passes from one to the other may be counted twice for a second. The file is not synced: a quota is no promise.
 */
import { lstat, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { SpoolUsage } from "../spool.ts";
import { systemCode } from "./disk.ts";
import { spoolFolders } from "./folders.ts";
import type { CommittedBatch } from "./group-commit.ts";
import { readName } from "./names.ts";

const intervalMs = 1_000;
const rewriteMs = 60_000;
/** Listing takes at most this part of the time, however much is waiting. */
const listingShare = 1 / 20;

function usageFile(path: string): string {
  return join(path, "usage.json");
}

/** For the deliverer: writes the file when something has changed, at most once a second. Fails with the system's error. */
export class UsagePublisher {
  readonly #path: string;
  #published = "";
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #publishedAtMs = Number.NEGATIVE_INFINITY;

  /** @param path the spool's folder. */
  constructor(path: string) {
    this.#path = path;
  }

  async publish(usage: () => SpoolUsage, monotonicMs: number): Promise<void> {
    if (monotonicMs - this.#askedAtMs < intervalMs) return;
    this.#askedAtMs = monotonicMs;
    const { totalBytes, partnerBytes } = usage();
    const text = `${JSON.stringify({ totalBytes, partners: Object.fromEntries(partnerBytes) })}\n`;
    // Now and then in any case: somebody may have removed the file.
    if (text === this.#published && monotonicMs - this.#publishedAtMs < rewriteMs) return;
    const draft = `${usageFile(this.#path)}.tmp`;
    await writeFile(draft, text, { mode: 0o600 });
    await rename(draft, usageFile(this.#path));
    this.#published = text;
    this.#publishedAtMs = monotonicMs;
  }
}

/** What is in use now, by one look at the spool. Of what is in `incoming/` the partner is not known. */
export async function readUsage(path: string): Promise<SpoolUsage> {
  const reader = new UsageReader(path);
  await reader.refresh();
  return reader.snapshot();
}

interface IncomingBatch {
  readonly bytes: number;
  readonly partnerBytes: ReadonlyMap<string, number>;
}

/** For the receiver: keeps the sums at hand, so that asking costs nothing. */
export class UsageReader {
  readonly #path: string;
  readonly #onFault: (error: unknown) => void;
  readonly #monotonicMs: () => number;
  #published: SpoolUsage = { totalBytes: 0, partnerBytes: new Map() };
  readonly #incoming = new Map<string, IncomingBatch>();
  #incomingBytes = 0;
  readonly #incomingPartnerBytes = new Map<string, number>();
  #dueAtMs = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;

  /**
   * @param path the spool's folder.
   * @param onFault told when the spool cannot be looked at: what was known before is used on.
   * @param monotonicMs a clock that is never set.
   */
  constructor(
    path: string,
    onFault: (error: unknown) => void = () => undefined,
    monotonicMs: () => number = () => performance.now(),
  ) {
    this.#path = path;
    this.#onFault = onFault;
    this.#monotonicMs = monotonicMs;
  }

  /** Octets of the whole spool, as of about a second ago, with all that we have committed since. */
  totalBytes(): number {
    this.#refreshIfDue();
    return this.#published.totalBytes + this.#incomingBytes;
  }

  /** Octets of what a partner's messages take, as of about a second ago, with all that we have committed since. */
  partnerBytes(partner: string): number {
    this.#refreshIfDue();
    return (this.#published.partnerBytes.get(partner) ?? 0) + (this.#incomingPartnerBytes.get(partner) ?? 0);
  }

  snapshot(): SpoolUsage {
    const partnerBytes = new Map(this.#published.partnerBytes);
    for (const [partner, bytes] of this.#incomingPartnerBytes) add(partnerBytes, partner, bytes);
    return { totalBytes: this.#published.totalBytes + this.#incomingBytes, partnerBytes };
  }

  /** Counts a batch from the moment it is committed; to be given to the drop-box as `onCommitted`. */
  readonly note = ({ name, bytes, messages }: CommittedBatch): void => {
    const partnerBytes = new Map<string, number>();
    for (const { partner, wireBytes } of messages) add(partnerBytes, partner ?? "", wireBytes);
    this.#put(name, { bytes, partnerBytes });
  };

  /** Looks at the spool now. Fails with the system's error. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  #refreshIfDue(): void {
    if (this.#monotonicMs() >= this.#dueAtMs) this.refresh().catch(this.#onFault);
  }

  async #refresh(): Promise<void> {
    const beganAtMs = this.#monotonicMs();
    this.#dueAtMs = beganAtMs + intervalMs;
    // Only what was known before we looked can be known to be gone.
    const known = [...this.#incoming.keys()];
    const { incoming } = spoolFolders(this.#path);
    const found = filesByBatch(await readdir(incoming));
    for (const [batch, names] of found) {
      if (this.#incoming.has(batch)) continue;
      let bytes = 0;
      for (const name of names) bytes += await sizeOf(join(incoming, name));
      if (!this.#incoming.has(batch)) this.#put(batch, { bytes, partnerBytes: new Map() });
    }
    for (const batch of known) if (!found.has(batch)) this.#drop(batch);
    this.#published = await readPublished(this.#path);
    this.#dueAtMs = beganAtMs + Math.max(intervalMs, (this.#monotonicMs() - beganAtMs) / listingShare);
  }

  #put(name: string, batch: IncomingBatch): void {
    this.#drop(name);
    this.#incoming.set(name, batch);
    this.#count(batch, 1);
  }

  #drop(name: string): void {
    const batch = this.#incoming.get(name);
    if (batch === undefined) return;
    this.#incoming.delete(name);
    this.#count(batch, -1);
  }

  #count({ bytes, partnerBytes }: IncomingBatch, sign: 1 | -1): void {
    this.#incomingBytes += sign * bytes;
    for (const [partner, part] of partnerBytes) add(this.#incomingPartnerBytes, partner, sign * part);
  }
}

function add(sums: Map<string, number>, key: string, bytes: number): void {
  const sum = (sums.get(key) ?? 0) + bytes;
  if (sum === 0) sums.delete(key);
  else sums.set(key, sum);
}

/** Batches with their contents. */
function filesByBatch(names: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const name of names) {
    const file = readName(name);
    if (file === undefined || file.kind === "draft") continue;
    const files = found.get(file.batch);
    if (files === undefined) found.set(file.batch, [name]);
    else files.push(name);
  }
  return found;
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await lstat(path)).size;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return 0; // taken in between
    throw error;
  }
}

/** Absent or torn, after a loss of power: nothing is known until the deliverer writes it again. */
async function readPublished(path: string): Promise<SpoolUsage> {
  const nothing: SpoolUsage = { totalBytes: 0, partnerBytes: new Map() };
  try {
    const value: unknown = JSON.parse(await readFile(usageFile(path), "utf8"));
    if (typeof value !== "object" || value === null || !("totalBytes" in value) || !("partners" in value))
      return nothing;
    const { totalBytes, partners } = value;
    if (typeof totalBytes !== "number" || typeof partners !== "object" || partners === null) return nothing;
    const entries = Object.entries(partners).filter((entry): entry is [string, number] => typeof entry[1] === "number");
    return { totalBytes, partnerBytes: new Map(entries) };
  } catch (error) {
    if (error instanceof SyntaxError || systemCode(error) === "ENOENT") return nothing;
    throw error;
  }
}
