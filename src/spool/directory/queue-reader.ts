/**
 * Reads the queue for an operator, beside a deliverer that is at work: no lock is taken and nothing is changed. What moves
 * while it is read is shown once, where it was or where it is, or, settled in between, not at all.
 */
import { join } from "node:path";
import { canonicalDomain } from "../../mail/domain.ts";
import type { ForwardPath } from "../../mail/address.ts";
import { SpoolFault, type AttemptRecord, type QueueDetails, type QueueEntry, type QueueSelection } from "../spool.ts";
import type { Mark } from "./batch.ts";
import { nodeDisk, systemCode } from "./disk.ts";
import { spoolFolders, type SpoolFolders } from "./folders.ts";
import { notMade } from "./index-database.ts";
import { IndexReader, type IndexedMessage, type IndexedRecipient } from "./index-reader.ts";
import { batchesAmong, batchFile } from "./names.ts";
import { indexFile } from "./open-index.ts";
import { readBatch, readRecords, type SoundRecord } from "./record-reader.ts";

export type { QueueDetails };

const pageMessages = 500;

/** The messages that are meant: first those that nobody has tried yet, then those that wait, each oldest first. */
export async function* readQueue(path: string, selection: QueueSelection = {}): AsyncGenerator<QueueEntry> {
  const folders = spoolFolders(path);
  const index = openForReading(folders);
  const shown = new Set<string>();
  const covers = matcher(selection);
  try {
    if (selection.state !== "deferred" && selection.state !== "held" && selection.route === undefined) {
      for await (const entry of unindexedEntries(folders, index)) {
        if (!covers(entry)) continue;
        shown.add(entry.meta.id);
        yield entry;
      }
    }
    if (index === undefined || selection.state === "incoming" || selection.state === "active") return;
    for (let last = ""; ;) {
      const page = index.select(selection, last, pageMessages);
      const records = readRecords(folders.queue, page);
      const ids = page.map(({ id }) => id);
      const [waiting, attempts] = [index.recipientsOf(ids), index.attemptsOf(ids)];
      for (const message of page) {
        const record = shown.has(message.id) ? undefined : records.get(message.id);
        const entry =
          record === undefined
            ? undefined
            : indexedEntry(message, record, waiting.get(message.id) ?? [], attempts.get(message.id) ?? []);
        if (entry !== undefined && covers(entry)) yield entry;
      }
      if (page.length < pageMessages) return;
      last = page.at(-1)?.id ?? last;
    }
  } finally {
    index?.close();
  }
}

/** One message with all its attempts; undefined if the queue has none with this id. */
export async function readMessage(path: string, id: string): Promise<QueueDetails | undefined> {
  const folders = spoolFolders(path);
  const index = openForReading(folders);
  try {
    const message = index?.message(id);
    if (index !== undefined && message !== undefined) {
      const record = readRecords(folders.queue, [message]).get(id);
      if (record === undefined) return undefined;
      const attempts = index.attempts(id);
      return { ...indexedEntry(message, record, index.recipients(id), attempts), attempts };
    }
    for await (const entry of unindexedEntries(folders, index)) {
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
  const index = openForReading(folders);
  try {
    const counts = index?.counts() ?? { deferred: 0, held: 0 };
    const batchesIncoming = (await batchesIn(folders.incoming)).length;
    const examined = index?.examinedBatches() ?? new Set();
    const taken = (await batchesIn(folders.queue)).filter((name) => !examined.has(name));
    return { ...counts, batchesIncoming, batchesTaken: taken.length };
  } finally {
    index?.close();
  }
}

function openForReading(folders: SpoolFolders): IndexReader | undefined {
  return ifMade(() => new IndexReader(indexFile(folders), "read"));
}

/** The index, or undefined if no deliverer has made one yet. */
export function ifMade<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch (error) {
    if (error instanceof SpoolFault && error.message === notMade) return undefined;
    throw error;
  }
}

/** What is in the drop-box, and what has been taken and is not in the index. */
async function* unindexedEntries(folders: SpoolFolders, index: IndexReader | undefined): AsyncGenerator<QueueEntry> {
  // The drop-box first: what is taken out of it in between is found in the other folder.
  const incoming = await batchesIn(folders.incoming);
  const examined = index?.examinedBatches() ?? new Set<string>();
  const taken = (await batchesIn(folders.queue)).filter((name) => !examined.has(name));
  const seen = new Set(taken);
  for (const name of [...taken, ...incoming.filter((arrived) => !seen.has(arrived))]) {
    const arrived = seen.has(name) ? undefined : readBatch(join(folders.incoming, batchFile(name)));
    const records = arrived ?? readBatch(join(folders.queue, batchFile(name))) ?? [];
    for (const record of records) {
      if (record.kind === "damaged" || !record.marks.includes(".")) continue;
      const { meta, marks } = record;
      if (index?.batchOf(meta.id) !== undefined) continue;
      yield {
        meta,
        state: arrived === undefined ? "active" : "incoming",
        request: index?.request(meta.id) ?? null,
        recipients: recipientsOf(marks, new Map()),
      };
    }
  }
}

function indexedEntry(
  message: IndexedMessage,
  record: SoundRecord,
  recipients: readonly IndexedRecipient[],
  attempts: readonly AttemptRecord[],
): QueueEntry {
  const lastTexts = new Map(
    attempts.flatMap(({ recipients: tried, text }) => tried.map((position) => [position, text] as const)),
  );
  const waiting = new Map(
    recipients.map(({ index: position, attempts: count, nextAttemptAtMs, route }) => [
      position,
      { attempts: count, nextAttemptAtMs, route, lastText: lastTexts.get(position) ?? null },
    ]),
  );
  return {
    meta: record.meta,
    state: message.held ? "held" : "deferred",
    request: message.request,
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

/** Does the selection cover the entry? What the index can tell has been asked of it already; asking again does no harm. */
function matcher({ ids, partner, receivedBeforeMs, recipient, state }: QueueSelection): (entry: QueueEntry) => boolean {
  const wanted = ids === undefined ? undefined : new Set(ids);
  const addressed = recipient === undefined ? undefined : addressMatcher(recipient);
  return ({ meta, state: stands, recipients }) =>
    (wanted === undefined || wanted.has(meta.id)) &&
    (partner === undefined || meta.partner === partner) &&
    (receivedBeforeMs === undefined || meta.receivedAtMs < receivedBeforeMs) &&
    (state === undefined || stands === state) &&
    (addressed === undefined ||
      recipients.some(({ index, state: settled }) => {
        const path = meta.envelope.recipients[index]?.path;
        return settled === "pending" && path !== undefined && addressed(path);
      }));
}

/** Local parts are compared without case: an operator who types an address means the person. */
function addressMatcher(written: string): (path: ForwardPath) => boolean {
  const at = written.lastIndexOf("@");
  const domain = canonicalDomain(written.slice(at + 1));
  const local = written.slice(0, Math.max(0, at)).toLowerCase();
  return (path) => {
    if (path.kind === "postmaster") return written.toLowerCase() === "postmaster";
    if (at < 0 || path.mailbox.domain !== domain) return false;
    return local === "" || path.mailbox.localPart.toLowerCase() === local;
  };
}

async function batchesIn(folder: string): Promise<string[]> {
  const names = await nodeDisk.list(folder).catch((error: unknown) => {
    if (systemCode(error) === "ENOENT") return [];
    throw error;
  });
  return batchesAmong(names);
}
