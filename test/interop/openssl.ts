/**
 * `openssl s_client` as an SMTP client: it does STARTTLS itself, shows what was negotiated, and then passes every octet of
 * a scripted dialogue through as given, wrong line ends included.
 *
 * A refusal, a failed handshake and a closed connection are results: the dialogue ends there, and the transcript says how
 * far it came.
 */

import { spawn } from "node:child_process";
import type { KeyPair } from "./certificates.ts";
import type { SmtpReply } from "./smtp-client.ts";

export interface SClientOptions {
  server: { address: string; port: number };
  /** The loopback address that stands for the client. */
  localAddress: string;
  tls: "starttls" | "implicit";
  certificate?: KeyPair;
  /** The EHLO name before STARTTLS. */
  ehlo?: string;
  serverName?: string;
  /** Further arguments, such as `["-tls1_1"]`, `["-groups", "P-384"]`, `["-sess_out", file]`. */
  args?: string[];
  /**
   * What is sent, each after the reply to the one before. A string is a line and gets its CRLF; a Buffer is sent as it is,
   * and must provoke exactly one reply too.
   */
  script: (string | Buffer)[];
  deadlineMs?: number;
}

export interface SClientResult {
  /** openssl's exit status; null where we ended it because the script was done and the server kept the connection. */
  code: number | null;
  /** Both directions inside TLS, `C: ` and `S: ` before each line. */
  transcript: string;
  /** The replies to the script, in order; fewer than its items where the server ended the dialogue. With implicit TLS the
   * greeting stands first. */
  replies: SmtpReply[];
  /** What openssl reports of connection and handshake: protocol version, ciphersuite, verification, alerts. */
  handshake: string;
}

export async function sClient(options: SClientOptions): Promise<SClientResult> {
  const dialogue = new Dialogue(options);
  try {
    if (options.tls === "implicit") await dialogue.reply();
    for (const item of options.script) {
      dialogue.send(item);
      await dialogue.reply();
    }
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
  } finally {
    await dialogue.end();
  }
  return dialogue.result();
}

class Closed extends Error {}

class Dialogue {
  readonly #child;
  readonly #exit: Promise<void>;
  readonly #transcript: string[] = [];
  readonly #replies: SmtpReply[] = [];
  #handshake = "";
  #unread = "";
  #closed = false;
  #late = false;
  #wake: (() => void) | undefined;

  constructor(options: SClientOptions) {
    const { server, certificate } = options;
    const args = [
      ["s_client", "-connect", `${server.address}:${server.port}`, "-bind", `${options.localAddress}:0`],
      // Without -nocommands, R and Q at the start of a line (RCPT, QUIT) would be orders to openssl.
      ["-brief", "-nocommands", "-ign_eof"],
      options.tls === "starttls" ? ["-starttls", "smtp", "-name", options.ehlo ?? "openssl.test.invalid"] : [],
      options.serverName === undefined ? ["-noservername"] : ["-servername", options.serverName],
      certificate ? ["-cert", certificate.certificateFile, "-key", certificate.keyFile] : [],
      options.args ?? [],
    ];
    this.#child = spawn("openssl", args.flat());
    this.#child.stdin.on("error", () => undefined); // Its end is noticed below.
    this.#child.stdout.setEncoding("latin1").on("data", (text: string) => {
      this.#unread += text;
      this.#wake?.();
    });
    this.#child.stderr.setEncoding("latin1").on("data", (text: string) => {
      this.#handshake += text;
    });
    const deadline = setTimeout(() => {
      this.#late = true;
      this.#child.kill("SIGKILL");
    }, options.deadlineMs ?? 60_000);
    this.#exit = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("close", () => {
        clearTimeout(deadline);
        this.#closed = true;
        this.#wake?.();
        resolve();
      });
    });
  }

  send(item: string | Buffer): void {
    const bytes = typeof item === "string" ? Buffer.from(`${item}\r\n`) : item;
    this.#record("C", bytes.toString("latin1").replace(/\r\n$/, ""));
    this.#child.stdin.write(bytes);
  }

  async reply(): Promise<void> {
    const lines: string[] = [];
    for (;;) {
      const line = await this.#line();
      this.#record("S", line);
      lines.push(line);
      if (line[3] === "-") continue;
      this.#replies.push({ code: Number(line.slice(0, 3)), lines });
      return;
    }
  }

  /** After QUIT the server closes; a server that still waits for us is left by ending our own child. */
  async end(): Promise<void> {
    const said = this.#replies.at(-1);
    const serverCloses = said?.code === 221 || said?.code === 421;
    if (!this.#closed && !serverCloses) this.#child.kill("SIGTERM");
    await this.#exit;
  }

  result(): SClientResult {
    if (this.#late) throw new Error(`openssl s_client: not done by its deadline\n${this.#transcript.join("\n")}`);
    return {
      code: this.#child.exitCode,
      transcript: this.#transcript.map((line) => `${line}\n`).join(""),
      replies: this.#replies,
      handshake: this.#handshake,
    };
  }

  #record(side: "C" | "S", text: string): void {
    for (const line of text.split("\r\n")) this.#transcript.push(`${side}: ${line}`);
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#unread.indexOf("\n");
      if (end >= 0) {
        const line = this.#unread.slice(0, end).replace(/\r$/, "");
        this.#unread = this.#unread.slice(end + 1);
        return line;
      }
      if (this.#closed) throw new Closed();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
