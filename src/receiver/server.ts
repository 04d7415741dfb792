/**
 * The SMTP server: the one importer of `smtp-server`, subclassed at its seams. The library keeps sockets, speaks TLS and
 * says when a client is idle; what is said is the business of `conversation.ts`.
 *
 * Promises: a connection of no partner gets no TLS; a connection that ends, however it does, is counted down once and
 * leaves nothing behind; no client can end the process.
 *
 * What is taken out of the library's hands, and why:
 * - the greeting: no delay, no reverse DNS;
 * - commands: only our own exist, replies have our enhanced codes (the library says 5.1.1 for every 550), and parameters
 *   of a MAIL that was refused do not live on;
 * - command lines and content: only CRLF ends a line and only CRLF . CRLF a message; a burst of dots costs nothing extra;
 * - deadlines: for handshakes, messages and sessions as a whole;
 * - replies: those of one turn of the event loop leave in one write.
 */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { SMTPServer } from "smtp-server";
import { SMTPConnection, type SMTPConnectionOptions } from "smtp-server/lib/smtp-connection.js";
import { SMTPStream } from "smtp-server/lib/smtp-stream.js";
import { limitOf, type ReplyName } from "../mail/reply.ts";
import type { Admission, Seat } from "./census.ts";
import type { ReceiverContext } from "./context.ts";
import { turnedAway } from "./decision.ts";
import { Conversation, type Patience, type Wire } from "./conversation.ts";
import { handshakeTooLong } from "./journal.ts";
import type { ServerPair } from "./server-certificate.ts";
import { tlsServerOptions } from "./tls-options.ts";
import { readTlsPeer } from "./tls-peer.ts";
import { WireReader, type WireListener } from "./wire-reader.ts";

export class RelayServer extends SMTPServer {
  readonly #context: ReceiverContext;
  readonly #admissions = new WeakMap<Socket, Admission>();
  #draining = false;

  constructor(context: ReceiverContext, pair: ServerPair, implicitTls: boolean) {
    const { config } = context.policy;
    super({
      name: config.hostname,
      banner: "pinrelay",
      secure: implicitTls,
      key: pair.key,
      cert: pair.certificate,
      ...tlsServerOptions(config.tls),
      disableReverseLookup: true,
      socketTimeout: context.timeouts.idleMs,
      closeTimeout: context.timeouts.drainMs + closingMs, // the library's own end of patience, behind ours
      logger: false,
      onConnect: (_session, callback) => callback(),
      onSecure: (_socket, _session, callback) => callback(),
    });
    this.#context = context;
    // Without a listener one garbage handshake would end the process.
    this.on("error", (error: Error & { remoteAddress?: string; meta?: { remoteAddress?: string } }) => {
      const address = plainAddress(error.remoteAddress ?? error.meta?.remoteAddress ?? "");
      context.log.info({ event: "connection failed", address, error: error.message });
    });
  }

  /** A connection has come in: it gets a seat for as long as its socket lives, or it goes. */
  override _acceptSocket(socket: Socket, handshake: boolean): false | (() => void) {
    // Until its session begins nobody else listens, and a reset would end the process.
    socket.on("error", () => undefined);
    const { census, handshakes, policy, log, timeouts, now } = this.#context;
    const address = plainAddress(socket.remoteAddress ?? "");
    const admission = census.enter(address, policy.partners.isKnownAddress(address), policy.config.limits);
    if (admission.kind !== "admitted") this.#context.decisions.note(turnedAway(address, admission.reply));
    if (admission.kind === "dropped" || (admission.kind === "turnedAway" && handshake)) {
      // Behind implicit TLS there is nobody to say it to: who is turned away gets no handshake.
      if (admission.kind === "turnedAway") admission.seat.leave();
      const of = admission.kind === "dropped" ? "turned-away" : limitOf(admission.reply);
      log.info({ event: "refused", address, reply: admission.reply, of, before: "greeting" });
      socket.destroy();
      return false;
    }
    if (handshake && !handshakes.take(address, policy.config.limits.handshakesPerMinute, now().getTime())) {
      admission.seat.leave();
      const reply = "tooManyHandshakes";
      log.info({ event: "refused", address, reply, of: limitOf(reply), before: "handshake" });
      socket.destroy();
      return false;
    }
    leaveWith(socket, admission.seat);
    this.#admissions.set(socket, admission);
    const release = super._acceptSocket(socket, handshake);
    if (!handshake || release === false) return release;
    const deadline = setTimeout(() => {
      log.info({ event: "connection failed", address, ...handshakeTooLong });
      this._pendingSockets.get(socket)?.destroy();
    }, timeouts.handshakeMs);
    return () => {
      clearTimeout(deadline);
      release();
    };
  }

