/**
 * Reads what Postfix's virtual(8) delivered, and takes off what Postfix put on top, so that a test can compare the rest
 * with what was sent, byte for byte.
 *
 * All recipients of one instance share a Maildir, because virtual(8) refuses to make a path from an address; its
 * `Delivered-To` field, one a file, says whose copy it is.
 */

import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

export interface HeaderField {
  name: string;
  /** The value as it stands, continuation lines included, without the last line end. */
  value: string;
}

/** A message as delivered, every line ended by CRLF as it was on the wire. */
export interface DeliveredContent {
  /** What the servers on the way put on top: Return-Path, X-Original-To, Delivered-To, and Received fields, topmost first. */
  added: HeaderField[];
  /** Everything below that, as one piece. Compare this with what was sent. */
  content: Buffer;
  /** The header, the line end of its last field included. */
  header: Buffer;
  /** What follows the empty line; undefined where there is no empty line. */
  body: Buffer | undefined;
}

const deliveryFields = new Set(["return-path", "x-original-to", "delivered-to"]);

/**
 * Takes apart a message as virtual(8) stored it.
 *
 * @param receivedMax how many Received fields count as added; give it where the message sent has some itself.
 */
export function contentOf(stored: Buffer, receivedMax = Number.POSITIVE_INFINITY): DeliveredContent {
  const wire = withCrlf(stored);
  const added: HeaderField[] = [];
  let at = 0;
  let received = 0;
  for (;;) {
    const field = fieldAt(wire, at);
    if (!field) break;
    const name = field.name.toLowerCase();
    if (name === "received" && received < receivedMax) received++;
    else if (!deliveryFields.has(name) || received > 0) break;
    added.push({ name: field.name, value: field.value });
    at = field.end;
  }
  const content = wire.subarray(at);
  return { added, content, ...splitContent(content) };
}

/** Splits wire form at the empty line that ends the header. */
export function splitContent(content: Buffer): { header: Buffer; body: Buffer | undefined } {
  if (content.subarray(0, 2).equals(Buffer.from("\r\n"))) {
    return { header: Buffer.alloc(0), body: content.subarray(2) };
  }
  const blank = content.indexOf("\r\n\r\n");
  if (blank < 0) return { header: content, body: undefined };
  return { header: content.subarray(0, blank + 2), body: content.subarray(blank + 4) };
}

/** The values of a header field, unfolded (RFC 5322 §2.2.3), in order. */
export function fieldsNamed(header: Buffer, name: string): string[] {
  const values: string[] = [];
  for (let at = 0; ;) {
    const field = fieldAt(header, at);
    if (!field) return values;
    if (field.name.toLowerCase() === name.toLowerCase()) values.push(field.value.replaceAll("\r\n", "").trim());
    at = field.end;
  }
}

/**
 * Undoes the local line ends. Postfix takes exactly one CRLF, or a bare LF, off each line and stores LF, so a CR that
 * stands before the LF in the file was content and stays.
 */
function withCrlf(stored: Buffer): Buffer {
  const pieces: Buffer[] = [];
  const lineEnd = Buffer.from("\r\n");
  let from = 0;
  for (let at = stored.indexOf(0x0a); at >= 0; at = stored.indexOf(0x0a, from)) {
    pieces.push(stored.subarray(from, at), lineEnd);
    from = at + 1;
  }
  pieces.push(stored.subarray(from));
  return Buffer.concat(pieces);
}

function fieldAt(wire: Buffer, at: number): (HeaderField & { end: number }) | undefined {
  let end = wire.indexOf("\r\n", at);
  if (end <= at) return undefined;
  while (wire[end + 2] === 0x20 || wire[end + 2] === 0x09) {
    const next = wire.indexOf("\r\n", end + 2);
    if (next < 0) break;
    end = next;
  }
  const text = wire.toString("utf8", at, end);
  const matched = /^([!-9;-~]+)[ \t]*:/.exec(text);
  if (!matched?.[1]) return undefined;
  return { name: matched[1], value: text.slice(matched[0].length).trim(), end: end + 2 };
}

/** What a delivered file says about itself before it is read whole. */
interface Entry {
  name: string;
  recipient: string;
  header: Buffer;
}

const headerReadBytesMax = 256 * 1024;

/** The Maildir of one Postfix instance. Files in it never change, so what is known of one is kept. */
export class Maildir {
  readonly #directory: string;
  readonly #known = new Map<string, Entry>();

  constructor(directory: string) {
    this.#directory = join(directory, "new");
  }

  /** The messages for this recipient, as stored, oldest first. */
  async read(recipient: string): Promise<Buffer[]> {
    const entries = await this.#entries(recipient);
    return Promise.all(entries.map(async ({ name }) => readFile(join(this.#directory, name))));
  }

  async count(recipient: string): Promise<number> {
    return (await this.#entries(recipient)).length;
  }

  /** The first message for this recipient that has this value in this header field. */
  async find(recipient: string, field: string, value: string): Promise<Buffer | undefined> {
    const entries = await this.#entries(recipient);
    const entry = entries.find(({ header }) => fieldsNamed(header, field).includes(value));
    return entry && readFile(join(this.#directory, entry.name));
  }

  async #entries(recipient: string): Promise<Entry[]> {
    // Postfix makes the Maildir at the first delivery; before that it is empty.
    const names = await readdir(this.#directory).catch((error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
      throw error;
    });
    const unknown = names.filter((name) => !this.#known.has(name));
    for (const name of unknown) this.#known.set(name, await describeFile(this.#directory, name));
    return [...this.#known.values()]
      .filter((entry) => entry.recipient === recipient.toLowerCase())
      .toSorted((a, b) => deliveredAt(a.name) - deliveredAt(b.name));
  }
}

async function describeFile(directory: string, name: string): Promise<Entry> {
  const file = await open(join(directory, name));
  try {
    const buffer = Buffer.alloc(headerReadBytesMax);
    const { bytesRead } = await file.read(buffer);
    const { header } = splitContent(withCrlf(buffer.subarray(0, bytesRead)));
    return { name, header, recipient: fieldsNamed(header, "Delivered-To")[0]?.toLowerCase() ?? "" };
  } finally {
    await file.close();
  }
}

/** Names begin with the second and, after `M`, the microsecond of delivery: `1700000000.Vfe00Ic0ffeeM123456.host`. */
function deliveredAt(name: string): number {
  const [, seconds = "0", microseconds = "0"] = /^(\d+)\..*?M(\d+)\./.exec(name) ?? [];
  return Number(seconds) * 1e6 + Number(microseconds);
}
