/**
 * Reads the queue for an operator, beside a deliverer that is at work: no lock is taken and nothing is changed. What moves
 * while it is read may be shown where it was or where it is, or, settled in between, not at all.
 */
import { join } from "node:path";
import type { AttemptRecord, QueueEntry } from "../spool.ts";
import { decodeBatch, decodeRecord, type BatchRecord, type Mark } from "./batch.ts";
import { nodeDisk, systemCode } from "./disk.ts";
import { spoolFolders } from "./folders.ts";
import { QueueIndex, type IndexedMessage } from "./queue-index.ts";

export interface QueueDetails extends QueueEntry {
  readonly attempts: readonly AttemptRecord[];
}

type SoundRecord = BatchRecord & { readonly kind: "record" };

const pageMessages = 500;

/** All messages: first those that nobody has tried yet, then those that wait, each oldest first. */
export async function* readQueue(path: string): AsyncGenerator<QueueEntry> {
  const index = openIndex(path);
  try {
    yield* unindexedEntries(path, index);
    if (index === undefined) return;
    for (let last = ""; ;) {
      const page = index.messagesAfter(last, pageMessages);
      if (page.length === 0) return;
      for (const message of page) {
        const entry = await indexedEntry(path, index, message);
        if (entry !== undefined) yield entry;
        last = message.id;
      }
    }
  } finally {
    index?.close();
  }
}

/** One message with all its attempts; undefined if the queue has none with this id. */
export async function readMessage(path: string, id: string): Promise<QueueDetails | undefined> {
  const index = openIndex(path);
  try {
    const message = index?.message(id);
    if (index !== undefined && message !== undefined) {
      const entry = await indexedEntry(path, index, message);
      return entry === undefined ? undefined : { ...entry, attempts: index.attempts(id) };
    }
    for await (const entry of unindexedEntries(path, index)) {
      if (entry.meta.id === id) return { ...entry, attempts: [] };
    }
    return undefined;
  } finally {
    index?.close();
  }
}

/** How many messages there are, without reading them all. */
export async function countQueue(
  path: string,
): Promise<{ deferred: number; held: number; batchesIncoming: number; batchesTaken: number }> {
  const folders = spoolFolders(path);
  const index = openIndex(path);
  try {
    const counts = index?.counts() ?? { deferred: 0, held: 0 };
    const examined = index?.examinedBatches() ?? new Set();
    const taken = (await batchesIn(folders.queue)).filter((name) => !examined.has(name));
    return { ...counts, batchesIncoming: (await batchesIn(folders.incoming)).length, batchesTaken: taken.length };
  } finally {
    index?.close();
  }
}

async function* unindexedEntries(path: string, index: QueueIndex | undefined): AsyncGenerator<QueueEntry> {
  const folders = spoolFolders(path);
  const examined = index?.examinedBatches() ?? new Set<string>();
  const places = [
    ...(await batchesIn(folders.queue))
      .filter((name) => !examined.has(name))
      .map((name) => ["active", folders.queue, name] as const),
    ...(await batchesIn(folders.incoming)).map((name) => ["incoming", folders.incoming, name] as const),
  ];
  for (const [state, folder, name] of places) {
    for (const record of (await readBatch(join(folder, `${name}.batch`))) ?? []) {
      if (record.kind === "damaged" || !record.marks.includes(".") || index?.has(record.meta.id) === true) continue;
      yield { meta: record.meta, state, recipients: recipientsOf(record.marks, new Map()) };
    }
  }
}

async function indexedEntry(path: string, index: QueueIndex, message: IndexedMessage): Promise<QueueEntry | undefined> {
  const record = await readRecord(join(spoolFolders(path).queue, `${message.batch}.batch`), message);
  if (record === undefined) return undefined;
  const lastTexts = new Map(
    index
      .attempts(message.id)
      .flatMap(({ recipients, text }) => recipients.map((position) => [position, text] as const)),
  );
  const waiting = new Map(
    index
      .recipients(message.id)
      .map(({ index: position, attempts, nextAttemptAtMs, route }) => [
        position,
        { attempts, nextAttemptAtMs, route, lastText: lastTexts.get(position) ?? null },
      ]),
  );
  return {
    meta: record.meta,
    state: message.held ? "held" : "deferred",
    recipients: recipientsOf(record.marks, waiting),
  };
}

interface Waiting {
  readonly attempts: number;
  readonly nextAttemptAtMs: number;
  readonly route: string | null;
  readonly lastText: string | null;
}

const stateOfMark = { ".": "pending", D: "delivered", F: "failed", X: "removed" } as const satisfies Record<
  Mark,
  string
>;

function recipientsOf(marks: readonly Mark[], waiting: ReadonlyMap<number, Waiting>): QueueEntry["recipients"] {
  return marks.map((mark, position) => {
    const wait = mark === "." ? waiting.get(position) : undefined;
    return {
      index: position,
      state: stateOfMark[mark],
      attempts: wait?.attempts ?? 0,
      nextAttemptAtMs: wait?.nextAttemptAtMs ?? null,
      route: wait?.route ?? null,
      lastText: wait?.lastText ?? null,
    };
  });
}

function openIndex(path: string): QueueIndex | undefined {
  try {
    return new QueueIndex(join(spoolFolders(path).queue, "index.sqlite"), { readOnly: true });
  } catch (error) {
    if (error instanceof Error && /unable to open/i.test(error.message)) return undefined; // no deliverer has run yet
    throw error;
  }
}

async function batchesIn(folder: string): Promise<string[]> {
  const names = await nodeDisk.list(folder).catch((error: unknown) => {
    if (systemCode(error) === "ENOENT") return [];
    throw error;
  });
  return names.flatMap((name) => (name.endsWith(".batch") ? name.slice(0, -".batch".length) : [])).toSorted();
}

async function readBatch(file: string): Promise<BatchRecord[] | undefined> {
  const bytes = await readPart(file, undefined);
  return bytes === undefined ? undefined : decodeBatch(bytes);
}

async function readRecord(file: string, { offset, length }: IndexedMessage): Promise<SoundRecord | undefined> {
  const bytes = await readPart(file, { offset, length });
  const record = bytes === undefined ? undefined : decodeRecord(bytes, 0, length);
  return record?.kind === "record" ? record : undefined;
}

async function readPart(
  file: string,
  part: { offset: number; length: number } | undefined,
): Promise<Buffer | undefined> {
  try {
    const opened = await nodeDisk.openForReading(file);
    try {
      return await opened.read(part?.offset ?? 0, part?.length ?? opened.sizeBytes);
    } finally {
      await opened.close();
    }
  } catch (error) {
    if (["ENOENT", "ETRUNCATED", "EFTYPE", "ELOOP"].includes(systemCode(error) ?? "")) return undefined;
    throw error;
  }
}
