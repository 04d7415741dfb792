/**
 * The format of a batch file: the messages that one group of syncs committed.
 *
 * ```
 * record   PINRELAY1 MMMMMMMM CCCCCCCC RRRRR S KKKKKKKK LF     lengths and checksum, hexadecimal
 *          one mark per recipient LF                            '.' pending, 'D', 'F', 'X'
 *          meta-data, JSON LF
 *          content, wire form LF                                absent (C = 0, S = 'file') for a large one
 * …
 * table    offset of each record, 10 hexadecimal digits, LF each
 * end      PINRELAY1-END TTTTTTTT KKKKKKKK LF                   number of records, CRC-32 of the table
 * ```
 * M, C: octets of meta-data and content; R: recipients; S: `I`, content inline, or `F`, content in a file of its own;
 * K: CRC-32 of the line before it and of the meta-data. The content has its SHA-256 in the meta-data. Records are found
 * by the table, never by searching, so that nothing which a sender put into a message can pass for a record.
 *
 * A record that fails its checks is given as damaged; the others of the batch are not touched by that. Whatever the bytes
 * are, decoding costs no more than their number allows: the checksums keep accidents out, not a receiver that lies. Pure.
 */
import { crc32 } from "node:zlib";
import { SpoolFault, type MessageMeta } from "../spool.ts";
import { isMessageMeta } from "./meta.ts";

/** A larger file is no batch. */
export const batchBytesMax = 16 * 1024 * 1024;
export const batchRecordsMax = 512;
/** Meta-data and inline content of one message. Batches are filled up to here, so that none exceeds `batchBytesMax`. */
export const recordBytesMax = 8 * 1024 * 1024;

/** From the beginning of a record to its marks. */
export const headLineBytes = "PINRELAY1 MMMMMMMM CCCCCCCC RRRRR S KKKKKKKK\n".length;
const headLine = /^PINRELAY1 ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{5}) ([IF]) ([0-9a-f]{8})\n$/;
const offsetBytes = 11;
const endLineBytes = "PINRELAY1-END TTTTTTTT KKKKKKKK\n".length;
const endLine = /^PINRELAY1-END ([0-9a-f]{8}) ([0-9a-f]{8})\n$/;

export type Mark = "." | "D" | "F" | "X";

/** Where the parts of a record stand in its batch file. */
export interface RecordPlace {
  readonly offset: number;
  readonly marksAt: number;
  readonly contentAt: number;
  readonly contentBytes: number;
  readonly end: number;
}

export type BatchRecord =
  | {
      readonly kind: "record";
      readonly place: RecordPlace;
      readonly meta: MessageMeta;
      readonly marks: readonly Mark[];
      /** In the record itself, or in a file of its own. */
      readonly inline: boolean;
    }
  | { readonly kind: "damaged"; readonly offset: number; readonly end: number; readonly reason: string };

/**
 * The pieces of one record, all marks pending. `content` is undefined where it has a file of its own. Throws a SpoolFault
 * if it could not be read again: nothing is committed that would be found damaged.
 */
export function encodeRecord(meta: MessageMeta, content: readonly Buffer[] | undefined): Buffer[] {
  const { id } = meta;
  if (!isMessageMeta(meta)) throw new SpoolFault("io", `what is known of message ${id} is not fit to be kept`);
  const json = Buffer.from(JSON.stringify(meta));
  const contentBytes = content === undefined ? 0 : meta.wireBytes;
  const head = `PINRELAY1 ${hex(json.length, 8)} ${hex(contentBytes, 8)} ${hex(meta.envelope.recipients.length, 5)} ${content === undefined ? "F" : "I"} `;
  const checksum = crc32(json, crc32(head));
  const pieces = [
    Buffer.from(`${head}${hex(checksum, 8)}\n${".".repeat(meta.envelope.recipients.length)}\n`),
    json,
    newline,
    ...(content ?? []),
    newline,
  ];
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (bytes > recordBytesMax) throw new SpoolFault("full", `message ${id} has too many recipients to be kept`);
  return pieces;
}

const newline = Buffer.from("\n");

/** The table and end line for records of these lengths, in order. */
export function encodeTable(recordLengths: readonly number[]): Buffer {
  let offset = 0;
  let table = "";
  for (const length of recordLengths) {
    table += `${hex(offset, 10)}\n`;
    offset += length;
  }
  return Buffer.from(`${table}PINRELAY1-END ${hex(recordLengths.length, 8)} ${hex(crc32(table), 8)}\n`);
}

/** All records of a batch, or undefined if its end is missing or damaged: then nothing in it can be told for certain. */
export function decodeBatch(file: Buffer): BatchRecord[] | undefined {
  if (file.length > batchBytesMax) return undefined;
  const end = endLine.exec(file.toString("latin1", Math.max(0, file.length - endLineBytes)));
  if (end === null) return undefined;
  const count = Number.parseInt(end[1] ?? "", 16);
  const tableAt = file.length - endLineBytes - count * offsetBytes;
  if (count > batchRecordsMax || tableAt < 0) return undefined;
  const table = file.toString("latin1", tableAt, file.length - endLineBytes);
  if (hex(crc32(table), 8) !== end[2]) return undefined;
  const offsets = table
    .split("\n")
    .slice(0, -1)
    .map((digits) => Number.parseInt(digits, 16));
  const ends = [...offsets.slice(1), tableAt];
  if (!offsets.every((offset, position) => offset < (ends[position] ?? 0))) return undefined;
  return offsets.map((offset, position) => decodeRecord(file, offset, offsets[position + 1] ?? tableAt));
}

/** One record that stands at `offset` and ends at `limit` of the buffer. */
export function decodeRecord(file: Buffer, offset: number, limit: number): BatchRecord {
  const damaged = (reason: string): BatchRecord => ({ kind: "damaged", offset, end: limit, reason });
  const headEnd = offset + headLineBytes;
  const head = headLine.exec(file.toString("latin1", offset, headEnd));
  if (head === null) return damaged("the head line is damaged");
  const [metaBytes = 0, contentBytes = 0, recipients = 0] = head
    .slice(1, 4)
    .map((digits) => Number.parseInt(digits, 16));
  const metaAt = headEnd + recipients + 1;
  const contentAt = metaAt + metaBytes + 1;
  if (contentAt + contentBytes + 1 !== limit) return damaged("the lengths do not fit");
  const json = file.subarray(metaAt, metaAt + metaBytes);
  const checked = file.subarray(offset, headEnd - "KKKKKKKK\n".length);
  if (hex(crc32(json, crc32(checked)), 8) !== head[5]) return damaged("the meta-data does not match its checksum");
  const marks = Array.from(file.toString("latin1", headEnd, headEnd + recipients), readMark);
  const meta = readMeta(json);
  if (meta === undefined || meta.envelope.recipients.length !== recipients)
    return damaged("the meta-data is no message's");
  if (marks.includes(undefined)) return damaged("a mark is damaged");
  return {
    kind: "record",
    place: { offset, marksAt: headEnd, contentAt, contentBytes, end: limit },
    meta,
    marks: marks.filter((mark) => mark !== undefined),
    inline: head[4] === "I",
  };
}

function readMark(letter: string): Mark | undefined {
  return letter === "." || letter === "D" || letter === "F" || letter === "X" ? letter : undefined;
}

/** The checksum has shown that nothing has changed since it was written, and nothing about who wrote it. */
function readMeta(json: Buffer): MessageMeta | undefined {
  try {
    const value: unknown = JSON.parse(json.toString());
    return isMessageMeta(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
