/**
 * What the queue index tells of the messages in it: for the deliverer, which also writes it, and for the operator, beside a
 * deliverer at work.
 */
import type { AttemptRecord, QueueSelection, RecipientIndex } from "../spool.ts";
import { IndexDatabase, stringOf, type IndexAccess, type Row } from "./index-database.ts";

/** Where a message stands, and whose it is. */
export interface IndexedMessage {
  readonly id: string;
  readonly batch: string;
  readonly offset: number;
  readonly length: number;
  readonly held: boolean;
  readonly delayReported: boolean;
  readonly request: RequestedAction | null;
}

export interface IndexedRecipient {
  readonly index: RecipientIndex;
  readonly route: string | null;
  readonly attempts: number;
  readonly nextAttemptAtMs: number;
}

/** What the operator wants to become of a message that is not the operator's to touch now. */
export type RequestedAction = "hold" | "remove" | "bounce";

const messageColumns = `id, batch, offset, length, held, delay_reported,
  (SELECT action FROM request WHERE request.message = id) AS request`;

export class IndexReader {
  protected readonly database: IndexDatabase;

  /** Throws a SpoolFault; `isIntact` tells an index that is damaged without having been noticed. */
  constructor(file: string, access: IndexAccess) {
    this.database = new IndexDatabase(file, access);
  }

  isIntact(): boolean {
    return this.database.isIntact();
  }

  close(): void {
    this.database.close();
  }

  /** In which batch the message stands; undefined: it is not in the index. */
  batchOf(id: string): string | undefined {
    const row = this.database.get("SELECT batch FROM message WHERE id = ?", id);
    return row === undefined ? undefined : stringOf(row["batch"]);
  }

  /** Batches of which the index alone knows what is left. */
  examinedBatches(): Set<string> {
    const found = new Set<string>();
    this.database.visit("SELECT name FROM batch WHERE examined = 1", [], (row) => {
      found.add(stringOf(row["name"]));
      return "more";
    });
    return found;
  }

  counts(): { deferred: number; held: number } {
    const row = this.database.get("SELECT count(*) AS all_messages, total(held) AS held FROM message");
    const held = Number(row?.["held"]);
    return { deferred: Number(row?.["all_messages"]) - held, held };
  }

  /** Octets of what is deferred or held by partner, and of all batches that the index knows. */
  usage(): { readonly partners: ReadonlyMap<string, number>; readonly batchBytes: number } {
    const rows = this.database.all("SELECT kind, name, bytes FROM usage");
    const partners = rows.filter((row) => row["kind"] === "partner");
    const batches = rows.find((row) => row["kind"] === "batches");
    return {
      partners: new Map(partners.map((row) => [stringOf(row["name"]), Number(row["bytes"])])),
      batchBytes: Number(batches?.["bytes"] ?? 0),
    };
  }

  message(id: string): IndexedMessage | undefined {
    const row = this.database.get(`SELECT ${messageColumns} FROM message WHERE id = ?`, id);
    return row === undefined ? undefined : readMessage(row);
  }

  recipients(id: string): IndexedRecipient[] {
    return this.recipientsOf([id]).get(id) ?? [];
  }

  attempts(id: string): AttemptRecord[] {
    return this.attemptsOf([id]).get(id) ?? [];
  }

  /** The recipients that wait, by message, in their order. */
  recipientsOf(ids: readonly string[]): ReadonlyMap<string, IndexedRecipient[]> {
    return this.#byMessage("SELECT * FROM recipient WHERE", "ORDER BY message, position", ids, (row) => ({
      index: Number(row["position"]),
      route: row["route"] === "" ? null : stringOf(row["route"]),
      attempts: Number(row["attempts"]),
      nextAttemptAtMs: Number(row["next_attempt_at"]),
    }));
  }

  /** The attempts, by message, as they were made. */
  attemptsOf(ids: readonly string[]): ReadonlyMap<string, AttemptRecord[]> {
    return this.#byMessage("SELECT * FROM attempt WHERE", "ORDER BY message, rowid", ids, (row) => ({
      atMs: Number(row["at"]),
      recipients: readPositions(stringOf(row["recipients"])),
      server: row["server"] === null ? null : stringOf(row["server"]),
      text: stringOf(row["text"]),
    }));
  }

  #byMessage<T>(select: string, order: string, ids: readonly string[], read: (row: Row) => T): Map<string, T[]> {
    const found = new Map<string, T[]>();
    // Each message by itself where it is one: nothing has to be unpacked.
    const [where, value] =
      ids.length === 1 ? ["= ?", ids[0] ?? ""] : ["IN (SELECT value FROM json_each(?))", JSON.stringify(ids)];
    for (const row of this.database.all(`${select} message ${where} ${order}`, value)) {
      const id = stringOf(row["message"]);
      const items = found.get(id);
      if (items === undefined) found.set(id, [read(row)]);
      else items.push(read(row));
    }
    return found;
  }

  /** A page of the messages to which the selection applies, as far as the index can tell, oldest first. */
  select({ ids, partner, route, receivedBeforeMs, state }: QueueSelection, afterId: string, countMax: number) {
    const conditions = ["id > ?"];
    const values: Array<string | number> = [afterId];
    const need = (condition: string, value: string | number) => {
      conditions.push(condition);
      values.push(value);
    };
    if (ids !== undefined) need("id IN (SELECT value FROM json_each(?))", JSON.stringify(ids));
    if (partner !== undefined) need("partner = ?", partner ?? "");
    if (receivedBeforeMs !== undefined) need("received_at < ?", receivedBeforeMs);
    if (state !== undefined) need("held = ?", state === "held" ? 1 : 0);
    if (route !== undefined) {
      need("EXISTS (SELECT 1 FROM recipient WHERE recipient.message = id AND recipient.route = ?)", route);
    }
    const sql = `SELECT ${messageColumns} FROM message WHERE ${conditions.join(" AND ")} ORDER BY id LIMIT ?`;
    return this.database.all(sql, ...values, countMax).map(readMessage);
  }

  /** What is asked for a message, in the index or not. */
  request(id: string): RequestedAction | undefined {
    const row = this.database.get("SELECT action FROM request WHERE message = ?", id);
    return row === undefined ? undefined : readAction(row["action"]);
  }
}

function readMessage(row: Row): IndexedMessage {
  return {
    id: stringOf(row["id"]),
    batch: stringOf(row["batch"]),
    offset: Number(row["offset"]),
    length: Number(row["length"]),
    held: row["held"] === 1,
    delayReported: row["delay_reported"] === 1,
    request: row["request"] === null ? null : readAction(row["request"]),
  };
}

export function readAction(value: unknown): RequestedAction {
  return value === "hold" || value === "remove" ? value : "bounce";
}

function readPositions(json: string): number[] {
  const value: unknown = JSON.parse(json);
  return Array.isArray(value) ? value.filter((position) => typeof position === "number") : [];
}
