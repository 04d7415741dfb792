/** What the deliverer's tests share: certificates, messages, next hops, and a log that can be waited for. */
import { createHash, X509Certificate } from "node:crypto";
import { createAuthority, issueUnder, openAuthority, type KeyPair } from "../../src/certs/authority.ts";
import { deliveryLimits, type DeliveryLimits } from "../../src/deliverer/limits.ts";
import { createLog, type Log } from "../../src/log/log.ts";
import { parseMailbox, type Mailbox } from "../../src/mail/address.ts";
import type { Envelope, Recipient } from "../../src/mail/envelope.ts";
import type { HopTls, NextHop, Route } from "../../src/partner/partner.ts";
import { spkiDigest, type Digest } from "../../src/partner/pin.ts";
import type { ClaimedMessage, MessageMeta } from "../../src/spool/spool.ts";

const dayMs = 86_400_000;

export interface TestCertificates {
  readonly anchor: X509Certificate;
  readonly server: ServerCertificate;
  readonly other: ServerCertificate;
  /** The key of `server`, in a certificate that has expired. */
  readonly expired: ServerCertificate;
  readonly strangersAnchor: X509Certificate;
}

export interface ServerCertificate {
  readonly cert: string;
  readonly key: string;
  readonly pin: Digest;
}

/** A CA with certificates for `mail1.corp.example` (sound, and one that has expired) and `mail2.corp.example`. */
export async function makeCertificates(): Promise<TestCertificates> {
  const now = new Date();
  const longAgo = new Date(now.getTime() - 60 * dayMs);
  const pair = await createAuthority({ commonName: "test CA", keyType: "ec-p256", days: 365, now: longAgo });
  const strangers = await createAuthority({ commonName: "another CA", keyType: "ec-p256", days: 30, now });
  const authority = openAuthority(pair, now);
  const plan = (name: string, days: number, from: Date) =>
    ({ commonName: name, dnsNames: [name], ipAddresses: [], usages: "server", days, now: from }) as const;
  return {
    anchor: new X509Certificate(pair.certificatePem),
    strangersAnchor: new X509Certificate(strangers.certificatePem),
    server: serverCertificate(await issueUnder(authority, plan("mail1.corp.example", 30, now), "ec-p256")),
    other: serverCertificate(await issueUnder(authority, plan("mail2.corp.example", 30, now), "ec-p256")),
    expired: serverCertificate(await issueUnder(authority, plan("mail1.corp.example", 10, longAgo), "ec-p256")),
  };
}

function serverCertificate({ certificatePem, keyPem }: KeyPair): ServerCertificate {
  return { cert: certificatePem, key: keyPem, pin: spkiDigest(new X509Certificate(certificatePem)) };
}

export function mailbox(address: string): Mailbox {
  const parsed = parseMailbox(address, true);
  if (parsed.kind === "fault") throw new Error(`${address}: ${parsed.fault}`);
  return parsed.value;
}

export function recipient(address: string, more: Omit<Recipient, "path"> = {}): Recipient {
  if (address === "postmaster") return { path: { kind: "postmaster" }, ...more };
  return { path: { kind: "mailbox", mailbox: mailbox(address) }, ...more };
}

export interface MessageShape {
  /** Wire form. */
  readonly content?: Buffer | string;
  /** In place of `content`: read as a stream. */
  readonly stream?: () => AsyncIterable<Buffer>;
  readonly from?: string;
  readonly to?: ReadonlyArray<string | Recipient>;
  readonly envelope?: Partial<Omit<Envelope, "recipients" | "reversePath">>;
  readonly meta?: Partial<MessageMeta>;
  readonly message?: Partial<ClaimedMessage>;
}

