/**
 * An SMTP client for tests that says exactly what it is told, octet for octet, over plain TCP, STARTTLS or implicit TLS.
 * Every wait has a deadline. Replies are read whole (all lines of a multi-line reply, joined by LF, without CR).
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";

export interface ClientCertificate {
  readonly cert: string;
  readonly key: string;
}

const deadlineMs = 10_000;

export class SmtpDialogue {
  #socket: Socket | TLSSocket;
  #received = "";
  #closed = false;
  #wake: () => void = () => undefined;
  #trace: (direction: "sent" | "received", line: string) => void = () => undefined;

  private constructor(socket: Socket | TLSSocket) {
    this.#socket = socket;
    this.#listen();
  }

  /** Connects from a loopback address that stands for the partner's host. */
  static async open(to: { address: string; port: number }, from = "127.0.0.1"): Promise<SmtpDialogue> {
    const socket = connect({ host: to.address, port: to.port, localAddress: from });
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new SmtpDialogue(socket);
  }

  static async openTls(
    to: { address: string; port: number },
    from: string,
    certificate?: ClientCertificate,
  ): Promise<SmtpDialogue> {
    const socket = connectTls({
      host: to.address,
      port: to.port,
      localAddress: from,
      rejectUnauthorized: false,
      ...certificate,
    });
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    return new SmtpDialogue(socket);
  }

  /** STARTTLS is to have been answered with 220 already. */
  async secure(certificate?: ClientCertificate): Promise<void> {
    this.#socket.removeAllListeners();
    const socket = connectTls({ socket: this.#socket, rejectUnauthorized: false, ...certificate });
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    this.#socket = socket;
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

  /** Shows everything that is said and answered, a line at a time. */
  trace(show: (direction: "sent" | "received", line: string) => void): void {
    this.#trace = show;
  }

  /** Sends a line and gives the reply to it. */
  async say(line: string): Promise<string> {
    this.write(`${line}\r\n`);
    return await this.reply();
  }

  /** Sends octets as they are: a string stands for its latin1 octets. */
  write(octets: string | Buffer): void {
    const bytes = typeof octets === "string" ? Buffer.from(octets, "latin1") : octets;
    for (const line of bytes.toString("utf8").trimEnd().split("\r\n")) this.#trace("sent", line);
    this.#socket.write(bytes);
  }

  /** The next reply; fails if the connection ends or nothing comes in time. */
  async reply(): Promise<string> {
    for (;;) {
      const match = /^(?:\d{3}-[^\n]*\n)*\d{3}(?: [^\n]*)?\n/.exec(this.#received);
      if (match !== null) {
        this.#received = this.#received.slice(match[0].length);
        for (const line of match[0].trimEnd().split("\n")) this.#trace("received", line);
        return match[0].trimEnd();
      }
      if (this.#closed) throw new Error(`the connection ended; unread: ${JSON.stringify(this.#received)}`);
      await this.#somethingHappens("a reply");
    }
  }

  /** Resolves when the other side has closed; gives what was not read. */
  async closed(): Promise<string> {
    while (!this.#closed) await this.#somethingHappens("the end of the connection");
    return this.#received;
  }

  /** A whole transaction; gives the reply to the end of data. `content` is wire form without the final dot. */
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
    return await this.reply();
  }

  close(): void {
    this.#socket.destroy();
  }

  get socket(): Socket | TLSSocket {
    return this.#socket;
  }

  #listen(): void {
    this.#socket.on("data", (octets: Buffer) => {
      this.#received += octets.toString("latin1").replaceAll("\r\n", "\n");
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
