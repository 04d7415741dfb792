/**
 * Reports to senders, put into the spool like any other message: on stable storage before the failure is marked.
 *
 * Where they go: to the reverse-path, by the servers of the partner that the message came from; where that partner has
 * none, to our postmaster, so that somebody hears of it. Never a report about a report: a failed one goes to our
 * postmaster, and if that fails too, to the log.
 */
import type { RelayConfig } from "../config/relay-config.ts";
import type { Mailbox } from "../mail/address.ts";
import { composeReport, returnedBytesMax, type Report, type ReportedRecipient } from "../mail/dsn.ts";
import { toWire, unstuff } from "../mail/wire.ts";
import type { ClaimedMessage, DropBox, MessageMeta } from "../spool/spool.ts";

export interface ReportContext {
  readonly config: RelayConfig;
  readonly dropBox: DropBox;
  readonly now: () => Date;
}

/** Where a report about the message goes; undefined: nowhere, it was a report to our postmaster itself. */
export function reportDestination(
  meta: MessageMeta,
  config: RelayConfig,
): { to: Mailbox; toPartner: string | null } | undefined {
  const { reversePath } = meta.envelope;
  if (reversePath.kind === "null") {
    const wasForPostmaster = meta.partner === null && meta.toPartner === null;
    return wasForPostmaster ? undefined : { to: config.postmaster, toPartner: null };
  }
  const partner = config.partners.find(({ name }) => name === meta.partner);
  return partner?.deliver === undefined
    ? { to: config.postmaster, toPartner: null }
    : { to: reversePath.mailbox, toPartner: partner.name };
}

/**
 * Reports on the recipients, all in one message. Resolves with its queue id when it is on stable storage, or with
 * undefined if there is nobody to tell. Fails with a SpoolFault.
 */
export async function report(
  message: ClaimedMessage,
  recipients: readonly ReportedRecipient[],
  { config, dropBox, now }: ReportContext,
): Promise<string | undefined> {
  const { meta } = message;
  const destination = reportDestination(meta, config);
  if (destination === undefined) return undefined;
  const returned = await original(message);
  return commitOwnMail({ dropBox, now, toPartner: destination.toPartner }, (id) =>
    composeReport({
      reportId: id,
      reportingMta: config.hostname,
      now: now(),
      arrivedAt: new Date(meta.receivedAtMs),
      ...(meta.session === null ? {} : { receivedFrom: meta.session.helo }),
      envelope: meta.envelope,
      to: destination.to,
      postmaster: config.postmaster,
      recipients: destination.toPartner === null ? recipients : recipients.map(withoutServerName),
      original: returned,
    }),
  );
}

/**
 * Puts mail of our own into the spool, as composed for its queue id. Resolves with the id when it is on stable storage.
 * Fails with a SpoolFault.
 */
export async function commitOwnMail(
  { dropBox, now, toPartner }: Pick<ReportContext, "dropBox" | "now"> & { readonly toPartner: string | null },
  compose: (id: string) => Report,
): Promise<string> {
  const draft = dropBox.receive();
  let isCommitting = false;
  try {
    const { envelope, content } = compose(draft.id);
    const wire = toWire(content);
    await draft.write(wire);
    const headerEnd = wire.indexOf("\r\n\r\n");
    isCommitting = true;
    await draft.commit({
      receivedAtMs: now().getTime(),
      partner: null,
      toPartner,
      envelope,
      session: null,
      sizeBytes: content.length,
      headerBytes: headerEnd < 0 ? wire.length : headerEnd + 2,
      eightBit: envelope.body === "8bitmime",
    });
    return draft.id;
  } catch (error) {
    if (!isCommitting) await draft.discard(); // else the failed commit has ended it
    throw error;
  }
}

/**
 * The reported message: its header, and its body if it is small enough to be returned. Nothing of one that cannot be read:
 * the sender is to hear all the same.
 */
async function original(message: ClaimedMessage): Promise<{ header: Buffer; body?: Buffer }> {
  try {
    return await readOriginal(message);
  } catch {
    return { header: Buffer.alloc(0) };
  }
}

async function readOriginal(message: ClaimedMessage): Promise<{ header: Buffer; body?: Buffer }> {
  const { headerBytes, wireBytes } = message.meta;
  const whole = wireBytes <= returnedBytesMax;
  const wantedBytes = whole ? wireBytes : headerBytes;
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of message.readContent()) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes >= wantedBytes) break;
  }
  const wire = Buffer.concat(pieces).subarray(0, wantedBytes);
  const header = unstuff(wire.subarray(0, headerBytes));
  return whole ? { header, body: unstuff(wire.subarray(headerBytes + "\r\n".length)) } : { header };
}

/** What our servers inside are called is nobody's business outside. */
function withoutServerName(recipient: ReportedRecipient): ReportedRecipient {
  return recipient.remote === undefined ? recipient : { ...recipient, remote: { reply: recipient.remote.reply } };
}
