/**
 * An SMTP client for tests that says exactly what it is told, octet for octet, over plain TCP, STARTTLS or implicit TLS.
 * Every wait has a deadline. Replies are read whole (all lines of a multi-line reply, joined by LF, without CR).
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";

export interface ClientCertificate {
  /** PEM, with intermediates behind the leaf if there are any. */
  readonly cert: string;
  readonly key: string;
}

const deadlineMs = 10_000;

export class SmtpDialogue {
  #socket: Socket | TLSSocket;
  #received = "";
  #closed = false;
  #wake: () => void = () => undefined;
  #witness: ((direction: "sent" | "received", line: string) => void) | undefined;

  private constructor(socket: Socket | TLSSocket) {
    this.#socket = socket;
    this.#listen();
  }

  /** Connects from a loopback address that stands for the partner's host. */
  static async open(to: { address: string; port: number }, from = "127.0.0.1"): Promise<SmtpDialogue> {
    return new SmtpDialogue(await connectFrom(to, from));
  }

  /** Connects with TLS from the first octet; fails if there is no handshake. */
  static async openTls(
    to: { address: string; port: number },
    from: string,
    certificate?: ClientCertificate,
    options?: ConnectionOptions,
  ): Promise<SmtpDialogue> {
    return new SmtpDialogue(await handshake(await connectFrom(to, from), certificate, options));
  }

  /** Has every line told, as it is sent or read, without CRLF, decoded as UTF-8. */
  trace(witness: (direction: "sent" | "received", line: string) => void): void {
    this.#witness = witness;
  }

  /** STARTTLS is to have been answered with 220 already. */
  async secure(certificate?: ClientCertificate, options?: ConnectionOptions): Promise<void> {
    this.#socket.removeAllListeners();
    this.#socket = await handshake(this.#socket, certificate, options);
    this.#listen();
  }

  /** Greeting, EHLO, STARTTLS, handshake and EHLO again. */
  async begin(certificate?: ClientCertificate, name = "mx.acme.example"): Promise<void> {
    await this.reply();
    await this.say(`EHLO ${name}`);
    await this.say("STARTTLS");
    await this.secure(certificate);
    await this.say(`EHLO ${name}`);
  }

  /** Sends a line and gives the reply to it. */
  async say(line: string): Promise<string> {
    this.write(`${line}\r\n`);
    return this.reply();
  }

  /** Sends octets as they are: a string stands for its latin1 octets. */
  write(octets: string | Buffer, taken?: () => void): void {
    const buffer = typeof octets === "string" ? Buffer.from(octets, "latin1") : octets;
    this.#tell("sent", buffer);
    this.#socket.write(buffer, taken);
  }

  /** Sends octets, and resolves when the system has taken them: what is written next travels apart from them. */
  async writeApart(octets: string | Buffer): Promise<void> {
    await new Promise<void>((resolve) => this.write(octets, resolve));
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /** The next reply; fails if the connection ends or nothing comes in time. */
  async reply(): Promise<string> {
    for (;;) {
      const match = /^(?:\d{3}-[^\n]*\n)*\d{3}(?: [^\n]*)?\r\n/.exec(this.#received);
      if (match !== null) {
        this.#received = this.#received.slice(match[0].length);
        this.#tell("received", Buffer.from(match[0], "latin1"));
        return match[0].replaceAll("\r\n", "\n").trimEnd();
      }
      if (this.#closed) throw new Error(`the connection ended; unread: ${JSON.stringify(this.#received)}`);
      await this.#somethingHappens("a reply");
    }
  }

  /** Resolves when the other side has closed; gives what was not read. */
  async closed(): Promise<string> {
    while (!this.#closed) await this.#somethingHappens("the end of the connection");
    return this.#received.replaceAll("\r\n", "\n");
  }

  /**
   * A whole transaction; gives the reply to the end of data, or the first refusal. `content` is wire form without the
   * final dot; `parameters` of MAIL begin with a space.
   */
  async send(
    content: string | Buffer,
    from = "a@acme.example",
    to: readonly string[] = ["orders@corp.example"],
    parameters = "",
  ): Promise<string> {
    const mail = await this.say(`MAIL FROM:<${from}>${parameters}`);
    if (!mail.startsWith("250")) return mail;
    for (const recipient of to) {
      const reply = await this.say(`RCPT TO:<${recipient}>`);
      if (!reply.startsWith("250")) return reply;
    }
    const data = await this.say("DATA");
    if (!data.startsWith("354")) return data;
    this.write(content);
    this.write(".\r\n");
    return this.reply();
  }

  close(): void {
    this.#socket.destroy();
  }

  get socket(): Socket | TLSSocket {
    return this.#socket;
  }

  #tell(direction: "sent" | "received", octets: Buffer): void {
    if (this.#witness === undefined) return;
    for (const line of octets.toString().trimEnd().split("\r\n")) this.#witness(direction, line);
  }

  #listen(): void {
    this.#socket.on("data", (octets: Buffer) => {
      this.#received += octets.toString("latin1");
      this.#wake();
    });
    const ended = () => {
      this.#closed = true;
      this.#wake();
    };
    this.#socket.on("error", ended).on("close", ended).on("end", ended);
  }

  async #somethingHappens(what: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${what} did not come within ${deadlineMs} ms`)), deadlineMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

async function connectFrom(to: { address: string; port: number }, from: string): Promise<Socket> {
  const socket = connect({ host: to.address, port: to.port, localAddress: from });
  socket.setNoDelay(true);
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  return socket;
}

async function handshake(
  socket: Socket,
  certificate: ClientCertificate | undefined,
  options: ConnectionOptions | undefined,
): Promise<TLSSocket> {
  socket.on("error", () => undefined); // it comes through the TLS socket, too
  const secured = connectTls({ socket, rejectUnauthorized: false, ...certificate, ...options });
  await new Promise<void>((resolve, reject) => {
    secured
      .once("secureConnect", resolve)
      .once("error", reject)
      .once("close", () => reject(new Error("the connection ended in the TLS handshake")));
  });
  return secured;
}
