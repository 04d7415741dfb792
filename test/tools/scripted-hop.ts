/**
 * A next hop that answers as a test tells it: each command is looked up in a script, which gives the reply, or says to
 * close, to be silent, or to send it in pieces, at once or when a promise resolves. Where the script says nothing it
 * behaves as a sound server does, STARTTLS and the order of commands included. It records what it was told.
 */
import { createHash } from "node:crypto";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { createSecureContext, TLSSocket } from "node:tls";

export type Answer =
  | string // a reply, without the final CRLF
  | { readonly close: true }
  | { readonly silent: true } // to this command and all that follow
  | { readonly last: string } // octets as they are, and then the end of the connection
  | { readonly raw: Buffer | string; readonly positive?: true } // octets as they are; `positive`: the command succeeded
  | { readonly bytewise: string }; // a reply, one octet at a time

/**
 * `verb` is in capitals: CONNECT for the greeting, CONTENT for the end of data, PIECE for each piece of content before it
 * (the usual reply is none). Undefined: the usual reply. While a promise is pending, the commands behind it wait.
 */
export type Script = (
  verb: string,
  line: string,
  connection: number,
) => Answer | undefined | Promise<Answer | undefined>;

/** A command with the connection that it came over, and whether that was secured by then. */
export interface Said {
  readonly connection: number;
  readonly secure: boolean;
  readonly line: string;
}

export interface ScriptedHop {
  readonly address: string;
  readonly port: number;
  /** Everything said by clients, one entry a command, in order; the content of a message as "CONTENT". */
  readonly lines: string[];
  /** The same, with where it was said. */
  readonly said: Said[];
  /** Contents received whole, wire form without the final dot; empty buffers with `digestsOnly`. */
  readonly contents: Buffer[];
  /** SHA-256 of each content, hexadecimal. */
  readonly digests: string[];
  /** Octets of content received so far, of those not whole too. */
  readonly contentBytes: () => number;
  readonly connections: () => number;
  /** Connections that are open now. */
  readonly open: () => number;
  /** Their sockets, for a server that speaks or goes unasked. */
  readonly sockets: () => Socket[];
  /** Resolves when the condition holds; it is looked at whenever something happens here. */
  until(condition: () => boolean): Promise<void>;
  /** Ends all connections, but goes on listening. */
  drop(): void;
  close(): Promise<void>;
}

const untilDeadlineMs = 20_000;

/** What a sound server says. */
export const usualReplies: Readonly<Record<string, string>> = {
  CONNECT: "220 hop.example ESMTP",
  HELO: "250 hop.example",
  EHLO: "250-hop.example\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 STARTTLS",
  STARTTLS: "220 go ahead",
  MAIL: "250 2.1.0 ok",
  RCPT: "250 2.1.5 ok",
  DATA: "354 go ahead",
  CONTENT: "250 2.0.0 taken",
  RSET: "250 2.0.0 ok",
  NOOP: "250 2.0.0 ok",
  QUIT: "221 2.0.0 bye",
};

export interface ScriptedHopOptions {
  readonly cert: string;
  readonly key: string;
  readonly script?: Script;
  readonly address?: string;
  readonly port?: number;
  /** TLS from the first octet. */
  readonly implicitTls?: boolean;
  /** Keeps no content, for messages that are large. */
  readonly digestsOnly?: boolean;
}

