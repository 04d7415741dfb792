/**
 * One connection to a next hop: nodemailer's, subclassed at its seams. The library reads replies and pipelines the
 * envelope; who is at the other end, and what is sent, is decided here.
 *
 * Promises: no message byte leaves before the server's certificate is the pinned one, or is vouched for by the trust
 * anchor and carries the name; TLS is never given up for plaintext; the content leaves exactly as the spool has it; no
 * 8-bit octet and no UTF-8 address goes to a server that did not offer to take it; every wait has an end.
 *
 * How a transaction ends: by the library's callback where the server has answered, else by the connection's `end`, which
 * comes exactly once however it breaks. The library itself forgets its callbacks when it is closed.
 */
import { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import type { NextHop } from "../partner/partner.ts";
import { spkiDigest } from "../partner/pin.ts";
import type { ClaimedMessage, RecipientIndex } from "../spool/spool.ts";
import {
  mailCommand,
  messageObstacle,
  parseOffers,
  rcptCommand,
  recipientObstacle,
  type AddressedRecipient,
  type Offers,
} from "./hop-commands.ts";
import { connectionOptions, judgeServer } from "./hop-options.ts";
import { deliveryLimits, type DeliveryLimits } from "./limits.ts";
import { NodemailerConnection, type Callback, type DataStream, type EnvelopeUnderWay } from "./nodemailer-seams.ts";
import { closingFault, HopFault, hopFault, isRefusal, isReply, type DeliveryOutcome } from "./outcome.ts";
import { concluded, replyOf, Transaction, WireStream, type Ending } from "./transaction.ts";

export interface HopFacts {
  readonly tls: { readonly version: string; readonly cipher: string; readonly spki: string } | undefined;
}

export interface ConnectOptions {
  /** Our name in EHLO. */
  readonly hostname: string;
  readonly limits?: DeliveryLimits;
  /** Breaks off whatever has not come to the content yet. */
  readonly signal?: AbortSignal;
}

/** What came of an attempt. Recipients without an outcome have got none, because of the fault. */
export interface Delivery {
  readonly outcomes: ReadonlyMap<RecipientIndex, DeliveryOutcome>;
  /** The connection broke; or the message as a whole was refused for now, and then the connection is still `usable`. */
  readonly fault: HopFault | undefined;
}

/** Connects and greets. Fails with a HopFault: unreachable, no TLS, the wrong certificate, an unfriendly greeting. */
export async function connectToHop(hop: NextHop, options: ConnectOptions): Promise<HopConnection> {
  const connection = new HopConnection(hop, options);
  await connection.open();
  return connection;
}

/** Replies that may wait unread beyond those that were asked for: a 421, and stray empty lines. */
const spareRepliesMax = 16;
/** A timer of Node's cannot be longer. */
const timerMsMax = 2 ** 31 - 1;

export class HopConnection extends NodemailerConnection {
  readonly hop: NextHop;
  readonly #limits: DeliveryLimits;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => {
    if (this.#phase === "connecting" || this.#phase === "envelope") {
      this.#break(new HopFault("4.3.2", "Broken off: the relay is shutting down"));
    }
  };
  #offers: Offers = new Map();
  #tls: HopFacts["tls"];
  /** `connecting` up to the second EHLO's reply; `end` from the final dot on. */
  #phase: "connecting" | "idle" | "envelope" | "content" | "end" | "quitting" = "connecting";
  #transaction: Transaction | undefined;
  #messages = 0;
  /** Is a transaction open at the other end, that is not to be finished? */
  #resetDue = false;
  #error: unknown;
  #deadline: NodeJS.Timeout | undefined;

  constructor(hop: NextHop, { hostname, limits = deliveryLimits, signal }: ConnectOptions) {
    super(connectionOptions(hop, hostname, limits));
    this.hop = hop;
    this.#limits = limits;
    this.#signal = signal;
    this.on("error", (error: unknown) => {
      this.#error ??= error;
    });
    this.once("end", () => {
      clearTimeout(this.#deadline);
      signal?.removeEventListener("abort", this.#onAbort);
      this.#transaction?.end({ kind: "broken" });
    });
    signal?.addEventListener("abort", this.#onAbort);
  }

  /** To be called once. */
  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.once("connect", () => {
        clearTimeout(this.#deadline);
        this.#phase = "idle";
        resolve();
      });
      this.once("end", () => reject(this.#fault()));
      this.#arm(this.#limits.connectTimeoutMs, "No connection in time");
      this.connect();
      if (this.#signal?.aborted === true) this.#onAbort();
    });
  }

  /** Can another message be sent over it? */
  get usable(): boolean {
    const isOpen = this.#phase !== "quitting" && !this._destroyed && !this._closing;
    return isOpen && this.#messages < this.#limits.messagesPerConnectionMax;
  }

  /** What the handshake has shown. */
  get facts(): HopFacts {
    return { tls: this.#tls };
  }

  /**
   * Sends a message to some of its recipients, in one transaction. Fails with a SpoolFault if the content cannot be read.
   * One at a time; afterwards look at `usable`.
   */
  async deliver(message: ClaimedMessage, recipients: readonly AddressedRecipient[]): Promise<Delivery> {
    const outcomes = new Map<RecipientIndex, DeliveryOutcome>();
    const obstacle = messageObstacle(message.meta, this.#offers);
    for (const { index, mailbox } of recipients) {
      const reason = obstacle ?? recipientObstacle(mailbox, this.#offers);
      if (reason !== undefined) outcomes.set(index, reason);
    }
    const carried = recipients.filter(({ index }) => !outcomes.has(index));
    if (carried.length === 0) return { outcomes, fault: undefined };
    this.#messages += 1;
    const transaction = new Transaction(message, carried, performance.now() + this.#limits.envelopeTimeoutMs);
    this.#transaction = transaction;
    this.#phase = "envelope";
    try {
      if (this.#signal?.aborted === true) this.#onAbort();
      else this.#begin(transaction);
      return this.#conclude(transaction, await transaction.ended, outcomes);
    } finally {
      clearTimeout(this.#deadline);
      this.#transaction = undefined;
      this.#phase = "idle";
      transaction.release();
    }
  }

  /** Says QUIT, if there is somebody to say it to. Nothing waits for the reply, the process neither. */
  end(): void {
    if (this._destroyed || this._closing || this.#phase === "quitting") return;
    this.#phase = "quitting";
    this.quit();
    this.#arm(this.#limits.quitTimeoutMs, "No reply in time to QUIT");
    this.#deadline?.unref();
    if (this._socket instanceof Socket) this._socket.unref();
  }

  // ── a transaction ──────────────────────────────────────────────────────────────────────────────────────────────────

  #begin(transaction: Transaction): void {
    const send = () =>
      this.send({ to: [] }, transaction.body, (error, info) => {
        if (error === null) transaction.end({ kind: "taken", reply: info?.response ?? "" });
        else this.#notTaken(transaction, error);
      });
    transaction.onUnreadable((error) => {
      transaction.end({ kind: "unreadable", error });
      if (this.#transaction === transaction) this.#break(error);
    });
    if (!this.#resetDue) {
      send();
      return;
    }
    this.#resetDue = false;
    this.reset((error) => {
      if (error === null) send();
      else this.#break(error);
    });
  }

  #notTaken(transaction: Transaction, error: Error): void {
    const reply = replyOf(error) ?? "";
    const code = "code" in error ? error.code : undefined;
    if ((code === "EENVELOPE" || code === "EMESSAGE") && isRefusal(reply)) transaction.end({ kind: "refused", reply });
    else this.#break(error);
  }

  #conclude(transaction: Transaction, ending: Ending, outcomes: Map<RecipientIndex, DeliveryOutcome>): Delivery {
    if (ending.kind === "unreadable") throw ending.error;
    const result = concluded(transaction, ending, this.#offers.has("DSN"));
    for (const [index, outcome] of result.outcomes) outcomes.set(index, outcome);
    this.#resetDue = result.leftOpen && this.#phase === "envelope";
    const { rest } = result;
    return { outcomes, fault: rest === "settled" ? undefined : rest === "broken" ? this.#fault() : rest };
  }

  // ── endings ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Starts the wait for something that has to happen within `ms`, in place of the one before. */
  #arm(ms: number, otherwise: string): void {
    clearTimeout(this.#deadline);
    if (this._destroyed) return;
    const leftMs = this.#transaction === undefined ? ms : this.#transaction.endsAtMs - performance.now();
    this.#deadline = setTimeout(
      () => this.#break(new HopFault("4.4.2", otherwise, { afterData: this.#phase === "end" })),
      Math.min(ms, Math.max(0, leftMs), timerMsMax),
    );
  }

  /** Cuts the connection. A message that was not sent to its end does not look complete: what is buffered is dropped. */
  #break(error: unknown): void {
    this.#error ??= error;
    const socket = this._socket;
    this.close();
    if (socket instanceof Socket) socket.destroy();
    this.#transaction?.end({ kind: "broken" });
  }

  /** Why the connection is gone. */
  #fault(): HopFault {
    const error = this.#error ?? new Error("The connection was closed");
    return hopFault(error, this.#phase === "idle" || this.#phase === "quitting" ? "envelope" : this.#phase);
  }

  #protocolFault(text: string, reply: string): void {
    const afterData = this.#phase === "end";
    this.#break(new HopFault("4.5.0", `${text}: ${reply}`, { afterData }));
  }

  // ── the library's seams: connecting ────────────────────────────────────────────────────────────────────────────────

  /** Plain connection made; for implicit TLS the handshake is over, and the server is looked at before it is heard. */
  override _onConnect(): void {
    if (this.secureConnection && !this.#serverIsTheRightOne()) return;
    super._onConnect();
    this.#arm(this.#limits.greetingTimeoutMs, "No greeting in time");
  }

  override _upgradeConnection(callback: Callback<boolean>): void {
    this.#arm(this.#limits.replyTimeoutMs, "No TLS handshake in time");
    super._upgradeConnection((error, secured) => {
      if (error === null && !this.#serverIsTheRightOne()) return;
      callback(error, secured);
    });
  }

  /** Compares the server's certificate with the pin or the name; ends the connection if it is another. */
  #serverIsTheRightOne(): boolean {
    const { tls, name } = this.hop;
    if (tls.mode === "none") return true;
    let mismatch: string | undefined;
    try {
      const socket = this._socket;
      const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
      mismatch = judgeServer(certificate, tls.verification, name);
      if (socket instanceof TLSSocket && certificate !== undefined) {
        const version = socket.getProtocol() ?? "unknown";
        this.#tls = { version, cipher: socket.getCipher().name, spki: spkiDigest(certificate) };
      }
    } catch (error) {
      // A certificate that OpenSSL took and cannot take apart must not end the process.
      mismatch = `the server's certificate cannot be read: ${String(error)}`;
    }
    if (mismatch === undefined) return true;
    this.#break(new HopFault("4.7.5", mismatch));
    return false;
  }

  /** EHLO refused for now is no reason to do without extensions: what cannot be sent then would fail for good. */
  override _actionEHLO(reply: string): void {
    if (reply.startsWith("4")) this._onError(new Error("EHLO was refused"), "EPROTOCOL", reply, "EHLO");
    else super._actionEHLO(reply);
  }

  override _parseEhloExtensions(reply: string): void {
    this.#offers = parseOffers(reply);
  }

  // ── the library's seams: commands and replies ──────────────────────────────────────────────────────────────────────

  override _sendCommand(line: string): void {
    super._sendCommand(line);
    const what = this.#phase === "envelope" ? "the envelope" : (line.split(" ")[0] ?? "");
    this.#arm(this.#limits.replyTimeoutMs, `No reply in time to ${what}`);
  }

  /** A server that sends what nobody asked for must not fill the memory. */
  override _onData(octets: Buffer): void {
    super._onData(octets);
    if (this._responseQueue.length > this._responseActions.length + spareRepliesMax) {
      this.#protocolFault("The server talks without being asked", decoded(this._responseQueue[0]));
    }
  }

  /** Looks at each reply before the library does. */
  override _processResponse(): void {
    if (this._destroyed) return;
    const reply = decoded(this._responseQueue[0]).trimEnd();
    const isWhole = !this._responsePartial || this._responseQueue.length > 1;
    if (isWhole && reply !== "") {
      if (!isReply(reply)) {
        this.#protocolFault("The server's reply makes no sense", reply);
        return;
      }
      if (reply.startsWith("421")) this.#error ??= closingFault(reply);
      if (this.#phase === "envelope") this.#arm(this.#limits.replyTimeoutMs, "No reply in time to the envelope");
    }
    super._processResponse();
  }

  /** MAIL with the parameters that the client gave us, where the next hop offers them; then the library goes on. */
  override _setEnvelope(_given: unknown, callback: Callback): void {
    const transaction = this.#transaction;
    const socket = this._socket;
    if (transaction === undefined || !(socket instanceof Socket)) {
      callback(new Error("The connection is gone"));
      return;
    }
    const { recipients } = transaction;
    const envelope: EnvelopeUnderWay = {
      rcptQueue: recipients.map((_, position) => String(position)), // addresses may occur twice
      rejected: [],
      rejectedErrors: [],
      accepted: [],
      pipelined: this.#offers.has("PIPELINING"),
    };
    transaction.envelope = envelope;
    this._envelope = envelope;
    this._recipientQueue = [];
    this._responseActions.push((reply) => this._actionMAIL(reply, callback));
    const mail = mailCommand(transaction.message.meta, recipients, this.#offers);
    if (!envelope.pipelined) {
      this._sendCommand(mail);
      return;
    }
    socket.cork();
    this._sendCommand(mail);
    for (const position of envelope.rcptQueue.splice(0)) this._sendRcpt(position, callback);
    this._responseActions.push((reply) => this._actionDATA(reply, callback));
    this._sendCommand("DATA");
    socket.uncork();
  }

  /** The library knows a recipient by what stands here: its position among those of the transaction. */
  override _sendRcpt(position: string, callback: Callback): void {
    const { message, recipients } = this.#transaction ?? {};
    const recipient = recipients?.[Number(position)];
    if (message === undefined || recipients === undefined || recipient === undefined) return;
    this._recipientQueue.push(position);
    this._responseActions.push((reply) => this._actionRCPT(reply, callback));
    this._sendCommand(rcptCommand(message.meta, recipients, recipient, this.#offers));
  }

  /** A 354 before its time (RFC 5321 §4.3.2) is the reply to something else: the two sides are out of step. */
  override _actionMAIL(reply: string, callback: Callback): void {
    if (reply.startsWith("3")) this.#protocolFault("The server answered MAIL with", reply);
    else super._actionMAIL(reply, callback);
  }

  override _actionRCPT(reply: string, callback: Callback): void {
    if (reply.startsWith("3")) this.#protocolFault("The server answered RCPT with", reply);
    else super._actionRCPT(reply, callback);
  }

  /** The library lets a 250 pass for 354; it would be the late reply to something else. */
  override _actionDATA(reply: string, callback: Callback): void {
    const isGoAhead = reply.startsWith("354");
    // What came before a single octet was sent is no answer to the content.
    const early = isGoAhead ? this._responseQueue.find((line) => line.trim() !== "") : undefined;
    if (early !== undefined) this.#protocolFault("The server answered before the message", decoded(early));
    else if (/^[23]/.test(reply) && !isGoAhead) this.#protocolFault("The server did not say 354", reply);
    else super._actionDATA(reply, callback);
  }

  /** The spool has the wire form already: nothing is stuffed, converted or added but the final dot. */
  override _createSendStream(callback: Callback<string>): DataStream {
    const { blockTimeoutMs, bytesPerSecondMin, endTimeoutMs } = this.#limits;
    const transaction = this.#transaction;
    const progress = () => this.#arm(blockTimeoutMs, "The next server takes the message too slowly");
    const stream = new WireStream(progress, () => {
      if (this._destroyed) return;
      this.#phase = "end";
      if (transaction !== undefined) transaction.endsAtMs = Number.POSITIVE_INFINITY;
      this.#arm(endTimeoutMs, "No reply in time to the end of the message");
    });
    this.#phase = "content";
    if (transaction !== undefined) {
      const contentMs = blockTimeoutMs + (transaction.message.meta.wireBytes / bytesPerSecondMin) * 1000;
      transaction.endsAtMs = performance.now() + contentMs;
    }
    progress();
    this._responseActions.push((reply) => {
      if (this.#phase === "end") this._actionSMTPStream(reply, callback);
      else this.#answeredTooEarly(reply);
    });
    this._currentDataStream = stream;
    if (this._socket instanceof Socket) stream.pipe(this._socket, { end: false });
    stream.once("end", () => {
      if (this._currentDataStream === stream) this._currentDataStream = false;
    });
    return stream;
  }

  /** A refusal before the end counts; whatever it was, the server is in the middle of the content and stays there. */
  #answeredTooEarly(reply: string): void {
    if (isRefusal(reply)) this.#transaction?.end({ kind: "refused", reply });
    this.#protocolFault("The server answered before the end of the message", reply);
  }
}

/** The library keeps octets as characters until it hands a reply out. */
function decoded(reply: string | undefined): string {
  return Buffer.from(reply ?? "", "latin1").toString();
}
