/**
 * One message from 354 to 250: scans for the end of data, reads the header, puts our trace fields on top, streams the
 * rest into the spool, and commits.
 *
 * Promises: nothing is accepted that the end-of-data checks refuse, and their answer is given only at the true end of
 * data; no more of a message is in memory than its header, one piece of its body and what the draft keeps; `accepted`
 * means on stable storage. What fails refuses the message, and never the session.
 */
import type { RelayLimits } from "../config/relay-config.ts";
import type { CanonicalDomain } from "../mail/domain.ts";
import type { Envelope } from "../mail/envelope.ts";
import type { ReplyName } from "../mail/reply.ts";
import { inspectTrace } from "../mail/trace.ts";
import { unstuff } from "../mail/wire.ts";
import type { HeaderVerdict } from "../partner/content-policy.ts";
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
  readonly limits: Pick<RelayLimits, "headerBytesMax" | "headerLinesMax" | "hopsMax">;
  /** The message is complete, and will be accepted: may it be, by its size? Undefined: yes, and it is counted. */
  readonly takeBytes: (sizeBytes: number) => ReplyName | undefined;
  /** It was not accepted after all. */
  readonly giveBackBytes: (sizeBytes: number) => void;
  /** What the partner's content rules say of a header, as it stands on the wire. */
  readonly judgeHeader: (header: Buffer) => HeaderVerdict;
  /** Our trace fields, each line ended by CRLF. */
  readonly traceFields: (id: string) => string;
  readonly now: () => number;
}

export type IntakeResult =
  | { readonly kind: "accepted"; readonly meta: MessageMeta; readonly observed: readonly ReplyName[] }
  | { readonly kind: "refused"; readonly reply: ReplyName; readonly id: string; readonly cause?: unknown };

export class Intake {
  readonly #request: IntakeRequest;
  readonly #draft: Draft;
  readonly #scanner = new ContentScanner();
  readonly #gatherer = new Gatherer();
  /** The header while it is coming in; undefined once it is complete. */
  #header: HeaderBuffer | undefined = new HeaderBuffer();
  #headerBytes = 0;
  /** What our trace fields add, less what was taken away, in octets as RFC 1870 counts them. */
  #traceBytes = 0;
  #observed: readonly ReplyName[] = [];
  /** The first thing found that speaks against the message; the rest is read and dropped. */
  #refusal: { readonly reply: ReplyName; readonly cause?: unknown } | undefined;
  /** Octets that count against the partner's rates. */
  #counted = 0;
  /** Writes that are not waited for yet. */
  readonly #writing: Array<Promise<void>> = [];
  /** Set when the draft is given up. */
  #discarded: Promise<void> | undefined;

  /** Throws a SpoolFault if the spool takes nothing now. */
  constructor(request: IntakeRequest) {
    this.#request = request;
    this.#draft = request.dropBox.receive();
  }

