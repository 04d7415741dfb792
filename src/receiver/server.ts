/**
 * The SMTP server: the one importer of `smtp-server`, subclassed at its seams. The library reads command lines, speaks
 * TLS and keeps time; who may do what is decided in `session.ts`, and messages are received by `intake.ts`.
 *
 * What is taken out of the library's hands, and why:
 * - the greeting: no 100 ms delay, no reverse DNS; addresses of no partner are turned away before TLS;
 * - MAIL, RCPT, DATA: our own grammar, replies and enhanced codes (the library's table says 5.1.1 for every 550);
 * - the content: only CRLF . CRLF ends it, it stays in wire form, and a burst of dots costs nothing extra;
 * - replies: those of one turn of the event loop leave in one write.
 */
import { constants as cryptoConstants, type X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { SMTPServer } from "smtp-server";
import { SMTPConnection, type SMTPConnectionOptions } from "smtp-server/lib/smtp-connection.js";
import { SMTPStream } from "smtp-server/lib/smtp-stream.js";
import type { Log } from "../log/log.ts";
import { replies, replyLine, type ReplyName } from "../mail/reply.ts";
import { authenticationResultsField, receivedField } from "../mail/trace.ts";
import type { Pin } from "../partner/pin.ts";
import type { DropBox } from "../spool/spool.ts";
import { Intake, replyToFault, type IntakeResult } from "./intake.ts";
import type { PolicyInForce } from "./policy-in-force.ts";
import { envelopeOf, Session, type Answer, type Transaction } from "./session.ts";

/** What all connections of a receiver share. */
export interface ReceiverContext {
  policy: PolicyInForce;
  readonly dropBox: DropBox;
  readonly log: Log;
  readonly now: () => Date;
  readonly census: ConnectionCensus;
}

/** Counts connections, for the limits; shared by all listeners. */
export class ConnectionCensus {
  total = 0;
  readonly byAddress = new Counter();
  readonly byPartner = new Counter();
}

class Counter {
  readonly #counts = new Map<string, number>();

  of(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: string, change: 1 | -1): void {
    const count = this.of(key) + change;
    if (count === 0) this.#counts.delete(key);
    else this.#counts.set(key, count);
  }
}

const idleTimeoutMs = 5 * 60_000; // RFC 5321 §4.5.3.2.7
const handshakeTimeoutMs = 30_000;
const refusedLingerMs = 10_000;
const refusedCommandsMax = 5;

/** Everything the library offers that a partner has no use for. */
const disabledCommands = ["AUTH", "VRFY", "HELP", "WIZ", "SHELL", "KILL", "XCLIENT", "XFORWARD", "LHLO"];

export class RelayServer extends SMTPServer {
  readonly #context: ReceiverContext;

  constructor(context: ReceiverContext, key: string, implicitTls: boolean) {
    const { config } = context.policy;
    super({
      name: config.hostname,
      banner: "pinrelay",
      secure: implicitTls,
      key,
      cert: config.tls.certificate,
      minVersion: config.tls.minimumVersion,
      // A resumed session shows no certificate; without tickets there is none to resume.
      secureOptions: cryptoConstants.SSL_OP_NO_TICKET | cryptoConstants.SSL_OP_NO_RENEGOTIATION,
      requestCert: true,
      rejectUnauthorized: false, // the certificate is judged at MAIL, by us, so that the partner is told what is wrong
      size: config.limits.messageBytesMax,
      hideENHANCEDSTATUSCODES: false,
      hideDSN: false,
      hideREQUIRETLS: true,
      disabledCommands,
      disableReverseLookup: true,
      authOptional: true,
      socketTimeout: idleTimeoutMs,
      closeTimeout: 60_000,
      heloResponse: "%s",
      logger: false,
      onConnect: (_session, callback) => callback(),
      onSecure: (_socket, _session, callback) => callback(),
    });
    this.#context = context;
    // Without a listener one garbage handshake would end the process.
    this.on("error", (error: Error) => context.log.info({ event: "connection failed", error: error.message }));
  }

  /** Before implicit TLS: an address of no partner gets no handshake. */
  override _acceptSocket(socket: Socket, handshake: boolean): false | (() => void) {
    const address = plainAddress(socket.remoteAddress ?? "");
    if (handshake && !this.#context.policy.partners.isKnownAddress(address)) {
      this.#context.log.info({ event: "refused", address, reply: "addressUnknown", before: "TLS" });
      socket.on("error", () => undefined);
      socket.destroy();
      return false;
    }
    return super._acceptSocket(socket, handshake);
  }

  override connect(socket: Socket | TLSSocket, options?: SMTPConnectionOptions): void {
    const connection = new RelayConnection(this, socket, options ?? {}, this.#context);
    this.connections.add(connection);
    connection.on("error", (error: Error) => this.emit("error", error));
    connection.init();
  }

  /** Stops listening, says 421 to whoever is not in the middle of a message, and resolves when all are gone. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      this.close(() => resolve());
      for (const connection of this.connections) {
        if (connection instanceof RelayConnection) connection.drain();
      }
    });
  }
}

class RelayConnection extends SMTPConnection {
  readonly #context: ReceiverContext;
  readonly #session: Session;
  readonly #log: Log;
  #intake: Intake | undefined;
  /** The commit is under way: the client waits for us, not we for it. */
  #committing = false;
  #refused = false;
  #refusedCommands = 0;
  #corked = false;
  #draining = false;
  #handshakeTimer: NodeJS.Timeout | undefined;
  #countedPartner: string | undefined;

  constructor(
    server: RelayServer,
    socket: Socket | TLSSocket,
    options: SMTPConnectionOptions,
    context: ReceiverContext,
  ) {
    super(server, socket, options);
    this.#context = context;
    const address = plainAddress(socket.remoteAddress ?? "");
    this.#session = new Session(this.id, address);
    this.#log = context.log.child({ session: this.id, address });
  }

  // ── the beginning ──────────────────────────────────────────────────────────────────────────────────────────────────

  override init(): void {
    const { policy, census } = this.#context;
    const { address } = this.#session;
    census.total += 1;
    census.byAddress.add(address, 1);
    this._setListeners(() => {
      if (!policy.partners.isKnownAddress(address)) {
        this.#turnAway();
      } else if (
        census.total > policy.config.limits.connectionsMax ||
        census.byAddress.of(address) > policy.config.limits.connectionsPerAddressMax
      ) {
        this.#reply({ reply: "tooManyConnections", reason: { connections: census.total } });
      } else {
        this.#noteTls();
        this.connectionReady();
      }
    });
  }

  /** RFC 5321 §3.1: 554 instead of the greeting, and then nothing but QUIT. */
  #turnAway(): void {
    this.#refused = true;
    this._ready = true;
    this.#reply({ reply: "addressUnknown", reason: {} });
    this._socket.setTimeout(refusedLingerMs, () => this._socket.destroy());
    setTimeout(() => this._socket.destroy(), refusedLingerMs).unref();
  }

  override _onCommand(command: Buffer, callback: () => void): void {
    if (this.#draining && this.#intake === undefined) {
      this.#reply({ reply: "shuttingDown", reason: {} });
      return;
    }
    if (!this.#refused) {
      super._onCommand(command, callback);
      return;
    }
    this.#refusedCommands += 1;
    if (/^QUIT\s*$/i.test(command.toString("latin1")) || this.#refusedCommands > refusedCommandsMax) {
      this.handler_QUIT(command, callback);
      return;
    }
    this.send(replies.quitOnly.code, `${replies.quitOnly.status} ${replies.quitOnly.text}`, false);
    callback();
  }

  override _onClose(): void {
    if (!this._closed) {
      const { census } = this.#context;
      census.total -= 1;
      census.byAddress.add(this.#session.address, -1);
      if (this.#countedPartner !== undefined) census.byPartner.add(this.#countedPartner, -1);
      clearTimeout(this.#handshakeTimer);
      if (this.#intake !== undefined && !this.#committing) {
        this.#log.info({ event: "message abandoned", cause: "the client went away before the end of data" });
        void this.#intake.abandon();
      }
      this.#intake = undefined;
    }
    super._onClose();
  }

  /** An idle client is one that owes us something; while we commit, we owe it. */
  override _onTimeout(): void {
    if (this.#committing && !this._closing) this._armTimeout();
    else super._onTimeout();
  }

  drain(): void {
    this.#draining = true;
    if (this.#intake === undefined) this.#reply({ reply: "shuttingDown", reason: {} });
  }

  // ── TLS ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  override upgrade(callback: () => void, secureCallback?: () => void): void {
    this.#handshakeTimer = setTimeout(() => {
      this.#log.info({ event: "connection failed", error: "the TLS handshake took too long" });
      this._socket.destroy();
    }, handshakeTimeoutMs);
    super.upgrade(callback, () => {
      clearTimeout(this.#handshakeTimer);
      this.#noteTls();
      secureCallback?.();
    });
  }

  /** Reads what TLS knows of the peer. The library's own verdict is not among it. */
  #noteTls(): void {
    const socket = this._socket;
    if (!(socket instanceof TLSSocket)) return;
    const chain: X509Certificate[] = [];
    let certificate = socket.getPeerX509Certificate();
    while (certificate !== undefined && chain.length < 8) {
      chain.push(certificate);
      certificate = certificate.issuerCertificate;
    }
    this.#session.secure({
      chain,
      version: socket.getProtocol() ?? "unknown",
      cipher: socket.getCipher().name,
    });
  }

  // ── commands ───────────────────────────────────────────────────────────────────────────────────────────────────────

  override handler_MAIL(command: Buffer, callback: () => void): void {
    this.emitConnection();
    const answer = this.#session.mail(command, this.#context.policy, this.#context.now());
    this.#reply(this.#session.transaction === undefined ? answer : this.#withinConnections(answer));
    callback();
  }

  override handler_RCPT(command: Buffer, callback: () => void): void {
    this.#reply(this.#session.rcpt(command, this.#context.policy));
    callback();
  }

  override handler_DATA(command: Buffer, callback: () => void): void {
    const answer = this.#session.data(command);
    const { transaction } = this.#session;
    if (answer.reply !== "startData" || transaction === undefined || !(this._parser instanceof RelayStream)) {
      this.#reply(answer);
      callback();
      return;
    }
    try {
      this.#intake = this.#openIntake(transaction);
    } catch (error) {
      this.#reply({ reply: replyToFault(error), reason: { cause: String(error) } });
      callback();
      return;
    }
    this._parser.receiveContent(this.#intake, () => this.#endOfData());
    this.#reply(answer);
    callback();
  }

  /** RSET, EHLO, STARTTLS and the end of a message all pass here: the transaction is over. */
  override _resetSession(): void {
    super._resetSession();
    this.#session.reset();
  }

  /** The partner's own limit of connections, counted from its first MAIL on: before, nobody knows whose they are. */
  #withinConnections(answer: Answer): Answer {
    const { identified } = this.#session;
    if (answer.reply !== "senderAccepted" || identified === undefined) return answer;
    const { partner } = identified;
    const { byPartner } = this.#context.census;
    if (this.#countedPartner !== partner.name) {
      if (byPartner.of(partner.name) >= partner.limits.connectionsMax) {
        this.#session.reset();
        return { reply: "rateExceeded", reason: { partner: partner.name, connections: byPartner.of(partner.name) } };
      }
      if (this.#countedPartner !== undefined) byPartner.add(this.#countedPartner, -1);
      byPartner.add(partner.name, 1);
      this.#countedPartner = partner.name;
      const { secured } = this.#session;
      this.#log.info({
        event: "identified",
        partner: partner.name,
        pin: pinText(identified.pin),
        tls: secured?.version,
        cipher: secured?.cipher,
      });
    }
    return answer;
  }

  // ── the message ────────────────────────────────────────────────────────────────────────────────────────────────────

  #openIntake(transaction: Transaction): Intake {
    const { policy, dropBox, now } = this.#context;
    const { partner, pin } = transaction.identity;
    const { hostname } = policy.config;
    const helo = this.hostNameAppearsAs === false ? "" : this.hostNameAppearsAs;
    const envelope = envelopeOf(transaction);
    const pinned = { name: partner.name, pinText: pinText(pin) };
    const [only, ...others] = envelope.recipients;
    const secured = this.#session.secured;
    return new Intake({
      dropBox,
      hostname,
      partner: partner.name,
      envelope,
      session: { id: this.id, address: this.#session.address, helo },
      messageBytesMax: policy.messageBytesMax(partner),
      now: () => now().getTime(),
      traceFields: (id) =>
        receivedField({
          heloName: helo,
          address: this.#session.address,
          hostname,
          protocol: {
            ehlo: this.openingCommand === "EHLO",
            tls: secured === undefined ? undefined : { version: secured.version, cipher: secured.cipher },
            smtpUtf8: envelope.smtpUtf8,
          },
          partner: pinned,
          id,
          forRecipient: others.length === 0 && only?.path.kind === "mailbox" ? only.path.mailbox.address : undefined,
          now: now(),
        }) +
        authenticationResultsField({
          authservId: hostname,
          partner: pinned,
          reversePath: envelope.reversePath,
          smtpUtf8: envelope.smtpUtf8,
        }),
    });
  }

  async #endOfData(): Promise<void> {
    const intake = this.#intake;
    const transaction = this.#session.transaction;
    if (intake === undefined || transaction === undefined) return;
    this.#committing = true;
    const result = await intake.finish();
    this.#committing = false;
    this.#intake = undefined;
    this.#logResult(result, transaction);
    this._transactionCounter += 1;
    this._unrecognizedCommands = 0;
    this._resetSession();
    if (result.kind === "accepted") this.#send("queued", result.meta.id);
    else this.#send(result.reply, `[${this.id}]`);
    if (this.#draining) this.#reply({ reply: "shuttingDown", reason: {} });
  }

  #logResult(result: IntakeResult, transaction: Transaction): void {
    const partner = transaction.identity.partner.name;
    if (result.kind === "refused") {
      const cause = result.cause instanceof Error ? result.cause.message : undefined;
      const level = replies[result.reply].code < 500 ? "error" : "info";
      this.#log[level]({ event: "message refused", partner, id: result.id, reply: result.reply, cause });
      return;
    }
    const { id, envelope, sizeBytes, sha256 } = result.meta;
    this.#log.info({
      event: "message accepted",
      partner,
      id,
      recipients: envelope.recipients.length,
      sizeBytes,
      sha256,
      policy: this.#context.policy.config.version.slice(0, 12),
    });
  }

  // ── replies ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #reply({ reply, reason }: Answer): void {
    const { code } = replies[reply];
    if (code >= 400) this.#log.info({ event: "refused", reply, code, ...reason });
    else if ("observed" in reason) this.#log.warn({ event: "observed", reply, ...reason });
    this.#send(reply, code >= 400 ? `[${this.id}]` : undefined);
  }

  #send(name: ReplyName, detail?: string): void {
    const { code } = replies[name];
    this.send(code, replyLine(replies[name], detail).slice(4), false);
  }

  /** Replies of one turn of the event loop leave in one write, and so in one TLS record. */
  override send(code: number, data?: string | string[] | null, context?: string | false): void {
    const socket = this._socket;
    // What must be on the wire before the socket changes hands or closes is not held back.
    if (!this.#corked && code !== 220 && code !== 221 && code !== 421) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    super.send(code, data, context);
  }

  // ── the library's parser, with our reading of the content ──────────────────────────────────────────────────────────

  override _createParser(): SMTPStream {
    const parser = new RelayStream({});
    parser.oncommand = (command: Buffer, callback?: () => void) =>
      this._onCommand(command, callback ?? (() => undefined));
    parser.on("error", (error: Error) => this.send(421, `4.5.2 ${error.message}`, false));
    return parser;
  }
}

