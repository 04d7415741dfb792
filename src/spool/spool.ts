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
  readonly session: SessionFacts | null;
  /** Does the content hold octets above 127? */
  readonly eightBit: boolean;
}

/** What the receiver saw of the session that a message came in. */
export interface SessionFacts {
  readonly id: string;
  readonly address: string;
  readonly helo: string;
  /** Undefined in what was taken by an older version. */
  readonly tls?: TlsFacts;
}

/** TLS, and the certificate that the client showed. Texts are as the certificate has them, cut where they are long. */
export interface TlsFacts {
  readonly version: string;
  readonly cipher: string;
  /** The key exchange; undefined where it could not be seen. */
  readonly group?: string;
  /** `sha256/` and base64, of the whole certificate and of its key. */
  readonly certificate: string;
  readonly spki: string;
  readonly subject: string;
  readonly issuer: string;
  /** ISO 8601, UTC; `unknown` where the certificate's date is none. */
  readonly validFrom: string;
  readonly validTo: string;
  /** The extended key usage, by object identifiers; undefined where the certificate has none. */
  readonly keyUsage?: readonly string[];
  /** The pin that identified the partner, by its key in records. */
  readonly pin: string;
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
  /** The operator wants it sent back: its recipients are to be settled as failed, and reported, without an attempt. */
  readonly request?: "bounce";
  /** The whole wire form, for a message that fits in memory; undefined for one that is streamed. */
  readonly content: Buffer | undefined;
  /**
   * Streams the wire form; verifies the checksum before the last piece is given out, and throws a SpoolFault of kind
   * `damaged` instead of giving it; also when the content is missing or is no file.
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
  /** `incoming`: not taken yet. `active`: taken and not tried to its end. `held`: waits for the operator. */
  readonly state: "incoming" | "active" | "deferred" | "held";
  /** What the operator wants done, as long as the deliverer has not done it. */
  readonly request: "hold" | "remove" | "bounce" | null;
  readonly recipients: ReadonlyArray<{
    readonly index: RecipientIndex;
    readonly state: RecipientState["kind"];
    readonly attempts: number;
    readonly nextAttemptAtMs: number | null;
    readonly lastText: string | null;
    readonly route: string | null;
  }>;
}

/** `queue show`. */
export interface QueueDetails extends QueueEntry {
  readonly attempts: readonly AttemptRecord[];
}

/** Which messages an operator means: those to which all that is given applies. */
export interface QueueSelection {
  readonly ids?: readonly string[];
  /** Whom it came from; null: reports of our own. */
  readonly partner?: string | null;
  /** A recipient that waits goes by this route. Only what has been tried has one. */
  readonly route?: string;
  readonly receivedBeforeMs?: number;
  /** A recipient that waits: an address, `@` and a domain, or `postmaster`. */
  readonly recipient?: string;
  readonly state?: QueueEntry["state"];
}

/**
 * `done`: it is so, at once. `requested`: the deliverer has it in hand or has not looked at it yet, and will do it before
 * it tries the message again. `unchanged`: there was nothing to do.
 */
export interface QueueChange {
  readonly id: string;
  readonly outcome: "done" | "requested" | "unchanged";
}

/** The operator's side: works beside a deliverer in another process, and never touches a message that this one has in hand. */
export interface QueueAdmin {
  /** First those that nobody has tried yet, then those that wait, each oldest first. */
  list(selection?: QueueSelection): AsyncIterable<QueueEntry>;
  show(id: string): Promise<QueueDetails | undefined>;
  /** Keeps messages from being tried until they are released. */
  hold(selection: QueueSelection): Promise<QueueChange[]>;
  /** Makes held messages due, and takes back a request that has not been honoured yet. */
  release(selection: QueueSelection): Promise<QueueChange[]>;
  /** Makes deferred messages due; held ones stay held. */
  retry(selection: QueueSelection): Promise<QueueChange[]>;
  /** Drops messages without a word to anybody. */
  remove(selection: QueueSelection): Promise<QueueChange[]>;
  /** Sends messages back: the deliverer reports them as failed. */
  bounce(selection: QueueSelection): Promise<QueueChange[]>;
  close(): void;
}

/** Octets in use. */
export interface SpoolUsage {
  /** Of all files. */
  readonly totalBytes: number;
  /** Of the messages that are not settled, by the partner they came from; "" stands for reports of our own. */
  readonly partnerBytes: ReadonlyMap<string, number>;
}

/**
 * The deliverer's side. One process at a time; a second one fails to open it. Claims may fail with a SpoolFault: nothing is
 * claimed then, and it can be tried again, but for kind `damaged`: the driver's own records are, the process should end,
 * and its successor mends them.
 */
export interface Spool {
  /** The drop-box for reports of our own. */
  readonly dropBox: DropBox;
  /** Takes messages that nobody has tried yet, oldest first. Reads `nowMs` as the time. */
  claimNew(request: ClaimRequest): Promise<ClaimedMessage[]>;
  /**
   * Takes deferred messages that are due, fairly among partners and routes, and not those of `busyRoutes`; and what the
   * operator wants bounced.
   */
  claimDue(request: ClaimRequest & { readonly busyRoutes: readonly string[] }): Promise<ClaimedMessage[]>;
  /**
   * Settles recipients of a claimed message for good: at once, before anything else is done with them. What the disk does
   * not take is kept and tried again, and nothing is claimed before it has been.
   */
  settle(message: ClaimedMessage, recipients: readonly RecipientIndex[], state: "delivered" | "failed"): void;
  /**
   * Puts a claimed message back: what is not settled is deferred; a message with nothing left is retired. What the disk
   * does not take is kept and tried again, and nothing is claimed before it has been. Throws only if the call itself is
   * wrong: a message that is not claimed, a recipient neither settled nor deferred, a time that is none.
   */
  putBack(message: ClaimedMessage, putBack: PutBack): Promise<void>;
  /** Moves a message that failed its check to where a person looks at it; in place of `putBack`. */
  setAside(message: ClaimedMessage, reason: string): Promise<void>;
  /** When the next deferred message is due, in milliseconds since 1970; undefined: none is deferred. */
  nextDueAtMs(): number | undefined;
  /** What is taken and not settled; what is in the drop-box not counted. */
  usage(): SpoolUsage;
  /** Calls `onHint` when something may have arrived. Only a hint: the deliverer scans in any case. */
  watch(onHint: () => void): { close(): void };
  /** What is claimed and was not put back is found again by the next to open it. */
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
