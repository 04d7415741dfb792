/**
 * A transaction under way over a connection to a next hop: the message, who it is for, and how it ended.
 */
import { Readable } from "node:stream";
import { SpoolFault, type ClaimedMessage, type RecipientIndex } from "../spool/spool.ts";
import type { AddressedRecipient } from "./hop-commands.ts";
import { DataStream, type EnvelopeUnderWay } from "./nodemailer-seams.ts";
import { boundedText, HopFault, isRefusal, refusalOutcome, type DeliveryOutcome } from "./outcome.ts";

/** How a transaction ended. */
export type Ending =
  | { readonly kind: "taken"; readonly reply: string }
  /** The message as a whole, or all its recipients. */
  | { readonly kind: "refused"; readonly reply: string }
  | { readonly kind: "broken" }
  | { readonly kind: "unreadable"; readonly error: SpoolFault };

/** A transaction under way. Its first ending counts. */
export class Transaction {
  readonly message: ClaimedMessage;
  readonly recipients: readonly AddressedRecipient[];
  readonly body: Buffer | Readable;
  readonly ended: Promise<Ending>;
  readonly end: (ending: Ending) => void;
  envelope: EnvelopeUnderWay | undefined;
  /** On the clock of `performance`: when what is under way has to be over, whatever progress it makes. */
  endsAtMs: number;

  constructor(message: ClaimedMessage, recipients: readonly AddressedRecipient[], endsAtMs: number) {
    this.message = message;
    this.recipients = recipients;
    this.endsAtMs = endsAtMs;
    const { promise, resolve } = Promise.withResolvers<Ending>();
    this.ended = promise;
    this.end = resolve;
    const { content } = message;
    // An empty content is still a message; the library takes an empty buffer for none.
    if (content === undefined) this.body = Readable.from(message.readContent());
    else this.body = content.length === 0 ? Readable.from([]) : content;
  }

  onUnreadable(listener: (fault: SpoolFault) => void): void {
    if (Buffer.isBuffer(this.body)) return;
    this.body.on("error", (error) =>
      listener(error instanceof SpoolFault ? error : new SpoolFault("io", error.message, error)),
    );
  }

  /** Gives back the file behind the content, however far it was read. */
  release(): void {
    if (!Buffer.isBuffer(this.body)) this.body.destroy();
  }
}

export interface Conclusion {
  readonly outcomes: ReadonlyMap<RecipientIndex, DeliveryOutcome>;
  /** Recipients without an outcome: there are none; or the connection is gone; or the message was refused for now. */
  readonly rest: "settled" | "broken" | HopFault;
  /** May the server think that the transaction goes on? */
  readonly leftOpen: boolean;
}

/** What an ending means for each recipient. Pure. */
export function concluded(
  { recipients, envelope }: Pick<Transaction, "recipients" | "envelope">,
  given: Exclude<Ending, { kind: "unreadable" }>,
  dsnPassedOn: boolean,
): Conclusion {
  const outcomes = new Map<RecipientIndex, DeliveryOutcome>();
  const mailReply = replyOf(envelope?.mailError);
  // A server that hangs up behind its refusal has refused all the same.
  const isMailRefused = mailReply !== undefined && isRefusal(mailReply);
  const ending = isMailRefused ? ({ kind: "refused", reply: mailReply } as const) : given;
  // Where MAIL was refused, what was said to the recipients behind it (503, mostly) was not about them.
  for (const error of isMailRefused ? [] : (envelope?.rejectedErrors ?? [])) {
    const recipient = recipients[Number(error.recipient)];
    const reply = replyOf(error);
    if (recipient !== undefined && reply !== undefined && !reply.startsWith("421")) {
      outcomes.set(recipient.index, refusalOutcome(reply));
    }
  }
  const rest = recipients.filter(({ index }) => !outcomes.has(index));
  const leftOpen = ending.kind === "refused" && !isMailRefused;
  if (rest.length === 0) return { outcomes, rest: "settled", leftOpen };
  if (ending.kind === "broken") return { outcomes, rest: "broken", leftOpen };
  const outcome: DeliveryOutcome =
    ending.kind === "refused"
      ? refusalOutcome(ending.reply)
      : { kind: "delivered", reply: boundedText(ending.reply), dsnPassedOn };
  if (outcome.kind === "temporary") {
    return { outcomes, rest: new HopFault(outcome.status, outcome.text, { remote: true }), leftOpen };
  }
  for (const { index } of rest) outcomes.set(index, outcome);
  return { outcomes, rest: "settled", leftOpen };
}

/** The spool has the wire form already: nothing is stuffed, converted or added but the final dot. */
export class WireStream extends DataStream {
  readonly #onPiece: () => void;
  readonly #onEnd: () => void;

  constructor(onPiece: () => void, onEnd: () => void) {
    super();
    this.#onPiece = onPiece;
    this.#onEnd = onEnd;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, chunk: Buffer) => void): void {
    this.outByteCount += chunk.length;
    this.#onPiece();
    done(null, chunk);
  }

  override _flush(done: (error: null, chunk: Buffer) => void): void {
    this.#onEnd();
    done(null, Buffer.from(".\r\n")); // the wire form ends with CRLF, or is empty at the start of a line
  }
}

/** The reply that caused an error of the library. */
export function replyOf(error: Error | undefined): string | undefined {
  return error !== undefined && "response" in error && typeof error.response === "string" ? error.response : undefined;
}