/** A message as the spool gives it out, without a spool. */
export function claimedMessage(shape: MessageShape = {}): ClaimedMessage {
  const content = Buffer.from(shape.content ?? "Subject: test\r\n\r\nHello.\r\n");
  const { stream } = shape;
  const envelope = envelopeOf(shape);
  const headerEnd = content.indexOf("\r\n\r\n");
  const meta: MessageMeta = {
    id: "0mabcdefg0123456ab",
    receivedAtMs: 1_790_000_000_000,
    partner: "acme",
    toPartner: null,
    envelope,
    sizeBytes: content.length,
    wireBytes: content.length,
    headerBytes: headerEnd < 0 ? content.length : headerEnd + 2,
    sha256: createHash("sha256").update(content).digest("hex"),
    session: { id: "s1", address: "127.0.0.11", helo: "mx.acme.example" },
    eightBit: content.some((octet) => octet > 127),
    ...shape.meta,
  };
  return {
    meta,
    pending: envelope.recipients.map((_, index) => ({ index, attempts: 0, nextAttemptAtMs: 0 })),
    delayReported: false,
    content: stream === undefined ? content : undefined,
    async *readContent() {
      if (stream === undefined) yield content;
      else yield* stream();
    },
    ...shape.message,
  };
}

export function envelopeOf({ from = "anna@acme.example", to, envelope }: MessageShape): Envelope {
  return {
    reversePath: from === "" ? { kind: "null" } : { kind: "mailbox", mailbox: mailbox(from) },
    recipients: (to ?? ["orders@corp.example"]).map((entry) => (typeof entry === "string" ? recipient(entry) : entry)),
    body: "7bit",
    smtpUtf8: false,
    ...envelope,
  };
}

/** All recipients of a message, to be sent by one route. */
export function addressed(message: ClaimedMessage): Array<{ index: number; mailbox: Mailbox }> {
  return message.pending.map(({ index }) => {
    const path = message.meta.envelope.recipients[index]?.path;
    return { index, mailbox: path?.kind === "mailbox" ? path.mailbox : mailbox("postmaster@corp.example") };
  });
}

const nowhere = { file: "test", line: 1 };

export function pinned(...pins: readonly Digest[]): HopTls {
  return { mode: "required", implicit: false, verification: { kind: "pin", digests: pins } };
}

export function anchored(...anchors: readonly X509Certificate[]): HopTls {
  return { mode: "required", implicit: false, verification: { kind: "trustAnchor", file: "ca.pem", anchors } };
}

export const plaintext: HopTls = { mode: "none" };

export function nextHop(
  at: { readonly address: string; readonly port: number },
  tls: HopTls,
  name: string | undefined = "mail1.corp.example",
): NextHop {
  return { address: at.address, port: at.port, name, tls, source: nowhere };
}

export function routeTo(...servers: readonly NextHop[]): Route {
  return { name: "internal", kind: "internal", domains: ["corp.example"], servers, source: nowhere };
}

/** Deadlines that a silent server reaches soon; a sound one on loopback does not. */
export const shortLimits: DeliveryLimits = {
  ...deliveryLimits,
  connectTimeoutMs: 600,
  greetingTimeoutMs: 600,
  replyTimeoutMs: 600,
  blockTimeoutMs: 600,
  endTimeoutMs: 600,
  quitTimeoutMs: 100,
};

/** Deadlines so far away that a test which needs one of them fails. */
export const patientLimits: DeliveryLimits = { ...deliveryLimits, idleConnectionMs: 60_000 };

export type LogEvent = Readonly<Record<string, unknown>> & { readonly event: string };

export interface WatchedLog {
  readonly log: Log;
  readonly events: LogEvent[];
  readonly named: (event: string) => LogEvent[];
  /** Resolves when the condition holds; it is looked at with every line. */
  until(condition: () => boolean): Promise<void>;
}

export function watchedLog(): WatchedLog {
  const events: LogEvent[] = [];
  const watchers = new Set<() => void>();
  const log = createLog("deliverer", {
    write(line: string) {
      events.push(JSON.parse(line) as LogEvent); // our own log's lines
      for (const watcher of watchers) watcher();
    },
  });
  return {
    log,
    events,
    named: (event) => events.filter((entry) => entry.event === event),
    until: (condition) => untilTrue(condition, watchers, () => events.map((entry) => JSON.stringify(entry)).join("\n")),
  };
}

/** Resolves when the condition holds; `watchers` are called when it may have come true. */
export function untilTrue(
  condition: () => boolean,
  watchers: Set<() => void>,
  tell: () => string,
  deadlineMs = 20_000,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      watchers.delete(look);
      reject(new Error(`${condition.toString()} did not come true:\n${tell()}`));
    }, deadlineMs);
    const look = () => {
      if (!condition()) return;
      clearTimeout(timer);
      watchers.delete(look);
      resolve();
    };
    watchers.add(look);
    look();
  });
}
