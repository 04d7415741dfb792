/**
 * What the tests of the spool share: a folder, envelopes, messages small and large, and ways to take them out again.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { parseForwardPath, parseReversePath } from "../../src/mail/address.ts";
import type { Envelope } from "../../src/mail/envelope.ts";
import type { ClaimedMessage, Deferral, DropBox, MessageMeta, Spool } from "../../src/spool/spool.ts";

/** A folder of the test's own, removed when it ends. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-spool-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

export function envelope(to: readonly string[] = ["orders@corp.example"], from = "a@acme.example"): Envelope {
  const reversePath = parseReversePath(from, true);
  if (reversePath.kind === "fault") throw new Error(`${from}: ${reversePath.fault}`);
  const recipients = to.map((address) => {
    const path = parseForwardPath(address, true);
    if (path.kind === "fault") throw new Error(`${address}: ${path.fault}`);
    return { path: path.value };
  });
  return { reversePath: reversePath.value, recipients, body: "7bit", smtpUtf8: false };
}

export interface MessageOptions {
  readonly to?: readonly string[];
  readonly from?: string;
  readonly partner?: string | null;
  readonly toPartner?: string | null;
  readonly content?: Buffer;
  readonly receivedAtMs?: number;
}

/** A content that is committed inline, different for each text. */
export function small(text = "hello"): Buffer {
  return Buffer.from(`Subject: ${text}\r\n\r\n${text}\r\n`);
}

/** A content that gets a file of its own. */
export function large(text = "large", bytes = 200_000): Buffer {
  const line = `${text} `.repeat(70 / (text.length + 1)).padEnd(70, ".");
  return Buffer.from(`Subject: ${text}\r\n\r\n${`${line}\r\n`.repeat(Math.ceil(bytes / 72))}`);
}

/** Writes a message; gives how to commit it. What fails leaves no draft open. */
async function draft(dropBox: DropBox, options: MessageOptions): Promise<() => Promise<MessageMeta>> {
  const content = options.content ?? small();
  const opened = dropBox.receive();
  try {
    for (let from = 0; from < content.length; from += 50_000) {
      await opened.write(Buffer.from(content.subarray(from, from + 50_000)));
    }
  } catch (error) {
    await opened.discard();
    throw error;
  }
  return () =>
    opened.commit({
      receivedAtMs: options.receivedAtMs ?? 1_000,
      partner: options.partner === undefined ? "acme" : options.partner,
      toPartner: options.toPartner ?? null,
      envelope: envelope(options.to, options.from),
      session: { id: "s1", address: "127.0.0.11", helo: "mx.acme.example" },
      sizeBytes: content.length,
      headerBytes: Math.max(0, content.indexOf("\r\n\r\n") + 2),
      eightBit: false,
    });
}

/** Commits a message and gives its meta-data. */
export async function receive(dropBox: DropBox, options: MessageOptions = {}): Promise<MessageMeta> {
  const commit = await draft(dropBox, options);
  return commit();
}

/** Commits messages in one turn of the event loop: the directory driver puts them into one batch. */
export async function receiveTogether(dropBox: DropBox, messages: readonly MessageOptions[]): Promise<MessageMeta[]> {
  const commits = await Promise.all(messages.map((options) => draft(dropBox, options)));
  return Promise.all(commits.map((commit) => commit()));
}

export const plenty = { nowMs: 10_000, countMax: 1_000 };

export function claimNew(spool: Spool, nowMs = plenty.nowMs): Promise<ClaimedMessage[]> {
  return spool.claimNew({ nowMs, countMax: plenty.countMax });
}

export function claimDue(spool: Spool, nowMs = plenty.nowMs): Promise<ClaimedMessage[]> {
  return spool.claimDue({ nowMs, countMax: plenty.countMax, busyRoutes: [] });
}

/** Takes the one message that must be there. */
export function only<T>(items: readonly T[]): T {
  const [first, ...others] = items;
  if (first === undefined || others.length > 0) throw new Error(`${items.length} where one was expected`);
  return first;
}

export async function contentOf(message: ClaimedMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of message.readContent()) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** All its recipients are delivered. */
export async function deliver(spool: Spool, message: ClaimedMessage): Promise<void> {
  spool.settle(
    message,
    message.pending.map(({ index }) => index),
    "delivered",
  );
  await spool.putBack(message, { deferred: [], attempts: [], delayReported: message.delayReported });
}

/** All its recipients have to wait. */
export async function defer(
  spool: Spool,
  message: ClaimedMessage,
  nextAttemptAtMs: number,
  route: string | null = "internal",
): Promise<void> {
  const deferred: Deferral[] = message.pending.map(({ index, attempts }) => ({
    index,
    route,
    attempts: attempts + 1,
    nextAttemptAtMs,
  }));
  const recipients = message.pending.map(({ index }) => index);
  const attempts = [{ atMs: 5_000, recipients, server: "mail1 127.0.0.1:25", text: "451 4.3.0 later" }];
  await spool.putBack(message, { deferred, attempts, delayReported: message.delayReported });
}

export function idsOf(messages: ReadonlyArray<{ readonly meta: MessageMeta }>): string[] {
  return messages.map(({ meta }) => meta.id);
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}
