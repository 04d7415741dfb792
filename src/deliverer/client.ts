/**
 * One connection to a next hop: nodemailer's, subclassed at its seams. The library reads replies and pipelines the envelope; who is at the other end, and what is sent, is decided here.
 *
 * Promises: no message byte leaves before the server's certificate is the pinned one, or is vouched for by the trust
 * anchor and carries the name; TLS is never given up for plaintext; the content leaves exactly as the spool has it; no
 * 8-bit octet and no UTF-8 address goes to a server that did not offer to take it; every wait has an end.
 */
import type { X509Certificate } from "node:crypto";
import { Socket } from "node:net";
import { Readable } from "node:stream";
import { TLSSocket, type ConnectionOptions } from "node:tls";
import { pathText, type Mailbox } from "../mail/address.ts";
import type { Notify } from "../mail/envelope.ts";
import { carriesName } from "../partner/identity.ts";
import type { HopVerification, NextHop } from "../partner/partner.ts";
import { spkiDigest } from "../partner/pin.ts";
import { SpoolFault, type ClaimedMessage, type RecipientIndex } from "../spool/spool.ts";
import {
  DataStream,
  NodemailerConnection,
  type EnvelopeUnderWay,
  type SMTPConnectionOptions,
} from "./nodemailer-seams.ts";
import { HopFault, refusalOutcome, type DeliveryOutcome } from "./outcome.ts";

const connectTimeoutMs = 30_000;
const greetingTimeoutMs = 5 * 60_000; // RFC 5321 §4.5.3.2.1
const envelopeTimeoutMs = 5 * 60_000; // §4.5.3.2.2 to .4: each reply; here, all of them, which are pipelined
const blockTimeoutMs = 3 * 60_000; // §4.5.3.2.5, and then what a slow line needs
const bytesPerSecondMin = 2_000;
const endTimeoutMs = 10 * 60_000; // §4.5.3.2.6
const messagesPerConnectionMax = 1_000;

/** A recipient with the address that it has inside. */
export interface AddressedRecipient {
  readonly index: RecipientIndex;
  readonly mailbox: Mailbox;
}

export interface HopFacts {
  readonly tls: { readonly version: string; readonly cipher: string; readonly spki: string } | undefined;
}

/**
 * Connects and greets. Fails with a HopFault: unreachable, no TLS, the wrong certificate, an unfriendly greeting.
 * @param hostname our name in EHLO.
 */
export function connectToHop(hop: NextHop, hostname: string): Promise<HopConnection> {
  return new Promise((resolve, reject) => {
    const connection = new HopConnection(hop, hostname);
    const fail = (error: Error) => reject(connection.fault(error));
    connection.once("error", fail);
    connection.connect((error) => {
      if (error) {
        fail(error);
        return;
      }
      connection.off("error", fail);
      connection.on("error", () => undefined); // told to whoever waits for a message; an idle connection just ends
      resolve(connection);
    });
  });
}

export class HopConnection extends NodemailerConnection {
  readonly hop: NextHop;
  #delivering: Delivery | undefined;
  #messages = 0;
  #usable = true;
  #mismatch: string | undefined;
  #tls: HopFacts["tls"];

  constructor(hop: NextHop, hostname: string) {
    super(connectionOptions(hop, hostname));
    this.hop = hop;
  }

  /** Can another message be sent over it? */
  get usable(): boolean {
    return this.#usable && !this._destroyed && !this._closing && this.#messages < messagesPerConnectionMax;
  }

