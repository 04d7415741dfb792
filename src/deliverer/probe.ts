/**
 * Probes: what a partner writes to `probe@` our hostname is not delivered but answered, by mail, with what the receiver
 * saw of the partner and which rules hold for it.
 *
 * Promises: a probe never leaves to a server inside; the answer is on stable storage before the probe is settled, and
 * goes to the reverse-path by the partner's own servers, or to our postmaster where the partner has none; what a program
 * sent, and what has no reverse-path, gets no answer. Fails with a SpoolFault.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import { composeProbeAnswer, isAnswerable, type ProbeRules, type ProbeSession } from "../mail/probe-answer.ts";
import { unstuff } from "../mail/wire.ts";
import type { Partner } from "../partner/partner.ts";
import { pinKey, type Pin } from "../partner/pin.ts";
import { isProbeMailbox, judgeSender } from "../partner/policy.ts";
import type { ClaimedMessage, MessageMeta, RecipientIndex, SessionFacts } from "../spool/spool.ts";
import { commitOwnMail, reportDestination, type ReportContext } from "./report.ts";

/** The recipients, of those that are not settled, to be answered in place of a delivery. */
export function probesOf({ meta, pending, request }: ClaimedMessage, { hostname }: RelayConfig): RecipientIndex[] {
  if (meta.partner === null || request === "bounce") return [];
  return pending.flatMap(({ index }) => {
    const path = meta.envelope.recipients[index]?.path;
    return path?.kind === "mailbox" && isProbeMailbox(path.mailbox, hostname) ? [index] : [];
  });
}

/** Answers the probe; resolves with the answer's queue id, or with undefined where none is to be given. */
export async function answerProbe(
  message: ClaimedMessage,
  { config, dropBox, now }: ReportContext,
): Promise<string | undefined> {
  const { meta } = message;
  const { reversePath } = meta.envelope;
  const header = await readHeader(message);
  const destination = reportDestination(meta, config);
  if (destination === undefined || !isAnswerable(reversePath, header)) return undefined;
  const partner = config.partners.find(({ name }) => name === meta.partner);
  return commitOwnMail({ dropBox, now, toPartner: destination.toPartner }, (id) =>
    composeProbeAnswer({
      id,
      hostname: config.hostname,
      now: now(),
      to: destination.to,
      postmaster: config.postmaster,
      header,
      arrivedAt: new Date(meta.receivedAtMs),
      reversePath,
      partner: meta.partner ?? "",
      session: meta.session === null ? undefined : sessionOf(meta.session, partner),
      rules: partner === undefined ? undefined : rulesOf(partner, meta, config),
      instead: destination.toPartner === null,
    }),
  );
}

const headerBytesRead = 64 * 1024;

async function readHeader(message: ClaimedMessage): Promise<Buffer> {
  const { headerBytes } = message.meta;
  const wantedBytes = Math.min(headerBytes, headerBytesRead);
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of message.readContent()) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes >= wantedBytes) break;
  }
  return unstuff(Buffer.concat(pieces).subarray(0, wantedBytes));
}

function sessionOf({ id, address, helo, tls }: SessionFacts, partner: Partner | undefined): ProbeSession {
  if (tls === undefined) return { id, address, helo, tls: undefined };
  const pin = partner?.pins.find((candidate) => pinKey(candidate) === tls.pin);
  return { id, address, helo, tls: { ...tls, pinText: pin === undefined ? "not configured any more" : pinText(pin) } };
}

function pinText(pin: Pin): string {
  const what = pin.kind === "trustAnchor" ? `of a CA, for the name ${pin.name}` : `of this ${pinned[pin.kind]}`;
  const label = pin.label === undefined ? "" : `, "${pin.label}"`;
  const until = pin.notAfter === undefined ? "" : `, until ${pin.notAfter.toISOString()}`;
  return `${what}${label}, ${pin.state}${until}`;
}

const pinned = { spki: "key", certificate: "certificate" } as const;

function rulesOf(partner: Partner, { envelope }: MessageMeta, config: RelayConfig): ProbeRules {
  const verdict = judgeSender(partner, envelope.reversePath);
  const { limits } = partner;
  const messageBytesMax = Math.min(limits.messageBytesMax, config.limits.messageBytesMax);
  return {
    mode: partner.mode,
    senders: partner.allow.from.map(({ text }) => text),
    senderRule: verdict.kind === "accept" && typeof verdict.because === "object" ? verdict.because.text : undefined,
    recipients: partner.allow.to.map(({ text }) => text),
    limits: [
      `${messageBytesMax} bytes a message`,
      `${limits.recipientsMax} recipients a message`,
      `${limits.messagesPerMinute} messages a minute`,
      `${limits.connectionsMax} connections at a time`,
    ],
  };
}
