/**
 * The plainest SMTP client: one command, one reply, and the content exactly as given. Tests use it to hand a message to a
 * Postfix on loopback with full control of the envelope, where the sendmail program would rewrite line ends.
 * Fails on a closed connection and past its deadline.
 */

import { connect, type Socket } from "node:net";

export interface SmtpReply {
  code: number;
  lines: string[];
}

export class SmtpClient {
  readonly #socket: Socket;
  #unread = "";
  #wake: (() => void) | undefined;
  #ended: Error | undefined;

  private constructor(socket: Socket, deadlineMs: number) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.setTimeout(deadlineMs, () => socket.destroy(new Error(`the server was silent for ${deadlineMs} ms`)));
    socket.on("data", (text: string) => {
      this.#unread += text;
      this.#wake?.();
    });
    socket.on("error", (error) => {
      this.#ended = error;
    });
    socket.on("close", () => {
      this.#ended ??= new Error("the server closed the connection");
      this.#wake?.();
    });
  }

  /** Connects and reads the greeting. */
  static async open(options: {
    address: string;
    port: number;
    localAddress?: string;
    deadlineMs?: number;
  }): Promise<{ client: SmtpClient; greeting: SmtpReply }> {
    const { address, port, localAddress, deadlineMs = 60_000 } = options;
    const client = new SmtpClient(
      connect({ host: address, port, ...(localAddress !== undefined && { localAddress }) }),
      deadlineMs,
    );
    return { client, greeting: await client.reply() };
  }

  /** Sends one line (a string of Unicode: SMTPUTF8 addresses go out in UTF-8) and reads its reply. */
  async command(line: string): Promise<SmtpReply> {
    this.#socket.write(`${line}\r\n`, "utf8");
    return this.reply();
  }

  /** Like `command`, for a line that must be answered with this code. */
  async expect(code: number, line: string): Promise<SmtpReply> {
    const reply = await this.command(line);
    if (reply.code !== code) throw new Error(`${line}: ${reply.lines.join(" / ")}`);
    return reply;
  }

  /** Sends content with dots stuffed and the final dot, after a 354. The content must end with CRLF. */
  async content(content: Buffer): Promise<SmtpReply> {
    for (const piece of stuffed(content)) this.#socket.write(piece);
    this.#socket.write(".\r\n");
    return this.reply();
  }

  async reply(): Promise<SmtpReply> {
    const lines: string[] = [];
    for (;;) {
      const line = await this.#line();
      lines.push(line);
      if (line[3] !== "-") return { code: Number(line.slice(0, 3)), lines };
    }
  }

  async quit(): Promise<void> {
    await this.command("QUIT");
    this.#socket.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#unread.indexOf("\r\n");
      if (end >= 0) {
        const line = this.#unread.slice(0, end);
        this.#unread = this.#unread.slice(end + 2);
        return line;
      }
      if (this.#ended) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** The pieces of the content between which a dot is doubled (RFC 5321 §4.5.2). */
function* stuffed(content: Buffer): Generator<Buffer> {
  if (!content.subarray(-2).equals(Buffer.from("\r\n"))) throw new Error("content must end with CRLF");
  let from = 0;
  if (content[0] === 0x2e) yield Buffer.from(".");
  for (let at = content.indexOf("\r\n.", 0); at >= 0; at = content.indexOf("\r\n.", at + 2)) {
    yield content.subarray(from, at + 3);
    from = at + 2;
  }
  yield content.subarray(from);
}