/** The library's command parser; while a message is received, octets go to its intake instead. */
class RelayStream extends SMTPStream {
  #intake: Intake | undefined;
  #ended: () => Promise<void> = () => Promise.resolve();

  /** What follows is content, up to its end; then `ended` is called, and commands are read again when it is done. */
  receiveContent(intake: Intake, ended: () => Promise<void>): void {
    this.#intake = intake;
    this.#ended = ended;
    this._dataMode = true;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, next: (error?: Error | null) => void): void {
    const intake = this.#intake;
    if (intake === undefined || !this._dataMode || this.isClosed) {
      super._write(chunk, encoding, next);
      return;
    }
    const { rest, ready } = intake.take(chunk);
    if (rest === undefined) {
      if (ready === undefined) next();
      else void ready.then(() => next());
      return;
    }
    this.#intake = undefined;
    this._dataMode = false;
    const end = async () => {
      await ready;
      await this.#ended();
      super._write(rest, encoding, next);
    };
    end().catch((error: unknown) => next(error instanceof Error ? error : new Error(String(error))));
  }
}

/** IPv4-mapped IPv6 addresses are IPv4 addresses to whoever reads the log. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

function pinText(pin: Pin): string {
  return pin.kind === "trustAnchor" ? `trust-anchor ${pin.name}` : `${pin.kind} ${pin.digest}`;
}
