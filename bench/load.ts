/**
 * A partner under load: some connections, each sending messages one after the other over STARTTLS with its certificate,
 * pipelined as Postfix would. A process of its own; prints one JSON object. The same for every server that is measured.
 */
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

interface Job {
  readonly host: string;
  readonly port: number;
  readonly from: string;
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly connections: number;
  readonly messages: number;
  readonly sizeBytes: number;
  readonly messagesPerConnection: number;
  readonly run: string;
}

const job = JSON.parse(process.argv[2] ?? "{}") as Job;
const identity = { cert: readFileSync(job.certificateFile), key: readFileSync(job.keyFile) };
const line = `${"The quick brown fox jumps over the lazy dog, again and again. ".padEnd(74, ".")}\r\n`;
const latenciesMs: number[] = [];
let next = 0;
let accepted = 0;

class Client {
  #socket: Socket;
  #received = "";
  #waiting: { replies: number; resolve: (text: string) => void; reject: (error: Error) => void } | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#listen();
  }

  static async open(): Promise<Client> {
    const raw = connect({ host: job.host, port: job.port, localAddress: job.from });
    raw.setNoDelay(true);
    const client = new Client(raw);
    await client.#replies(1);
    await client.say("EHLO mx.acme.example\r\n", 1);
    await client.say("STARTTLS\r\n", 1);
    raw.removeAllListeners();
    client.#socket = connectTls({ socket: raw, rejectUnauthorized: false, ...identity });
    await new Promise((resolve, reject) => client.#socket.once("secureConnect", resolve).once("error", reject));
    client.#listen();
    await client.say("EHLO mx.acme.example\r\n", 1);
    return client;
  }

  say(text: string, replies: number): Promise<string> {
    const answered = this.#replies(replies);
    this.#socket.write(text);
    return answered;
  }

  end(): void {
    this.#socket.end("QUIT\r\n");
  }

  #replies(count: number): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiting = { replies: count, resolve, reject };
      this.#look();
    });
  }

  #listen(): void {
    this.#socket.on("data", (octets: Buffer) => {
      this.#received += octets.toString("latin1");
      this.#look();
    });
    const failed = (error?: unknown) =>
      this.#waiting?.reject(new Error(`the connection ended: ${this.#received}`, { cause: error }));
    this.#socket.on("error", failed).on("close", failed);
  }

  #look(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const finals = this.#received.match(/^\d{3} .*\r\n/gm) ?? [];
    if (finals.length < waiting.replies) return;
    const text = this.#received;
    this.#received = "";
    this.#waiting = undefined;
    waiting.resolve(text);
  }
}

function content(id: string): string {
  const header = `From: a@acme.example\r\nTo: orders@corp.example\r\nSubject: bench\r\nMessage-ID: <${id}@acme.example>\r\nX-Bench-Id: ${id}\r\n\r\n`;
  const lines = Math.max(1, Math.round((job.sizeBytes - header.length) / line.length));
  return header + line.repeat(lines);
}

const body = content("ID");

async function work(): Promise<void> {
  while (next < job.messages) {
    const client = await Client.open();
    for (let sent = 0; sent < job.messagesPerConnection && next < job.messages; sent++) {
      const id = `${job.run}-${next++}`;
      const begun = performance.now();
      const envelope = await client.say("MAIL FROM:<a@acme.example>\r\nRCPT TO:<orders@corp.example>\r\nDATA\r\n", 3);
      if (!envelope.includes("\r\n354") && !envelope.startsWith("354")) throw new Error(envelope);
      const reply = await client.say(
        `${body.replaceAll("ID@", `${id}@`).replace("X-Bench-Id: ID", `X-Bench-Id: ${id}`)}.\r\n`,
        1,
      );
      if (!reply.startsWith("250")) throw new Error(reply);
      accepted += 1;
      latenciesMs.push(performance.now() - begun);
    }
    client.end();
  }
}

const begun = performance.now();
const startedAtMs = Date.now();
await Promise.all(Array.from({ length: job.connections }, () => work()));
const seconds = (performance.now() - begun) / 1000;
latenciesMs.sort((a, b) => a - b);
const percentile = (part: number) =>
  latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * part))] ?? 0;
process.stdout.write(
  JSON.stringify({ accepted, seconds, startedAtMs, p50Ms: percentile(0.5), p99Ms: percentile(0.99) }),
);
process.exit();