  /**
   * Takes the next octets. `rest` is what follows the end of data, undefined while there is more to come; `ready` is to be
   * awaited before the next piece, undefined if it may come at once. Neither throws nor rejects: what goes wrong here
   * refuses the message at its end.
   */
  take(piece: Buffer): { readonly rest: Buffer | undefined; readonly ready: Promise<void> | undefined } {
    const { content, rest } = this.#scanner.scan(piece);
    if (this.#scanner.malformed) this.#refuse("malformedContent");
    else if (this.#scanner.sizeBytes > this.#request.messageBytesMax) this.#refuse("tooLarge");
    try {
      for (const part of content) this.#add(part);
      if (rest !== undefined) this.#end();
    } catch (error) {
      this.#refuse(replyToFault(error), error);
    }
    return { rest, ready: this.#writing.length === 0 ? undefined : this.#settled(this.#writing.splice(0)) };
  }

  /**
   * At the end of data: the verdict, and for a message that passes, its commit. Never rejects.
   * @param deadlineMs behind it the answer is no, though the message may become durable still: it will come a second time.
   */
  async finish(deadlineMs: number): Promise<IntakeResult> {
    const { id } = this.#draft;
    const { sizeBytes } = this.#scanner;
    if (this.#refusal === undefined) {
      const exceeded = this.#request.takeBytes(sizeBytes);
      if (exceeded !== undefined) this.#refuse(exceeded);
      else this.#counted = sizeBytes;
    }
    try {
      if (this.#refusal === undefined) {
        const meta = await withDeadline(this.#commit(), deadlineMs);
        return { kind: "accepted", meta, observed: this.#observed };
      }
      await withDeadline(this.#discarded ?? Promise.resolve(), deadlineMs);
      return { kind: "refused", id, ...this.#refusal };
    } catch (error) {
      if (this.#counted > 0) this.#request.giveBackBytes(this.#counted);
      return { kind: "refused", id, reply: replyToFault(error), cause: error, ...this.#refusal };
    }
  }

  /** The message is not wanted any more, or its sender is gone. Rejects if the spool cannot even forget it. */
  async abandon(): Promise<void> {
    this.#discarded ??= this.#draft.discard();
    await this.#discarded;
  }

  #commit(): Promise<MessageMeta> {
    const { partner, envelope, session, now } = this.#request;
    return this.#draft.commit({
      receivedAtMs: now(),
      partner,
      toPartner: null,
      envelope,
      session,
      sizeBytes: this.#scanner.sizeBytes + this.#traceBytes,
      headerBytes: this.#headerBytes,
      eightBit: this.#scanner.eightBit,
    });
  }

  #add(part: Buffer): void {
    if (this.#refusal !== undefined) return;
    if (this.#header === undefined) {
      this.#write([part]);
      return;
    }
    const complete = this.#header.add(part);
    if ((complete?.header.length ?? this.#header.bytes) > this.#request.limits.headerBytesMax)
      this.#refuse("headerTooLarge");
    else if (complete !== undefined) this.#endHeader(complete);
  }

  /** The header is complete: judges its trace and writes it below ours, without what is forged in our name. */
  #endHeader({ header, body }: CompleteHeader): void {
    this.#header = undefined;
    const { headerLinesMax, hopsMax } = this.#request.limits;
    if (linesIn(header) > headerLinesMax) {
      this.#refuse("headerTooLong");
      return;
    }
    const trace = inspectTrace(header, this.#request.hostname);
    if (trace.hops > hopsMax) this.#refuse("tooManyHops");
    else if (trace.loops > 0) this.#refuse("mailLoop");
    const { refusal, observed } = this.#request.judgeHeader(header);
    this.#observed = observed;
    if (refusal !== undefined) this.#refuse(refusal);
    if (this.#refusal !== undefined) return;
    const ours = Buffer.from(this.#request.traceFields(this.#draft.id));
    this.#traceBytes = ours.length;
    this.#headerBytes = ours.length + header.length;
    const kept: Buffer[] = [];
    let from = 0;
    for (const { start, end } of trace.forged) {
      kept.push(header.subarray(from, start));
      this.#traceBytes -= unstuff(header.subarray(start, end)).length;
      this.#headerBytes -= end - start;
      from = end;
    }
    this.#write([ours, ...kept, header.subarray(from), body]);
  }

  /** The end of data has come: what is still held back goes to the draft. */
  #end(): void {
    if (this.#refusal === undefined && this.#header !== undefined) this.#endHeader(this.#header.take());
    if (this.#refusal === undefined) this.#toDraft(this.#gatherer.rest());
  }

  #write(parts: readonly Buffer[]): void {
    for (const part of parts) this.#toDraft(this.#gatherer.add(part));
  }

  #toDraft(blocks: readonly Buffer[]): void {
    for (const block of blocks) {
      const written = this.#draft.write(block);
      if (written !== undefined) this.#writing.push(written);
    }
  }

  /** The message will not be accepted: what there is of it goes at once, so that it holds neither memory nor disk. */
  #refuse(reply: ReplyName, cause?: unknown): void {
    if (this.#refusal !== undefined) {
      // It is told in any case: who sees it has to mend his software.
      if (reply === "malformedContent") this.#refusal = { ...this.#refusal, reply };
      return;
    }
    this.#refusal = cause === undefined ? { reply } : { reply, cause };
    this.#header = undefined;
    this.#gatherer.rest();
    this.abandon().catch(() => undefined); // `finish` hears of it, too
  }

  /** Waits for writes; a failed one refuses the message, and the session reads on to the end of data. */
  async #settled(writes: ReadonlyArray<Promise<void>>): Promise<void> {
    for (const result of await Promise.allSettled(writes)) {
      if (result.status === "rejected") this.#refuse(replyToFault(result.reason), result.reason);
    }
  }
}

async function withDeadline<T>(work: Promise<T>, deadlineMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new SpoolFault("io", "the spool does not answer")), deadlineMs);
  });
  try {
    return await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
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

interface CompleteHeader {
  /** With the CRLF of its last field, without the empty line. */
  readonly header: Buffer;
  /** The empty line, and what followed it. */
  readonly body: Buffer;
}

/** Collects the header; grows by doubling, so that a client which sends single octets costs no more than one that doesn't. */
class HeaderBuffer {
  #buffer = Buffer.allocUnsafe(4096);
  bytes = 0;

  /** Adds a piece of content; gives header and body once the empty line is there. */
  add(piece: Buffer): CompleteHeader | undefined {
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
  take(): CompleteHeader {
    return { header: this.#buffer.subarray(0, this.bytes), body: Buffer.alloc(0) };
  }
}

function linesIn(header: Buffer): number {
  let lines = 0;
  for (const octet of header) if (octet === 0x0a) lines += 1;
  return lines;
}

const blockBytes = 16 * 1024;

/**
 * Puts small pieces together into blocks. A client that sends octet by octet, or stuffs a header with fields that we take
 * away, would otherwise cost an object of a hundred octets for each octet of the message.
 */
class Gatherer {
  #block: Buffer | undefined;
  #filled = 0;

  /** Adds a piece; gives what is to be written now, in order. */
  add(piece: Buffer): Buffer[] {
    if (piece.length >= blockBytes / 2) return [...this.rest(), piece];
    const full = this.#filled + piece.length > blockBytes ? this.rest() : [];
    this.#block ??= Buffer.allocUnsafeSlow(blockBytes);
    this.#filled += piece.copy(this.#block, this.#filled);
    return full;
  }

  /** What has been gathered and not given yet. */
  rest(): Buffer[] {
    const gathered = this.#block?.subarray(0, this.#filled);
    this.#block = undefined;
    this.#filled = 0;
    return gathered === undefined || gathered.length === 0 ? [] : [gathered];
  }
}
