/**
 * Runs swaks, the SMTP test client in Perl, against a server: another TLS stack's driver and another SMTP implementation
 * than ours. The result is its transcript; a refusal by the server is a result too, not a fault.
 */

import type { KeyPair } from "./certificates.ts";
import { run } from "./processes.ts";
import type { SmtpReply } from "./smtp-client.ts";

export interface SwaksOptions {
  server: { address: string; port: number };
  /** The loopback address that stands for the client. */
  localAddress: string;
  from: string;
  to: string | string[];
  tls: "starttls" | "implicit" | "none";
  certificate?: KeyPair;
  /** The EHLO name. */
  ehlo?: string;
  /** Header and body, lines ended by LF or CRLF. Default: swaks's own test message. */
  data?: string | Buffer;
  /** Stop after this step: CONNECT, FIRST-EHLO, TLS, EHLO, MAIL, RCPT, … */
  quitAfter?: string;
  /** Further arguments, such as `["--tls-protocol", "tlsv1_1"]`. */
  args?: string[];
  deadlineMs?: number;
}

export interface SwaksResult {
  /** 0: everything was accepted. swaks(1), EXIT CODES. */
  code: number | null;
  transcript: string;
  /** The server's replies in order, the greeting first. */
  replies: SmtpReply[];
}

export async function swaks(options: SwaksOptions): Promise<SwaksResult> {
  const { server, certificate, data } = options;
  const tls = { starttls: ["--tls"], implicit: ["--tls-on-connect"], none: [] }[options.tls];
  const args = [
    ["--server", server.address, "--port", String(server.port), "--local-interface", options.localAddress],
    ["--helo", options.ehlo ?? "swaks.test.invalid"],
    ["--from", options.from, "--to", [options.to].flat().join(",")],
    tls,
    certificate ? ["--tls-cert", certificate.certificateFile, "--tls-key", certificate.keyFile] : [],
    data === undefined ? [] : ["--data", "-"],
    options.quitAfter === undefined ? [] : ["--quit-after", options.quitAfter],
    options.args ?? [],
  ];
  const { code, stdout, stderr } = await run("swaks", args.flat(), {
    ...(data !== undefined && { input: data }),
    ...(options.deadlineMs !== undefined && { deadlineMs: options.deadlineMs }),
  });
  const transcript = stdout.toString() + stderr;
  return { code, transcript, replies: repliesIn(transcript) };
}

/** swaks marks what it receives: `<-` in the clear, `<~` in TLS, with a `*` where it had wanted another reply. */
function repliesIn(transcript: string): SmtpReply[] {
  const replies: SmtpReply[] = [];
  let lines: string[] = [];
  for (const [, line = ""] of transcript.matchAll(/^<[-~*]{1,2} +(\d{3}(?:[ -].*)?)$/gm)) {
    lines.push(line);
    if (line[3] === "-") continue;
    replies.push({ code: Number(line.slice(0, 3)), lines });
    lines = [];
  }
  return replies;
}
