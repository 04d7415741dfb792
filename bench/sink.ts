/**
 * Where benchmarked servers deliver to: takes everything over STARTTLS, counts messages, and finds duplicates by their
 * `X-Bench-Id`. A process of its own; it answers `count` over its channel. The same for every server that is measured.
 */
import { createServer, type Socket } from "node:net";
import { createSecureContext, TLSSocket } from "node:tls";
import { readFileSync } from "node:fs";

const [address = "127.0.0.21", certificateFile = "", keyFile = ""] = process.argv.slice(2);
const secureContext = createSecureContext({ cert: readFileSync(certificateFile), key: readFileSync(keyFile) });
const seen = new Map<string, number>();
let lastAtMs = 0;

const ehlo = "250-sink\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250-DSN\r\n";

function serve(raw: Socket): void {
  raw.setNoDelay(true);
  raw.on("error", () => undefined);
  raw.write("220 sink ESMTP\r\n");
  read(raw, raw, false);
}

function read(socket: Socket, raw: Socket, secure: boolean): void {
  let head: Buffer | undefined;
  let tail: Buffer = Buffer.alloc(0);
  let inContent = false;
  socket.on("error", () => undefined);
  socket.on("data", (octets: Buffer) => {
    let rest: Buffer = tail.length === 0 ? octets : Buffer.concat([tail, octets]);
    tail = Buffer.alloc(0);
    const answers: string[] = [];
    for (;;) {
      if (inContent) {
        const end = rest.indexOf("\r\n.\r\n");
        if (end < 0) {
          if (rest.length > 4) head ??= rest.subarray(0, 4096);
          tail = rest.subarray(Math.max(0, rest.length - 4));
          break;
        }
        note(head ?? rest.subarray(0, 4096));
        head = undefined;
        rest = rest.subarray(end + 5);
        inContent = false;
        answers.push("250 2.0.0 taken");
        continue;
      }
      const end = rest.indexOf("\r\n");
      if (end < 0) {
        tail = rest;
        break;
      }
      const verb = rest.toString("latin1", 0, Math.min(end, 4)).toUpperCase();
      rest = rest.subarray(end + 2);
      if (verb === "DATA") {
        answers.push("354 go ahead");
        inContent = true;
      } else if (verb === "EHLO") {
        answers.push(`${ehlo}250 ${secure ? "ENHANCEDSTATUSCODES" : "STARTTLS"}`);
      } else if (verb === "STAR") {
        socket.removeAllListeners("data");
        socket.write("220 go ahead\r\n");
        read(new TLSSocket(raw, { isServer: true, secureContext }), raw, true);
        return;
      } else if (verb === "QUIT") {
        socket.end(`${[...answers, "221 bye"].join("\r\n")}\r\n`);
        return;
      } else {
        answers.push("250 2.0.0 ok");
      }
    }
    if (answers.length > 0) socket.write(`${answers.join("\r\n")}\r\n`);
  });
}

function note(head: Buffer): void {
  const id = /^X-Bench-Id: (\S+)/m.exec(head.toString("latin1"))?.[1] ?? "none";
  seen.set(id, (seen.get(id) ?? 0) + 1);
  lastAtMs = Date.now();
}

const server = createServer(serve);
server.listen(0, address, () => {
  const bound = server.address();
  process.send?.({ kind: "listening", port: typeof bound === "object" && bound !== null ? bound.port : 0 });
});
process.on("message", (question: unknown) => {
  const duplicates = [...seen.values()].filter((count) => count > 1).length;
  process.send?.({ kind: "count", messages: seen.size, duplicates, lastAtMs });
  if (question === "reset") seen.clear();
});
process.on("disconnect", () => process.exit());