  /** What the handshake has shown. */
  get facts(): HopFacts {
    return { tls: this.#tls };
  }

  /**
   * Sends a message to some of its recipients, in one transaction. Gives an outcome for each; fails with a HopFault if the
   * connection broke, and then none of them has one; with a SpoolFault if the content cannot be read. Afterwards look at `usable`.
   */
  async deliver(
    message: ClaimedMessage,
    recipients: readonly AddressedRecipient[],
  ): Promise<Map<RecipientIndex, DeliveryOutcome>> {
    const uncarried = this.#cannotCarry(message, recipients);
    if (uncarried !== undefined) return new Map(recipients.map(({ index }) => [index, uncarried]));
    this.#messages += 1;
    const delivery = new Delivery(message, recipients);
    this.#delivering = delivery;
    try {
      const reply = await this.#send(delivery);
      return this.#outcomes(delivery, reply);
    } finally {
      delivery.clearDeadline();
      this.#delivering = undefined;
    }
  }

  /** Says QUIT, if there is somebody to say it to. */
  end(): void {
    if (this._destroyed || this._closing) return;
    this.#usable = false;
    this.quit();
  }

  /** An error of the library as a HopFault. */
  fault(error: unknown): HopFault {
    this.#usable = false;
    if (error instanceof HopFault) return error;
    const afterData = this.#delivering?.sentToItsEnd ?? false;
    if (this.#mismatch !== undefined) return new HopFault("4.7.5", this.#mismatch, { cause: error });
    const details = error instanceof Error ? error : new Error(String(error));
    const response = "response" in details && typeof details.response === "string" ? details.response : undefined;
    const status = "code" in details && details.code === "ETLS" ? "4.7.5" : afterData ? "4.4.2" : "4.4.1";
    return new HopFault(status, response ?? details.message, {
      remote: response !== undefined,
      afterData,
      cause: error,
    });
  }

  /** What the next hop did not offer to take is not sent to it: RFC 6152 §3, RFC 6531 §3.5, RFC 1870 §6. */
  #cannotCarry({ meta }: ClaimedMessage, recipients: readonly AddressedRecipient[]): DeliveryOutcome | undefined {
    const offers = (extension: string) => this._supportedExtensions.includes(extension);
    const failed = (status: string, text: string): DeliveryOutcome => ({ kind: "failed", status, text, remote: false });
    if (this._maxAllowedSize > 0 && meta.sizeBytes > this._maxAllowedSize) {
      return failed(
        "5.3.4",
        `The next server takes messages of up to ${this._maxAllowedSize} octets; this one has ${meta.sizeBytes}`,
      );
    }
    const { reversePath, smtpUtf8 } = meta.envelope;
    const internationalized =
      recipients.some(({ mailbox }) => mailbox.internationalized) ||
      (reversePath.kind === "mailbox" && reversePath.mailbox.internationalized) ||
      (smtpUtf8 && meta.eightBit);
    if (internationalized && !offers("SMTPUTF8")) {
      return failed("5.6.7", "The next server does not take internationalized addresses or headers (SMTPUTF8)");
    }
    if (meta.eightBit && !offers("8BITMIME")) {
      return failed("5.6.3", "The next server does not take 8-bit content (8BITMIME)");
    }
    return undefined;
  }

  #send(delivery: Delivery): Promise<string | undefined> {
    const { message, recipients } = delivery;
    return new Promise((resolve, reject) => {
      const content = message.content ?? Readable.from(message.readContent());
      const fail = (error: Error) => {
        this.#mustNotEnd();
        reject(error instanceof SpoolFault ? error : this.fault(error));
      };
      delivery.startDeadline(envelopeTimeoutMs, () => fail(new HopFault("4.4.2", "No reply in time to the envelope")));
      delivery.onEnvelopeDone = () =>
        delivery.startDeadline(blockTimeoutMs + (message.meta.wireBytes / bytesPerSecondMin) * 1000, () =>
          fail(new HopFault("4.4.2", "The next server takes the message too slowly")),
        );
      delivery.onSentToItsEnd = () =>
        delivery.startDeadline(endTimeoutMs, () =>
          fail(new HopFault("4.4.2", "No reply in time to the end of the message", { afterData: true })),
        );
      // An empty content is still a message; the library takes an empty buffer for none.
      const body = Buffer.isBuffer(content) && content.length === 0 ? Readable.from([]) : content;
      this.send({ to: recipients.map(({ mailbox }) => mailbox.address) }, body, (error, info) => {
        if (error === null) {
          resolve(info?.response ?? "");
        } else if (isAboutThisMessage(error)) {
          delivery.refusal = error.response;
          this.#resetTransaction(resolve, fail);
        } else {
          fail(error);
        }
      });
    });
  }

