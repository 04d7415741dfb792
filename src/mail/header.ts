/**
 * Walks the header of a message field by field, as bytes, so that what is not touched stays as it came (RFC 5322 §2.2).
 *
 * The block is read as it stands on the wire (RFC 5321 §4.5.2): one dot at the start of a line is not part of it, because
 * the next server will drop it. Whoever skips that step can be shown `.Received:` and lets `Received:` pass.
 *
 * Promises: total and linear in the size of the block, whatever stands in it; the fields follow one another without gaps
 * from the start of the block to its end, or to the empty line if it has one. A line ends at LF, with or without CR.
 * Pure; never fails: what is no field is listed under the name "".
 */

export interface HeaderField {
  /** In lower case; "" for a line that is no field: no colon, or characters that no field name may have. */
  readonly name: string;
  /** Offset of its first octet in the block. */
  readonly start: number;
  /** Offset behind its last CRLF, folded lines included. */
  readonly end: number;
}

const tab = 0x09;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const space = 0x20;
const dot = 0x2e;
const colon = 0x3a;

/** The fields of a header block, with what is no field among them, in their order. */
export function headerFields(block: Buffer): HeaderField[] {
  const fields: HeaderField[] = [];
  let name: string | undefined; // of the field that is open
  let start = 0;
  let at = 0;
  while (at < block.length) {
    const lineEnd = endOfLine(block, at);
    if (isEmptyLine(block, at, lineEnd)) break;
    const text = afterDot(block, at);
    if (name === undefined || !isWhite(block[text])) {
      if (name !== undefined) fields.push({ name, start, end: at });
      name = nameIn(block, text, lineEnd);
      start = at;
    }
    at = lineEnd;
  }
  if (name !== undefined) fields.push({ name, start, end: at });
  return fields;
}

/**
 * What stands behind the colon, unfolded (RFC 5322 §2.2.3: the line ends go, the white space stays) and trimmed, one
 * character for each octet. For a line that is no field, all of it.
 */
export function fieldBody(block: Buffer, field: HeaderField): string {
  const pieces: string[] = [];
  let from = field.name === "" ? afterDot(block, field.start) : block.indexOf(colon, field.start) + 1;
  while (from < field.end) {
    const lineEnd = Math.min(endOfLine(block, from), field.end);
    pieces.push(block.toString("latin1", from, endOfText(block, from, lineEnd)));
    from = lineEnd < field.end ? afterDot(block, lineEnd) : lineEnd;
  }
  return trimWhite(pieces.join(""));
}

/**
 * The fields of a reply to the message with this Message-ID (RFC 5322 §3.6.4); none where it is not of a form that can be
 * repeated as it is.
 */
export function replyFields(messageId: string): string[] {
  if (!/^<[\w!#$%&'*+/=?^`{|}~.@:[\]-]{1,250}>$/.test(messageId)) return [];
  return [`In-Reply-To: ${messageId}`, `References: ${messageId}`];
}

/** The field name in a line, or "" if it has none: `field-name *WSP ":"` (RFC 5322 §3.6.8, §4.5.8). */
function nameIn(block: Buffer, start: number, end: number): string {
  let at = start;
  while (at < end && isNameOctet(block[at])) at += 1;
  const nameEnd = at;
  while (at < end && isWhite(block[at])) at += 1;
  return nameEnd > start && at < end && block[at] === colon
    ? block.toString("latin1", start, nameEnd).toLowerCase()
    : "";
}

function endOfLine(block: Buffer, from: number): number {
  const at = block.indexOf(lineFeed, from);
  return at < 0 ? block.length : at + 1;
}

/** Where the text of a line ends: before LF, and CR if there is one. */
function endOfText(block: Buffer, start: number, lineEnd: number): number {
  let end = lineEnd;
  if (end > start && block[end - 1] === lineFeed) end -= 1;
  if (end > start && block[end - 1] === carriageReturn) end -= 1;
  return end;
}

function isEmptyLine(block: Buffer, start: number, lineEnd: number): boolean {
  return endOfText(block, start, lineEnd) === start;
}

function afterDot(block: Buffer, start: number): number {
  return block[start] === dot ? start + 1 : start;
}

function isWhite(octet: number | undefined): boolean {
  return octet === space || octet === tab;
}

/** ftext (RFC 5322 §3.6.8): printable ASCII but for the colon. */
function isNameOctet(octet: number | undefined): boolean {
  return octet !== undefined && octet > space && octet < 0x7f && octet !== colon;
}

/** Without white space at either end. By hand: a regular expression would take quadratic time on a line of spaces. */
function trimWhite(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isWhite(text.charCodeAt(start))) start += 1;
  while (end > start && isWhite(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(start, end);
}