  /** A TLS session over a socket that is gone already ends the process: node 24 crashes when it is asked about it. */
  override _upgrade(socket: Socket, callback: (error: Error | null, secured?: TLSSocket) => void): void {
    if (socket.destroyed) callback(new Error("the connection ended before the TLS handshake"));
    else super._upgrade(socket, callback);
  }

  override connect(socket: Socket | TLSSocket, options?: SMTPConnectionOptions): void {
    if (socket.destroyed) return;
    const connection = new RelayConnection(this, socket, options ?? {}, this.#context, this.#admissions.get(socket));
    this.connections.add(connection);
    connection.on("error", (error: Error) => this.emit("error", error));
    connection.init();
    if (this.#draining) connection.end("shuttingDown", "patient");
  }

  /** New handshakes are made with this pair; sessions go on. The pair is one that is known to be usable. */
  renew({ certificate, key }: ServerPair): void {
    this.updateSecureContext({ key, cert: certificate });
  }

  /** Stops listening, says 421 to whoever is not in the middle of a message, in time to all, and resolves when all are gone. */
  async drain(): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => {
      this.close(() => resolve());
    });
    this.#endAll("patient");
    const patience = setTimeout(() => this.#endAll("impatient"), this.#context.timeouts.drainMs);
    await closed;
    clearTimeout(patience);
  }

  #endAll(patience: Patience): void {
    for (const connection of this.connections) {
      if (connection instanceof RelayConnection) connection.end("shuttingDown", patience);
    }
  }
}

const closingMs = 10_000;

class RelayConnection extends SMTPConnection {
  readonly #context: ReceiverContext;
  readonly #conversation: Conversation;
  /** Undefined behind implicit TLS: who got that far was admitted. */
  readonly #admission: Admission | undefined;
  readonly #timers: Partial<Record<"session" | "handshake", NodeJS.Timeout>> = {};
  readonly #idleMs: number;
  readonly #lineBytesMax: number;
  #corked = false;
  /** The TLS socket as soon as its handshake begins. The one below it must not be torn away. */
  #topSocket: Socket;

  constructor(
    server: RelayServer,
    socket: Socket | TLSSocket,
    options: SMTPConnectionOptions,
    context: ReceiverContext,
    admission: Admission | undefined,
  ) {
    super(server, socket, options);
    this.#context = context;
    this.#admission = admission;
    this.#topSocket = socket;
    this.#idleMs = context.timeouts.idleMs;
    this.#lineBytesMax = context.policy.config.limits.commandLineBytesMax;
    const wire: Wire = {
      send: (code, lines) => this.send(code, lines, false),
      close: () => this.close(),
      startTls: () => this.#startTls(),
      receiveContent: (intake) => {
        if (this._parser instanceof RelayStream) this._parser.reader.receiveContent(intake);
      },
    };
    this.#conversation = new Conversation(this.id, plainAddress(socket.remoteAddress ?? ""), wire, context);
  }