  /** Refused, in whole or in all recipients: the transaction may still be open at the other end. */
  #resetTransaction(done: (reply: undefined) => void, fail: (error: Error) => void): void {
    this.reset((error) => {
      if (error !== null) this.close();
      done(undefined);
    });
    this.#delivering?.startDeadline(envelopeTimeoutMs, () => fail(new HopFault("4.4.2", "No reply in time to RSET")));
  }

  /** A message that could not be read or was cut off must not look complete: no final dot, the connection is gone. */
  #mustNotEnd(): void {
    this.#usable = false;
    const socket = this._socket;
    if (socket instanceof Socket && !socket.destroyed) socket.destroy();
    this.close();
  }

  #outcomes(delivery: Delivery, reply: string | undefined): Map<RecipientIndex, DeliveryOutcome> {
    const outcomes = new Map<RecipientIndex, DeliveryOutcome>();
    const dsnPassedOn = this._supportedExtensions.includes("DSN");
    for (const { index, mailbox } of delivery.recipients) {
      const refusal = delivery.refusals.get(mailbox.address) ?? (reply === undefined ? delivery.refusal : undefined);
      if (refusal !== undefined) outcomes.set(index, refusalOutcome(refusal));
      else if (reply !== undefined) outcomes.set(index, { kind: "delivered", reply, dsnPassedOn });
      else
        outcomes.set(index, {
          kind: "temporary",
          status: "4.4.2",
          text: "The next server gave no verdict",
          remote: false,
        });
    }
    return outcomes;
  }

  // ── the library's seams ────────────────────────────────────────────────────────────────────────────────────────────

  /** Plain connection made: for implicit TLS the handshake is over, and the server is looked at before it is greeted. */
  override _onConnect(): void {
    if (this.secureConnection && !this.#serverIsTheRightOne()) return;
    super._onConnect();
  }

  override _upgradeConnection(callback: (error: Error | null, secured?: boolean) => void): void {
    super._upgradeConnection((error, secured) => {
      if (error === null && !this.#serverIsTheRightOne()) return;
      callback(error, secured);
    });
  }

  /** Compares the server's certificate with the pin or the name; ends the connection if it is another. */
  #serverIsTheRightOne(): boolean {
    const { tls } = this.hop;
    if (tls.mode === "none") return true;
    const socket = this._socket;
    const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
    if (socket instanceof TLSSocket && certificate !== undefined) {
      const version = socket.getProtocol() ?? "unknown";
      this.#tls = { version, cipher: socket.getCipher().name, spki: spkiDigest(certificate) };
    }
    this.#mismatch = judgeServer(certificate, tls.verification, this.hop.name);
    if (this.#mismatch === undefined) return true;
    this._onError(new Error(this.#mismatch), "ETLS", false, "CONN");
    return false;
  }

  /** MAIL with the parameters that the client gave us, where the next hop offers them; then the library goes on. */
  override _setEnvelope(_given: unknown, callback: (error: Error | null, info?: unknown) => void): void {
    const delivery = this.#delivering;
    const socket = this._socket;
    if (delivery === undefined || !(socket instanceof Socket)) throw new Error("no message is being delivered");
    const offers = (extension: string) => this._supportedExtensions.includes(extension);
    const done = (error: Error | null, info?: unknown) => {
      delivery.envelopeDone(this._envelope);
      callback(error, info);
    };
    const envelope: EnvelopeUnderWay = {
      rcptQueue: delivery.recipients.map(({ mailbox }) => mailbox.address),
      rejected: [],
      rejectedErrors: [],
      accepted: [],
      pipelined: offers("PIPELINING"),
    };
    this._envelope = envelope;
    this._recipientQueue = [];
    this._responseActions.push((reply: string) => this._actionMAIL(reply, done));
    const mail = mailCommand(delivery.message, offers);
    if (!envelope.pipelined) {
      this._sendCommand(mail);
      return;
    }
    socket.cork();
    this._sendCommand(mail);
    for (const address of envelope.rcptQueue.splice(0)) this._sendRcpt(address, done);
    this._responseActions.push((reply: string) => this._actionDATA(reply, done));
    this._sendCommand("DATA");
    socket.uncork();
  }

  /** RCPT with the recipient's own DSN parameters (RFC 3461 §5.2.1); the library knows only one set for all. */
  override _sendRcpt(address: string, callback: (error: Error | null, info?: unknown) => void): void {
    const delivery = this.#delivering;
    const recipient = delivery?.recipients.find(({ mailbox }) => mailbox.address === address);
    const given = recipient === undefined ? undefined : delivery?.message.meta.envelope.recipients[recipient.index];
    const parameters =
      given === undefined || !this._supportedExtensions.includes("DSN")
        ? ""
        : `${given.notify === undefined ? "" : ` NOTIFY=${notifyText(given.notify)}`}${
            given.originalRecipient === undefined ? "" : ` ORCPT=${given.originalRecipient}`
          }`;
    this._recipientQueue.push(address);
    this._responseActions.push((reply: string) => this._actionRCPT(reply, callback));
    this._sendCommand(`RCPT TO:<${address}>${parameters}`);
  }

  /** The spool has the wire form already: nothing is stuffed, converted or added but the final dot. */
  override _createSendStream(callback: (error: Error | null, reply?: string) => void): DataStream {
    const stream = new WireStream();
    const socket = this._socket;
    if (!(socket instanceof Socket)) throw new Error("the connection is gone");
    this._responseActions.push((reply: string) => this._actionSMTPStream(reply, callback));
    this._currentDataStream = stream;
    stream.pipe(socket, { end: false });
    stream.once("end", () => {
      if (this._currentDataStream === stream) this._currentDataStream = false;
      this.#delivering?.ended();
    });
    return stream;
  }
}

/** A transaction under way. */
class Delivery {
  readonly message: ClaimedMessage;
  readonly recipients: readonly AddressedRecipient[];
  /** What was said to recipients that were refused, by address. */
  readonly refusals = new Map<string, string>();
  /** What was said to the message as a whole. */
  refusal: string | undefined;
  sentToItsEnd = false;
  onEnvelopeDone: () => void = () => undefined;
  onSentToItsEnd: () => void = () => undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(message: ClaimedMessage, recipients: readonly AddressedRecipient[]) {
    this.message = message;
    this.recipients = recipients;
  }

  envelopeDone(envelope: EnvelopeUnderWay | false): void {
    for (const error of envelope === false ? [] : envelope.rejectedErrors) {
      if (typeof error.recipient === "string" && typeof error.response === "string") {
        this.refusals.set(error.recipient, error.response);
      }
    }
    this.onEnvelopeDone();
  }

  ended(): void {
    this.sentToItsEnd = true;
    this.onSentToItsEnd();
  }

  startDeadline(ms: number, expired: () => void): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(expired, ms);
  }

  clearDeadline(): void {
    clearTimeout(this.#deadline);
  }
}

class WireStream extends DataStream {
  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, chunk: Buffer) => void): void {
    this.outByteCount += chunk.length;
    done(null, chunk);
  }

  override _flush(done: (error: null, chunk: Buffer) => void): void {
    done(null, Buffer.from(".\r\n")); // the wire form ends with CRLF, or is empty at the start of a line
  }
}

/**
 * Undefined if the certificate is the right one; else what is wrong, with what was expected. A pinned key is trusted
 * whatever the certificate around it says (as in RFC 7672 §3.1.1); a trust anchor's chain, dates included, was checked
 * by TLS, so that the name is left.
 */
export function judgeServer(
  certificate: X509Certificate | undefined,
  verification: HopVerification,
  name: string | undefined,
): string | undefined {
  if (certificate === undefined) return "the server presented no certificate";
  switch (verification.kind) {
    case "pin": {
      const digest = spkiDigest(certificate);
      return verification.digests.includes(digest)
        ? undefined
        : `the server's key is ${digest}, pinned is ${verification.digests.join(" or ")}`;
    }
    case "trustAnchor":
      return name !== undefined && carriesName(certificate, name)
        ? undefined
        : `the server's certificate does not carry the name ${name ?? "(none configured)"}`;
  }
}

function connectionOptions(hop: NextHop, hostname: string): SMTPConnectionOptions {
  const { tls } = hop;
  const required = tls.mode === "required";
  return {
    host: hop.address,
    port: hop.port,
    name: hostname,
    secure: required && tls.implicit,
    requireTLS: required,
    ignoreTLS: !required,
    connectionTimeout: connectTimeoutMs + greetingTimeoutMs,
    greetingTimeout: greetingTimeoutMs,
    socketTimeout: endTimeoutMs + 60_000,
    maxResponseSize: 64 * 1024,
    allowInternalNetworkInterfaces: true,
    logger: false,
    ...(required ? { tls: tlsOptions(hop, tls.verification) } : {}),
  };
}

function tlsOptions(hop: NextHop, verification: HopVerification): ConnectionOptions {
  const shared: ConnectionOptions = {
    minVersion: "TLSv1.2",
    // SNI, where there is a name; without one the library would say nothing of the kind for an address.
    ...(hop.name === undefined ? {} : { servername: hop.name }),
    checkServerIdentity: () => undefined, // done by us, after the handshake and before anything is sent
  };
  return verification.kind === "trustAnchor"
    ? { ...shared, ca: verification.anchors.map((anchor) => anchor.toString()), rejectUnauthorized: true }
    : { ...shared, rejectUnauthorized: false };
}

function mailCommand({ meta }: ClaimedMessage, offers: (extension: string) => boolean): string {
  const { envelope } = meta;
  const parameters: string[] = [];
  if (offers("SIZE")) parameters.push(`SIZE=${meta.sizeBytes}`);
  if (meta.eightBit && offers("8BITMIME")) parameters.push("BODY=8BITMIME");
  if (envelope.smtpUtf8 && offers("SMTPUTF8")) parameters.push("SMTPUTF8");
  if (offers("DSN")) {
    if (envelope.returnContent !== undefined)
      parameters.push(`RET=${envelope.returnContent === "full" ? "FULL" : "HDRS"}`);
    if (envelope.envelopeId !== undefined) parameters.push(`ENVID=${envelope.envelopeId}`);
  }
  return [`MAIL FROM:<${pathText(envelope.reversePath)}>`, ...parameters].join(" ");
}

function notifyText(notify: Notify): string {
  return notify === "never" ? "NEVER" : notify.join(",").toUpperCase();
}

/** Was it this message that was refused, rather than the connection that failed? */
function isAboutThisMessage(error: Error): error is Error & { response: string } {
  return (
    "response" in error &&
    typeof error.response === "string" &&
    "code" in error &&
    (error.code === "EENVELOPE" || error.code === "EMESSAGE") &&
    !error.response.startsWith("421")
  );
}
