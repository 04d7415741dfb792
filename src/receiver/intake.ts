/**
 * One message from 354 to 250: scans for the end of data, reads the header, puts our trace fields on top, streams the
 * rest into the spool, and commits.
 *
 * Promises: nothing is accepted that the end-of-data checks refuse, and those are asked only at the true end of data; no
 * more of a message is in memory than its header and one piece of its body; `accepted` means on stable storage.
 */
import type { CanonicalDomain } from "../mail/domain.ts";
import type { Envelope } from "../mail/envelope.ts";
import type { ReplyName } from "../mail/reply.ts";
import { hopsMax, inspectTrace } from "../mail/trace.ts";
import { SpoolFault, type Draft, type DropBox, type MessageMeta } from "../spool/spool.ts";
import { ContentScanner } from "./content-scanner.ts";

export interface IntakeRequest {
  readonly dropBox: DropBox;
  readonly hostname: CanonicalDomain;
  readonly partner: string;
  readonly envelope: Envelope;
  readonly session: NonNullable<MessageMeta["session"]>;
  /** Octets as RFC 1870 counts them, of what the client sends. */
  readonly messageBytesMax: number;
  /** Our trace fields, each line ended by CRLF. */
  readonly traceFields: (id: string) => string;
  readonly now: () => number;
}

export type IntakeResult =
  | { readonly kind: "accepted"; readonly meta: MessageMeta }
  | { readonly kind: "refused"; readonly reply: ReplyName; readonly id: string; readonly cause?: unknown };

const headerBytesMax = 256 * 1024;

export class Intake {
  readonly #request: IntakeRequest;
  readonly #draft: Draft;
  readonly #scanner = new ContentScanner();
  /** The header while it is coming in; undefined once it is complete. */
  #header: HeaderBuffer | undefined = new HeaderBuffer();
  #headerBytes = 0;
  #prefixBytes = 0;
  /** The first thing found that speaks against the message; the rest is read and dropped. */
  #refusal: { reply: ReplyName; cause?: unknown } | undefined;
  #ended = false;

  /** Throws a SpoolFault if the spool takes nothing now. */
  constructor(request: IntakeRequest) {
    this.#request = request;
    this.#draft = request.dropBox.receive();
  }

  get sizeBytes(): number {
    return this.#scanner.sizeBytes;
  }

