/**
 * The spool's contract. The receiver sees a {@link DropBox}, the deliverer a {@link Spool}; a driver provides both.
 * `docs/spool.md` tells the states; `test/spool/contract.ts` is the suite that every driver must pass.
 *
 * Faults (disk full, failed sync, damaged file) are thrown as {@link SpoolFault}; the caller answers 451 or 452 and
 * never 250. A message that was committed is never lost by any call here.
 */
import type { Envelope } from "../mail/envelope.ts";

/** What the spool keeps of a message beside its content. Plain JSON. */
export interface MessageMeta {
  /** Queue id: unique, sorts by time of arrival, 18 characters of lower-case letters and digits. */
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly receivedAtMs: number;
  /** The partner it came from; null for a report of our own. */
  readonly partner: string | null;
  /** For a report: the partner by whose `deliver` servers it goes, whatever its domain. Null: the domain decides. */
  readonly toPartner: string | null;
  readonly envelope: Envelope;
  /** Octets as RFC 1870 counts them, trace fields included. */
  readonly sizeBytes: number;
  /** Octets of the wire form. */
  readonly wireBytes: number;
  /** Octets of the wire form's header, with the CRLF of its last field and without the empty line. */
  readonly headerBytes: number;
  /** SHA-256 of the wire form, hexadecimal. */
  readonly sha256: string;
  /** How it came: for the log, reports and the audit. */
  readonly session: { readonly id: string; readonly address: string; readonly helo: string } | null;
  /** Does the content hold octets above 127? */
  readonly eightBit: boolean;
}

/** A message that is being received. Exactly one of `commit` and `discard` ends it. */
export interface Draft {
  readonly id: string;
  /** Adds wire form. Resolves when the next piece may come; undefined says at once. The buffer is the draft's from now on. */
  write(wire: Buffer): Promise<void> | undefined;
  /**
   * Makes the message durable: resolves when content and envelope are on stable storage, rejects with a SpoolFault when
   * they are not, and then the message does not exist.
   */
  commit(message: DraftMessage): Promise<MessageMeta>;
  /** Gives the draft up, at any time; also after a failed write. */
  discard(): Promise<void>;
}

/** What the receiver knows at the end of data; the draft itself knows the rest of {@link MessageMeta}. */
export type DraftMessage = Omit<MessageMeta, "id" | "wireBytes" | "sha256">;

/** The receiver's side: it can only put messages in. */
export interface DropBox {
  receive(): Draft;
  /** Waits for the commits under way. Nothing can be received afterwards. */
  close(): Promise<void>;
}

/** A recipient by its place in the envelope. */
export type RecipientIndex = number;

export type RecipientState =
  | { readonly kind: "pending" }
  | { readonly kind: "delivered" }
  | { readonly kind: "failed" }
  | { readonly kind: "removed" };

/** A message that the deliverer has in hand: nobody else touches it until it is put back. */
export interface ClaimedMessage {
  readonly meta: MessageMeta;
  /** The recipients that are not settled, those that are not due yet among them. */
  readonly pending: readonly PendingRecipient[];
  /** Whether a delay has been reported to the sender already. */
  readonly delayReported: boolean;
  /** The whole wire form, for a message that fits in memory; undefined for one that is streamed. */
  readonly content: Buffer | undefined;
  /**
   * Streams the wire form; verifies the checksum before the last piece is given out, and throws a SpoolFault of kind
   * `damaged` instead of giving it.
   */
  readContent(): AsyncIterable<Buffer>;
}

export interface PendingRecipient {
  readonly index: RecipientIndex;
  /** Attempts so far. */
  readonly attempts: number;
  /** 0 for one that was never tried. */
  readonly nextAttemptAtMs: number;
}

/** One attempt for some recipients of a message, as `queue show` tells it. */
export interface AttemptRecord {
  readonly atMs: number;
  readonly recipients: readonly RecipientIndex[];
  /** Name and address of the server, or null when none was reached. */
  readonly server: string | null;
  /** The remote's words, or ours about the failure. */
  readonly text: string;
}

/** What is to become of a recipient that could not be settled now. */
export interface Deferral {
  readonly index: RecipientIndex;
  readonly route: string | null;
  readonly attempts: number;
  readonly nextAttemptAtMs: number;
}

/** How a claimed message is put back. */
export interface PutBack {
  readonly deferred: readonly Deferral[];
  readonly attempts: readonly AttemptRecord[];
  readonly delayReported: boolean;
}

export interface ClaimRequest {
  readonly nowMs: number;
  readonly countMax: number;
}

/** A line of `queue list`. */
export interface QueueEntry {
  readonly meta: MessageMeta;
  readonly state: "incoming" | "active" | "deferred" | "held";
  readonly recipients: ReadonlyArray<{
    readonly index: RecipientIndex;
    readonly state: RecipientState["kind"];
    readonly attempts: number;
    readonly nextAttemptAtMs: number | null;
    readonly lastText: string | null;
    readonly route: string | null;
  }>;
}

/** The deliverer's side. One process at a time; a second one fails to open it. */
export interface Spool {
  /** The drop-box, for reports of our own. */
  readonly dropBox: DropBox;
  /** Takes messages that nobody has tried yet, oldest first. */
  claimNew(request: ClaimRequest): Promise<ClaimedMessage[]>;
  /** Takes deferred messages that are due, fairly among partners and routes; not those of `busyRoutes`. */
  claimDue(request: ClaimRequest & { readonly busyRoutes: readonly string[] }): Promise<ClaimedMessage[]>;
  /** Settles recipients of a claimed message for good: at once, before anything else is done with them. */
  settle(message: ClaimedMessage, recipients: readonly RecipientIndex[], state: "delivered" | "failed"): void;
  /** Puts a claimed message back: what is not settled is deferred; a message with nothing left is retired. */
  putBack(message: ClaimedMessage, putBack: PutBack): Promise<void>;
  /** Moves a message that failed its check to where a person looks at it. */
  setAside(message: ClaimedMessage, reason: string): Promise<void>;
  /** When the next deferred message is due, in milliseconds since 1970; undefined: none is deferred. */
  nextDueAtMs(): number | undefined;
  /** Calls `onHint` when something may have arrived. Only a hint: the deliverer scans in any case. */
  watch(onHint: () => void): { close(): void };
  close(): Promise<void>;
}

export type SpoolFaultKind =
  | "full" // no space, or over a limit of ours
  | "io" // the disk or the system failed
  | "damaged" // a checksum does not match
  | "locked" // another deliverer has it
  | "closed"; // shutting down

export class SpoolFault extends Error {
  readonly kind: SpoolFaultKind;
  constructor(kind: SpoolFaultKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SpoolFault";
    this.kind = kind;
  }
}