  override init(): void {
    const { timeouts } = this.#context;
    this._setListeners(() => {
      if (this.#admission?.kind === "turnedAway") {
        this.#timers.session = setTimeout(() => this._socket.destroy(), timeouts.turnedAwayMs);
        this.#conversation.turnAway(this.#admission.reply);
        return;
      }
      this.#timers.session = setTimeout(() => this.end("sessionTimeout", "patient"), timeouts.sessionMs);
      if (this._socket instanceof TLSSocket) this.#noteTls(this._socket);
      this.connectionReady();
    });
  }

  /** Ends the session with this reply; in a handshake there is nobody to say it to. */
  end(reply: ReplyName, patience: Patience): void {
    if (this._upgrading) this.#topSocket.destroy();
    else if (!this._closing) this.#conversation.end(reply, patience);
  }

  /** An idle client is one that owes us something; while we commit, we owe it. */
  override _onTimeout(): void {
    if (this._closing) super._onTimeout();
    else if (this.#conversation.isCommitting) this._armTimeout();
    else this.end("idleTimeout", "impatient");
  }

  override _armTimeout(socket: Socket = this._socket): void {
    this.#topSocket = socket;
    super._armTimeout(socket);
    socket.setTimeout(this.#idleMs); // in place of what the library has from the time at which it was started
  }

  override _onClose(): void {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#conversation.closed();
    super._onClose();
  }

  #startTls(): void {
    if (this._socket.destroyed) return;
    const raw = this._socket;
    this.#timers.handshake = setTimeout(() => {
      this.#conversation.journal.handshakeTimeout();
      this.#topSocket.destroy();
    }, this.#context.timeouts.handshakeMs);
    this.upgrade(
      () => undefined,
      () => {
        clearTimeout(this.#timers.handshake);
        if (this._socket instanceof TLSSocket) this.#noteTls(this._socket);
      },
    );
    // The library has taken off all listeners, and with them the one that counts the connection down.
    if (this.#admission?.kind === "admitted") leaveWith(raw, this.#admission.seat);
  }

  #noteTls(socket: TLSSocket): void {
    try {
      this.#conversation.secure(readTlsPeer(socket));
    } catch (error) {
      this.#conversation.fail("TLS", error);
    }
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

  override _createParser(): SMTPStream {
    // Made before the fields of this object are: nothing of them may be asked for yet.
    const parser = new RelayStream(
      {
        onCommand: (line) => {
          this.#conversation.onCommand(line);
          return this.#whenReplyIsTaken();
        },
        onEndOfData: () => this.#context.work.track(this.#conversation.onEndOfData()),
        onFault: (fault) => this.#conversation.onFault(fault),
      },
      () => this.#lineBytesMax,
    );
    parser.on("error", (error: Error) => this.#conversation.fail("reading", error));
    return parser;
  }

  /** A client that does not read its replies is not read from either: they would pile up in memory. */
  #whenReplyIsTaken(): Promise<void> | undefined {
    const socket = this._socket;
    if (!socket.writableNeedDrain || socket.destroyed) return undefined;
    return new Promise((resolve) => void socket.once("drain", resolve));
  }
}

/** The library's place for a parser, with our reader in it. */
class RelayStream extends SMTPStream {
  readonly reader: WireReader;

  constructor(listener: WireListener, lineBytesMax: () => number) {
    super({});
    this.reader = new WireReader(listener, lineBytesMax);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, next: (error?: Error | null) => void): void {
    this.reader
      .read(chunk, () => this.isClosed)
      .then(
        () => next(),
        (error: unknown) => next(error instanceof Error ? error : new Error(String(error))),
      );
  }

  /** The library would execute a last line without an end. */
  override _flushData(): void {}
}

/** The seat is free when the socket is closed. */
function leaveWith(socket: Socket, seat: Seat): void {
  socket.once("close", () => seat.leave());
}

/** IPv4-mapped IPv6 addresses are IPv4 addresses to whoever reads the log. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}
