/**
 * From a transaction to the message that it lets in: its envelope, its limits, and the trace fields that go on top.
 */
import { authenticationResultsField, receivedField } from "../mail/trace.ts";
import { judgeHeader } from "../partner/content-policy.ts";
import type { Pin } from "../partner/pin.ts";
import type { ReceiverContext } from "./context.ts";
import type { IntakeRequest } from "./intake.ts";
import { envelopeOf, type Greeting, type Session, type Transaction } from "./session.ts";
import { tlsFacts } from "./tls-facts.ts";

export function intakeRequest(
  context: ReceiverContext,
  session: Session,
  transaction: Transaction,
  greeting: Greeting,
): IntakeRequest {
  const { dropBox, now } = context;
  const { policy } = transaction;
  const { hostname } = policy.config;
  const { partner, pin } = transaction.identity;
  const { id: sessionId, address, secured } = session;
  const tls = secured === undefined ? undefined : tlsFacts(secured, pin);
  const envelope = envelopeOf(transaction);
  const pinned = { name: partner.name, pinText: pinText(pin) };
  const [only, ...others] = envelope.recipients;
  return {
    dropBox,
    hostname,
    partner: partner.name,
    envelope,
    session: {
      id: sessionId,
      address,
      helo: greeting.name,
      ...(tls === undefined ? {} : { tls }),
    },
    messageBytesMax: policy.messageBytesMax(partner),
    limits: policy.config.limits,
    takeBytes: (sizeBytes) => context.rates.takeBytes(partner, sizeBytes, now().getTime()),
    giveBackBytes: (sizeBytes) => context.rates.giveBackBytes(partner, sizeBytes, now().getTime()),
    now: () => now().getTime(),
    judgeHeader: (header) => judgeHeader(partner, header, envelope.smtpUtf8),
    traceFields: (id) =>
      receivedField({
        heloName: greeting.name,
        address,
        hostname,
        protocol: {
          ehlo: greeting.extended,
          tls: secured,
          smtpUtf8: envelope.smtpUtf8,
        },
        partner: pinned,
        id,
        forRecipient: others.length === 0 && only?.path.kind === "mailbox" ? only.path.mailbox.address : undefined,
        now: now(),
      }) +
      authenticationResultsField({
        authservId: hostname,
        partner: pinned,
        reversePath: envelope.reversePath,
        smtpUtf8: envelope.smtpUtf8,
      }),
  };
}

/** A pin as the trace fields and the log tell it. */
export function pinText(pin: Pin): string {
  return pin.kind === "trustAnchor" ? `trust-anchor ${pin.name}` : `${pin.kind} ${pin.digest}`;
}
