/**
 * The wire form of a message: what stands between 354 and the final dot, every line ended by CRLF and a dot at the start
 * of a line doubled (RFC 5321 §4.5.2). The spool keeps messages in it, so that a body passes through untouched. Pure.
 */

const dot = 0x2e;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** Undoes dot-stuffing in a piece of wire form that begins at the start of a line. */
export function unstuff(wire: Buffer): Buffer {
  const pieces: Buffer[] = [];
  let from = wire[0] === dot ? 1 : 0;
  for (let at = wire.indexOf("\n.", 0); at >= 0; at = wire.indexOf("\n.", at + 2)) {
    pieces.push(wire.subarray(from, at + 1));
    from = at + 2;
  }
  pieces.push(wire.subarray(from));
  return pieces.length === 1 ? wire.subarray(from) : Buffer.concat(pieces);
}

/** Brings text of our own making (lines ended by CRLF or LF) into wire form. */
export function toWire(text: string | Buffer): Buffer {
  const source = typeof text === "string" ? Buffer.from(text) : text;
  const pieces: Buffer[] = [];
  let from = 0;
  while (from < source.length) {
    const at = source.indexOf(lineFeed, from);
    const end = at < 0 ? source.length : at;
    const line = source.subarray(from, end > from && source[end - 1] === carriageReturn ? end - 1 : end);
    if (line[0] === dot) pieces.push(Buffer.from("."));
    pieces.push(line, Buffer.from("\r\n"));
    from = end + 1;
  }
  return Buffer.concat(pieces);
}
