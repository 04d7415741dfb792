/**
 * Hands a message to a mail server on loopback with full control of the envelope. Fails if the server takes less than all
 * of it.
 */

import { SmtpClient } from "./smtp-client.ts";

export interface Submission {
  /** The reverse-path without angle brackets; empty for the null reverse-path. */
  from: string;
  to: string | string[];
  /** The content on the wire before dot-stuffing: lines end with CRLF. */
  message: Buffer;
  /** Announce BODY=8BITMIME. Default: whether the message has bytes above 127. */
  eightBit?: boolean;
  /** Announce SMTPUTF8. Default: whether an address has characters above 127. */
  smtpUtf8?: boolean;
  dsn?: { notify?: ("NEVER" | "SUCCESS" | "FAILURE" | "DELAY")[]; ret?: "FULL" | "HDRS"; envid?: string };
}

/** Sends the message to 127.0.0.1:`port` in plain SMTP and returns the queue id from Postfix's reply. */
export async function submit(port: number, submission: Submission): Promise<string> {
  const { from, message, dsn } = submission;
  const recipients = [submission.to].flat();
  const eightBit = submission.eightBit ?? hasHighBytes(message);
  const smtpUtf8 = submission.smtpUtf8 ?? hasHighBytes(Buffer.from([from, ...recipients].join("")));
  const mail = [`MAIL FROM:<${from}>`];
  if (eightBit) mail.push("BODY=8BITMIME");
  if (smtpUtf8) mail.push("SMTPUTF8");
  if (dsn?.ret) mail.push(`RET=${dsn.ret}`);
  if (dsn?.envid) mail.push(`ENVID=${dsn.envid}`);
  const notify = dsn?.notify ? ` NOTIFY=${dsn.notify.join(",")}` : "";

  const { client } = await SmtpClient.open({ address: "127.0.0.1", port });
  try {
    await client.expect(250, "EHLO test.invalid");
    await client.expect(250, mail.join(" "));
    for (const recipient of recipients) await client.expect(250, `RCPT TO:<${recipient}>${notify}`);
    await client.expect(354, "DATA");
    const reply = await client.content(message);
    const queued = /queued as (\S+)/.exec(reply.lines.join(" "))?.[1];
    if (reply.code !== 250 || queued === undefined) throw new Error(`not taken: ${reply.lines.join(" / ")}`);
    await client.quit();
    return queued;
  } finally {
    client.destroy();
  }
}

function hasHighBytes(bytes: Buffer): boolean {
  return bytes.some((byte) => byte > 127);
}