export async function startScriptedHop(options: ScriptedHopOptions): Promise<ScriptedHop> {
  const address = options.address ?? "127.0.0.1";
  const lines: string[] = [];
  const said: Said[] = [];
  const contents: Buffer[] = [];
  const digests: string[] = [];
  const sockets = new Map<Socket, Socket>();
  const watchers = new Set<() => void>();
  let connections = 0;
  let contentBytes = 0;
  const context = createSecureContext({ cert: options.cert, key: options.key });
  const happened = () => {
    for (const watcher of watchers) watcher();
  };
  const server = createServer((raw) => {
    sockets.set(raw, raw);
    raw.on("close", () => {
      sockets.delete(raw);
      happened();
    });
    raw.on("error", () => undefined);
    raw.setNoDelay(true); // pipelined commands are answered one by one
    connections += 1;
    happened();
    void serve(raw, connections);
  });

  async function serve(raw: Socket, connection: number): Promise<void> {
    const secured = (): TLSSocket => {
      const secure = new TLSSocket(raw, { isServer: true, secureContext: context });
      secure.on("error", () => undefined);
      secure.on("end", () => raw.destroy()); // a client that has ended says no more
      return secure;
    };
    let socket: Socket = options.implicitTls === true ? secured() : raw;
    if (socket !== raw) sockets.set(raw, socket);
    let input = new Input(socket);
    /** What has been accepted in the transaction under way. */
    let transaction: { recipients: number } | undefined;

    const answer = async (verb: string, line: string): Promise<boolean> => {
      const given = (await options.script?.(verb, line, connection)) ?? inOrder(verb, transaction) ?? "500 5.5.2 what?";
      if (typeof given === "string") socket.write(`${given}\r\n`);
      else if ("raw" in given) socket.write(given.raw);
      else if ("bytewise" in given) await bytewise(socket, `${given.bytewise}\r\n`);
      else if ("last" in given) socket.end(given.last);
      else if ("close" in given) socket.destroy();
      if (typeof given !== "string" && ("silent" in given || "last" in given)) input.detach();
      if (typeof given !== "string" && "raw" in given) return given.positive === true;
      const text = typeof given === "string" ? given : "bytewise" in given ? given.bytewise : "";
      return /^[23]/.test(text);
    };

    await answer("CONNECT", "");
    for (let line = await input.line(); line !== undefined; line = await input.line()) {
      lines.push(line);
      said.push({ connection, secure: socket !== raw, line });
      happened();
      const verb = line.split(/[ :]/)[0]?.toUpperCase() ?? "";
      const positive = await answer(verb, line);
      happened();
      if (verb === "MAIL" && positive) transaction = { recipients: 0 };
      if (verb === "RCPT" && positive && transaction !== undefined) transaction.recipients += 1;
      if (verb === "RSET" || verb === "EHLO") transaction = undefined;
      if (verb === "QUIT") socket.end();
      if (verb === "STARTTLS" && positive) {
        input.detach();
        socket = secured();
        sockets.set(raw, socket);
        input = new Input(socket);
      }
      if (verb === "DATA" && positive) {
        const digest = createHash("sha256");
        const kept: Buffer[] = [];
        const whole = await input.content((piece) => {
          contentBytes += piece.length;
          digest.update(piece);
          if (options.digestsOnly !== true) kept.push(piece);
          happened();
          const given = options.script?.("PIECE", "", connection);
          if (typeof given === "string") socket.write(`${given}\r\n`);
        });
        if (!whole) return;
        contents.push(Buffer.concat(kept));
        digests.push(digest.digest("hex"));
        lines.push("CONTENT");
        said.push({ connection, secure: socket !== raw, line: "CONTENT" });
        happened();
        transaction = undefined;
        await answer("CONTENT", "");
        happened();
      }
    }
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, address, resolve);
  });
  const drop = () => {
    for (const socket of sockets.keys()) socket.destroy();
  };
  return {
    address,
    port: (server.address() as AddressInfo).port, // a TCP server that listens
    lines,
    said,
    contents,
    digests,
    contentBytes: () => contentBytes,
    connections: () => connections,
    open: () => sockets.size,
    sockets: () => [...sockets.values()],
    until: (condition) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          watchers.delete(look);
          reject(new Error(`${condition.toString()} did not come true; the hop was told:\n${lines.join("\n")}`));
        }, untilDeadlineMs);
        const look = () => {
          if (!condition()) return;
          clearTimeout(timer);
          watchers.delete(look);
          resolve();
        };
        watchers.add(look);
        look();
      }),
    drop,
    close: () =>
      new Promise((resolve) => {
        drop();
        server.close(() => resolve());
      }),
  };
}

/** The usual reply, if the command is in its place (RFC 5321 §4.1.4). */
function inOrder(verb: string, transaction: { recipients: number } | undefined): string | undefined {
  if (verb === "MAIL" && transaction !== undefined) return "503 5.5.1 nested MAIL";
  if (verb === "RCPT" && transaction === undefined) return "503 5.5.1 MAIL first";
  if (verb === "DATA" && transaction === undefined) return "503 5.5.1 MAIL first";
  if (verb === "DATA" && transaction?.recipients === 0) return "554 5.5.1 no valid recipients";
  return usualReplies[verb];
}

async function bytewise(socket: Socket, text: string): Promise<void> {
  for (const octet of Buffer.from(text)) {
    socket.write(Buffer.of(octet));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** What comes in over a socket, by lines or as content. */
class Input {
  readonly #socket: Socket;
  #buffered: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => undefined;
  readonly #onData = (octets: Buffer): void => {
    this.#buffered = this.#buffered.length === 0 ? octets : Buffer.concat([this.#buffered, octets]);
    this.#wake();
  };
  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#wake();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", this.#onData).on("end", this.#onEnd).on("close", this.#onEnd);
  }

  /** Hears no more; what comes is read by somebody else, or dropped. */
  detach(): void {
    this.#socket.off("data", this.#onData);
    this.#buffered = Buffer.alloc(0);
  }

  /** The next line without its CRLF; undefined at the end of the connection. */
  async line(): Promise<string | undefined> {
    for (;;) {
      const end = this.#buffered.indexOf("\r\n");
      if (end >= 0) {
        const line = this.#buffered.toString("utf8", 0, end);
        this.#buffered = this.#buffered.subarray(end + 2);
        return line;
      }
      if (this.#ended) return undefined;
      await this.#more();
    }
  }

  /** Hands on a content in pieces, up to the final dot; false if the connection ends before it. */
  async content(take: (piece: Buffer) => void): Promise<boolean> {
    let atStart = true; // nothing but the final dot may be all there is
    for (;;) {
      if (atStart && this.#buffered.length >= 3) {
        atStart = false;
        if (this.#buffered.subarray(0, 3).equals(Buffer.from(".\r\n"))) {
          this.#buffered = this.#buffered.subarray(3);
          return true;
        }
      }
      const end = this.#buffered.indexOf("\r\n.\r\n");
      if (end >= 0) {
        take(this.#buffered.subarray(0, end + 2));
        this.#buffered = this.#buffered.subarray(end + 5);
        return true;
      }
      if (this.#ended) return false;
      // The end mark may begin in what is there: its first four octets wait.
      const sure = this.#buffered.length - 4;
      if (!atStart && sure > 0) {
        take(this.#buffered.subarray(0, sure));
        this.#buffered = this.#buffered.subarray(sure);
      }
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
