/**
 * A next hop that answers as a test tells it: each command is looked up in a script, which gives the reply, or says to
 * close, to be silent, or to send it in pieces. STARTTLS with a given certificate works as it should unless the script
 * says otherwise. It records what it was told.
 */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { createSecureContext, TLSSocket } from "node:tls";

export type Answer =
  | string // a reply, without the final CRLF
  | { readonly close: true }
  | { readonly silent: true }
  | { readonly raw: Buffer | string }; // octets as they are

/** `verb` is in capitals: CONNECT for the greeting, CONTENT for the end of data. Undefined: the usual reply. */
export type Script = (verb: string, line: string, connection: number) => Answer | undefined;

export interface ScriptedHop {
  readonly address: string;
  readonly port: number;
  /** Everything said by clients, one entry a command, in order; the content of a message as "CONTENT". */
  readonly lines: string[];
  /** Contents received whole, wire form without the final dot. */
  readonly contents: Buffer[];
  readonly connections: () => number;
  close(): Promise<void>;
}

const usual: Record<string, string> = {
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

export async function startScriptedHop(options: {
  readonly cert: string;
  readonly key: string;
  readonly script?: Script;
  readonly address?: string;
  readonly port?: number;
}): Promise<ScriptedHop> {
  const address = options.address ?? "127.0.0.1";
  const lines: string[] = [];
  const contents: Buffer[] = [];
  const sockets = new Set<Socket>();
  let connections = 0;
  const context = createSecureContext({ cert: options.cert, key: options.key });
  const server = createServer((raw) => {
    sockets.add(raw);
    raw.on("close", () => sockets.delete(raw)).on("error", () => undefined);
    connections += 1;
    serve(raw, connections);
  });

  function serve(raw: Socket, connection: number): void {
    let socket: Socket = raw;
    let buffered = Buffer.alloc(0);
    let inContent = false;
    const answer = (verb: string, line: string): boolean => {
      const given = options.script?.(verb, line, connection) ?? usual[verb] ?? "500 5.5.2 what?";
      if (typeof given === "string") socket.write(`${given}\r\n`);
      else if ("raw" in given) socket.write(given.raw);
      else if ("close" in given) socket.destroy();
      return typeof given === "string" && /^[23]/.test(given);
    };
    const onData = (octets: Buffer) => {
      buffered = Buffer.concat([buffered, octets]);
      for (;;) {
        if (inContent) {
          const end = buffered.indexOf("\r\n.\r\n");
          const empty = buffered.subarray(0, 3).equals(Buffer.from(".\r\n"));
          if (end < 0 && !empty) return;
          contents.push(buffered.subarray(0, empty ? 0 : end + 2));
          buffered = buffered.subarray(empty ? 3 : end + 5);
          inContent = false;
          lines.push("CONTENT");
          answer("CONTENT", "");
          continue;
        }
        const end = buffered.indexOf("\r\n");
        if (end < 0) return;
        const line = buffered.toString("latin1", 0, end);
        buffered = buffered.subarray(end + 2);
        lines.push(line);
        const verb = line.split(/[ :]/)[0]?.toUpperCase() ?? "";
        const positive = answer(verb, line);
        if (verb === "DATA" && positive) inContent = true;
        if (verb === "QUIT") socket.end();
        if (verb === "STARTTLS" && positive) {
          socket.off("data", onData);
          buffered = Buffer.alloc(0);
          socket = new TLSSocket(raw, { isServer: true, secureContext: context });
          socket.on("error", () => undefined).on("data", onData);
        }
      }
    };
    socket.on("data", onData);
    answer("CONNECT", "");
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, address, resolve);
  });
  return {
    address,
    port: (server.address() as AddressInfo).port, // a TCP server that listens
    lines,
    contents,
    connections: () => connections,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}