  /**
   * Takes the next octets. `rest` is what follows the end of data, undefined while there is more to come; `ready` is to be
   * awaited before the next piece, undefined if it may come at once.
   */
  take(piece: Buffer): { readonly rest: Buffer | undefined; readonly ready: Promise<void> | undefined } {
    const { content, rest } = this.#scanner.scan(piece);
    if (this.#scanner.sizeBytes > this.#request.messageBytesMax) this.#refuse("tooLarge");
    const pending = content.flatMap((part) => this.#add(part) ?? []);
    if (rest !== undefined && this.#header !== undefined) pending.push(...this.#endHeader(this.#header.take()));
    return { rest, ready: pending.length === 0 ? undefined : this.#settled(pending) };
  }

  /** At the end of data: the verdict, and for a message that passes, its commit. */
  async finish(): Promise<IntakeResult> {
    if (this.#scanner.malformed) this.#refusal = { reply: "malformedContent" };
    if (this.#refusal !== undefined) {
      await this.abandon();
      return { kind: "refused", id: this.#draft.id, ...this.#refusal };
    }
    this.#ended = true;
    const { partner, envelope, session, now } = this.#request;
    try {
      const meta = await this.#draft.commit({
        receivedAtMs: now(),
        partner,
        toPartner: null,
        envelope,
        session,
        sizeBytes: this.#scanner.sizeBytes + this.#prefixBytes,
        headerBytes: this.#headerBytes,
        eightBit: this.#scanner.eightBit,
      });
      return { kind: "accepted", meta };
    } catch (error) {
      return { kind: "refused", id: this.#draft.id, reply: replyToFault(error), cause: error };
    }
  }

  /** The message is not wanted any more, or its sender is gone. */
  async abandon(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#draft.discard();
  }

  #add(part: Buffer): Promise<void> | undefined {
    if (this.#refusal !== undefined) return undefined;
    if (this.#header === undefined) return this.#draft.write(part);
    const ended = this.#header.add(part);
    if (ended !== undefined) {
      const [first, ...others] = this.#endHeader(ended);
      return first === undefined ? undefined : Promise.all([first, ...others]).then(() => undefined);
    }
    if (this.#header.bytes > headerBytesMax) this.#refuse("headerTooLarge");
    return undefined;
  }

  /** The header is complete: judges its trace and writes it below ours, without what is forged in our name. */
  #endHeader({ header, body }: { header: Buffer; body: Buffer }): Array<Promise<void>> {
    this.#header = undefined;
    const trace = inspectTrace(header, this.#request.hostname);
    if (trace.hops > hopsMax) this.#refuse("tooManyHops");
    else if (trace.loops > 0) this.#refuse("mailLoop");
    if (this.#refusal !== undefined) return [];
    const prefix = Buffer.from(this.#request.traceFields(this.#draft.id));
    const kept: Buffer[] = [];
    let from = 0;
    for (const field of trace.forged) {
      kept.push(header.subarray(from, field.start));
      from = field.end;
    }
    kept.push(header.subarray(from));
    const keptBytes = kept.reduce((sum, part) => sum + part.length, 0);
    this.#prefixBytes = prefix.length - (header.length - keptBytes);
    this.#headerBytes = prefix.length + keptBytes;
    return [prefix, ...kept, body].filter((part) => part.length > 0).flatMap((part) => this.#draft.write(part) ?? []);
  }

  #refuse(reply: ReplyName, cause?: unknown): void {
    this.#refusal ??= cause === undefined ? { reply } : { reply, cause };
  }

  /** Waits for writes; a failed one refuses the message, and the session reads on to the end of data. */
  async #settled(writes: ReadonlyArray<Promise<void>>): Promise<void> {
    for (const result of await Promise.allSettled(writes)) {
      if (result.status === "rejected") this.#refuse(replyToFault(result.reason), result.reason);
    }
  }
}

/** Our own faults are never the sender's: 4xx, and never 250. */
export function replyToFault(error: unknown): ReplyName {
  if (!(error instanceof SpoolFault)) return "spoolFault";
  switch (error.kind) {
    case "full":
      return "spoolFull";
    case "closed":
      return "shuttingDown";
    case "io":
    case "damaged":
    case "locked":
      return "spoolFault";
  }
}

/** Collects the header; grows by doubling, so that a client which sends single octets costs no more than one that doesn't. */
class HeaderBuffer {
  #buffer = Buffer.allocUnsafe(4096);
  bytes = 0;

  /** Adds a piece of content; gives header and body once the empty line is there. */
  add(piece: Buffer): { header: Buffer; body: Buffer } | undefined {
    if (this.bytes + piece.length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(2 * (this.bytes + piece.length));
      this.#buffer.copy(larger, 0, 0, this.bytes);
      this.#buffer = larger;
    }
    const searchFrom = Math.max(0, this.bytes - 3);
    piece.copy(this.#buffer, this.bytes);
    this.bytes += piece.length;
    const all = this.#buffer.subarray(0, this.bytes);
    if (all.length >= 2 && all[0] === 0x0d && all[1] === 0x0a) return { header: all.subarray(0, 0), body: all };
    const end = all.indexOf("\r\n\r\n", searchFrom);
    return end < 0 ? undefined : { header: all.subarray(0, end + 2), body: all.subarray(end + 2) };
  }

  /** What there is, when the message has ended without an empty line. */
  take(): { header: Buffer; body: Buffer } {
    return { header: this.#buffer.subarray(0, this.bytes), body: Buffer.alloc(0) };
  }
}
