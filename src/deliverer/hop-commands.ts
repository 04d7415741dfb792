/**
 * What a next hop offers, what may be sent to it, and the commands that say so: RFC 5321 §4.1.1, with the parameters of
 * SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531) and DSN (RFC 3461). Pure.
 */
import { pathText, type Mailbox } from "../mail/address.ts";
import type { Notify, Recipient } from "../mail/envelope.ts";
import type { MessageMeta, RecipientIndex } from "../spool/spool.ts";
import type { DeliveryOutcome } from "./outcome.ts";

/** A recipient with the address that it has inside. */
export interface AddressedRecipient {
  readonly index: RecipientIndex;
  readonly mailbox: Mailbox;
}

/** Keywords of the reply to EHLO, in capitals, with their parameters. */
export type Offers = ReadonlyMap<string, string>;

/** Reads a reply to EHLO. The first line is a greeting in which anything may stand (RFC 5321 §4.1.1.1). */
export function parseOffers(reply: string): Offers {
  const offers = new Map<string, string>();
  for (const line of reply.split("\n").slice(1)) {
    const [keyword = "", ...parameters] = line.slice(4).trim().split(/\s+/);
    offers.set(keyword.toUpperCase(), parameters.join(" "));
  }
  return offers;
}

/** Why the message cannot go to a server that offers this, whoever it is for: what was not offered is not sent. */
export function messageObstacle(meta: MessageMeta, offers: Offers): DeliveryOutcome | undefined {
  const size = offers.get("SIZE") ?? "";
  const sizeBytesMax = /^\d+$/.test(size) ? Number(size) : 0; // 0: no limit is known (RFC 1870 §3)
  if (sizeBytesMax > 0 && meta.sizeBytes > sizeBytesMax) {
    const text = `The next server takes messages of up to ${sizeBytesMax} octets; this one has ${meta.sizeBytes}`;
    return { kind: "failed", status: "5.3.4", text, remote: false };
  }
  const { reversePath, smtpUtf8 } = meta.envelope;
  const isInternationalized = reversePath.kind === "mailbox" && reversePath.mailbox.internationalized;
  if ((isInternationalized || (smtpUtf8 && meta.eightBit)) && !offers.has("SMTPUTF8")) return notInternationalized;
  if (meta.eightBit && !offers.has("8BITMIME")) {
    const text = "The next server does not take 8-bit content (8BITMIME)";
    return { kind: "failed", status: "5.6.3", text, remote: false };
  }
  return undefined;
}

/** Why one of its recipients cannot be named to a server that offers this. */
export function recipientObstacle(mailbox: Mailbox, offers: Offers): DeliveryOutcome | undefined {
  return mailbox.internationalized && !offers.has("SMTPUTF8") ? notInternationalized : undefined;
}

const notInternationalized: DeliveryOutcome = {
  kind: "failed",
  status: "5.6.7",
  text: "The next server does not take internationalized addresses or headers (SMTPUTF8)",
  remote: false,
};

/** MAIL, with the parameters that the client gave us where they are offered. */
export function mailCommand(meta: MessageMeta, recipients: readonly AddressedRecipient[], offers: Offers): string {
  const { envelope } = meta;
  const parameters: string[] = [];
  if (offers.has("SIZE")) parameters.push(`SIZE=${meta.sizeBytes}`);
  if (meta.eightBit && offers.has("8BITMIME")) parameters.push("BODY=8BITMIME");
  if (saysUtf8(meta, recipients, offers)) parameters.push("SMTPUTF8");
  if (offers.has("DSN")) {
    if (envelope.returnContent !== undefined) {
      parameters.push(`RET=${envelope.returnContent === "full" ? "FULL" : "HDRS"}`);
    }
    if (envelope.envelopeId !== undefined) parameters.push(`ENVID=${envelope.envelopeId}`);
  }
  return [`MAIL FROM:<${pathText(envelope.reversePath)}>`, ...parameters].join(" ");
}

/** RCPT with the recipient's own DSN parameters (RFC 3461 §5.2.1). */
export function rcptCommand(
  meta: MessageMeta,
  recipients: readonly AddressedRecipient[],
  { index, mailbox }: AddressedRecipient,
  offers: Offers,
): string {
  const given = meta.envelope.recipients[index];
  const parameters: string[] = [];
  if (given !== undefined && offers.has("DSN")) {
    const original = originalRecipient(given, saysUtf8(meta, recipients, offers));
    if (given.notify !== undefined) parameters.push(`NOTIFY=${notifyText(given.notify)}`);
    if (original !== undefined) parameters.push(`ORCPT=${original}`);
  }
  return [`RCPT TO:<${mailbox.address}>`, ...parameters].join(" ");
}

function saysUtf8({ envelope }: MessageMeta, recipients: readonly AddressedRecipient[], offers: Offers): boolean {
  const { reversePath, smtpUtf8 } = envelope;
  const isNeeded =
    smtpUtf8 ||
    (reversePath.kind === "mailbox" && reversePath.mailbox.internationalized) ||
    recipients.some(({ mailbox }) => mailbox.internationalized);
  return isNeeded && offers.has("SMTPUTF8");
}

/** As it was given; where SMTPUTF8 is not said, in the ASCII form of the type utf-8, or not at all (RFC 6533 §3). */
function originalRecipient({ originalRecipient: given }: Recipient, utf8: boolean): string | undefined {
  if (given === undefined || utf8 || /^[ -~]*$/.test(given)) return given;
  if (!/^utf-8;/i.test(given)) return undefined;
  return given.replaceAll(/[^ -~]/gu, (character) => {
    const point = character.codePointAt(0) ?? 0;
    return `\\x{${point.toString(16).toUpperCase()}}`;
  });
}

function notifyText(notify: Notify): string {
  return notify === "never" ? "NEVER" : notify.join(",").toUpperCase();
}
