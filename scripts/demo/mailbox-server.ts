/**
 * A small internal mail server for the demo and the tests: takes every recipient over STARTTLS and writes Maildirs, the
 * content exactly as it came. It is no part of the relay.
 */
import { randomBytes } from "node:crypto";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SMTPServer, type SMTPServerAddress } from "smtp-server";

export interface MailboxServerOptions {
  readonly address: string;
  /** 0: the system chooses. */
  readonly port: number;
  readonly certificate: string;
  readonly key: string;
  /** One Maildir a recipient below it, named by the address. */
  readonly maildirs: string;
  /** Recipients that are refused, with the reply. */
  readonly refuse?: (address: string) => { readonly code: number; readonly text: string } | undefined;
}

export interface MailboxServer {
  readonly port: number;
  close(): Promise<void>;
}

export async function startMailboxServer(options: MailboxServerOptions): Promise<MailboxServer> {
  const server = new SMTPServer({
    name: "mail1.corp.example",
    cert: options.certificate,
    key: options.key,
    authOptional: true,
    disabledCommands: ["AUTH"],
    disableReverseLookup: true,
    hideDSN: false,
    logger: false,
    onRcptTo({ address }, _session, callback) {
      const refusal = options.refuse?.(address);
      callback(refusal === undefined ? null : Object.assign(new Error(refusal.text), { responseCode: refusal.code }));
    },
    onData(stream, session, callback) {
      const pieces: Buffer[] = [];
      stream.on("data", (piece: Buffer) => pieces.push(piece));
      stream.on("end", () => {
        const content = Buffer.concat(pieces);
        Promise.all(session.envelope.rcptTo.map((recipient) => deliver(options.maildirs, recipient, content))).then(
          () => callback(null, "delivered"),
          (error: unknown) => callback(error instanceof Error ? error : new Error(String(error))),
        );
      });
    },
  });
  server.on("error", () => undefined); // a client that goes away
  await new Promise<void>((resolve, reject) => {
    server.server.once("error", reject);
    server.listen(options.port, options.address, resolve);
  });
  const bound = server.server.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : options.port;
  return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

/** Maildir: written in tmp, then renamed to new. */
async function deliver(maildirs: string, { address }: SMTPServerAddress, content: Buffer): Promise<void> {
  const maildir = join(maildirs, address.replaceAll(/[^A-Za-z0-9@.+_-]/g, "_"));
  for (const folder of ["tmp", "new", "cur"]) await mkdir(join(maildir, folder), { recursive: true });
  const name = `${Date.now()}.${randomBytes(6).toString("hex")}.mail1`;
  await writeFile(join(maildir, "tmp", name), content);
  await rename(join(maildir, "tmp", name), join(maildir, "new", name));
}
