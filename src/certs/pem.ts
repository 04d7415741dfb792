/**
 * PEM (RFC 7468): DER in base64 between BEGIN and END lines. Lenient about what mail and Windows do to such files (line
 * ends, byte order marks, indentation, text around the blocks), strict about the blocks themselves. Pure.
 */

export interface PemBlock {
  /** What stands behind BEGIN, as "CERTIFICATE". */
  readonly label: string;
  readonly der: Buffer;
  /** 1-based. */
  readonly line: number;
}

/** A block that is damaged; the message says where and how. */
export class PemError extends Error {
  override readonly name = "PemError";
}

const beginLine = /^-----BEGIN ([A-Z0-9][A-Z0-9 ]*)-----$/;
const endLine = /^-----END ([A-Z0-9][A-Z0-9 ]*)-----$/;

/** A file's text, whichever Unicode encoding its byte order mark tells; without a mark it is UTF-8 or ASCII. */
export function decodeText(bytes: Uint8Array): string {
  const encoding =
    bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  return new TextDecoder(encoding).decode(bytes); // drops the mark
}

/** Every block of the text, in order; an empty list if there is none. */
export function decodePem(text: string): PemBlock[] {
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.trim());
  const blocks: PemBlock[] = [];
  for (let index = 0; index < lines.length; index++) {
    const label = beginLine.exec(lines[index] ?? "")?.[1];
    if (label === undefined) continue;
    const line = index + 1;
    let end = index + 1;
    while (end < lines.length && !lines[end]?.startsWith("-----")) end++;
    if (endLine.exec(lines[end] ?? "")?.[1] !== label) {
      throw new PemError(`the ${label} that begins in line ${line} has no END line: the file is cut short`);
    }
    blocks.push({ label, der: decodeBody(lines.slice(line, end), label, line), line });
    index = end;
  }
  return blocks;
}

/** Base64 in lines of 64 (RFC 7468 §2). */
export function encodePem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}

function decodeBody(lines: readonly string[], label: string, line: number): Buffer {
  // Header fields (RFC 1421 §4.6, as in "Proc-Type: 4,ENCRYPTED") stand before an empty line.
  const headed = lines[0]?.includes(":") === true;
  const base64 = lines.slice(headed ? lines.indexOf("") + 1 : 0).join("");
  const der = Buffer.from(base64, "base64");
  if (base64 === "" || der.toString("base64") !== base64) {
    throw new PemError(`the ${label} that begins in line ${line} is damaged: its base64 does not decode`);
  }
  return der;
}
