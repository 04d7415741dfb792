/**
 * The envelope of a message: who it is from and for, and how reports about it are asked for (RFC 5321 §2.3.1,
 * RFC 3461 for the DSN parameters). Pure data; what the spool stores is exactly this, as JSON.
 */
import type { ForwardPath, ReversePath } from "./address.ts";

/** When the sender wants a report about a recipient (RFC 3461 §4.1). */
export type Notify = "never" | ReadonlyArray<"success" | "failure" | "delay">;

export interface Recipient {
  readonly path: ForwardPath;
  /** Absent: not given, which means "failure", and "delay" at the relay's choice. */
  readonly notify?: Notify;
  /** The original recipient as `addr-type;xtext`, exactly as the client wrote it (RFC 3461 §4.2). */
  readonly originalRecipient?: string;
}

export interface Envelope {
  readonly reversePath: ReversePath;
  readonly recipients: readonly Recipient[];
  /** BODY= (RFC 6152); "7bit" when it was not given. */
  readonly body: "7bit" | "8bitmime";
  readonly smtpUtf8: boolean;
  /** What a report shall return of the message (RFC 3461 §4.3). */
  readonly returnContent?: "full" | "headers";
  /** The sender's own name for the message, as xtext, exactly as the client wrote it (RFC 3461 §4.4). */
  readonly envelopeId?: string;
}
