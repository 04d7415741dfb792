/**
 * From a transaction to the message that it lets in: its envelope, its limits, and the trace fields that go on top.
 */
import { authenticationResultsField, receivedField } from "../mail/trace.ts";
import type { Pin } from "../partner/pin.ts";
import type { ReceiverContext } from "./context.ts";
import type { IntakeRequest } from "./intake.ts";
import { envelopeOf, type Greeting, type Session, type Transaction } from "./session.ts";

export function intakeRequest(
  context: ReceiverContext,
  session: Session,
  transaction: Transaction,
  greeting: Greeting,
): IntakeRequest {
  const { policy, dropBox, now } = context;
  const { hostname } = policy.config;
  const { partner, pin } = transaction.identity;
  const { id: sessionId, address, secured } = session;
  const envelope = envelopeOf(transaction);
  const pinned = { name: partner.name, pinText: pinText(pin) };
  const [only, ...others] = envelope.recipients;
  return {
    dropBox,
    hostname,
    partner: partner.name,
    envelope,
    session: { id: sessionId, address, helo: greeting.name },
    messageBytesMax: policy.messageBytesMax(partner),
    now: () => now().getTime(),
    traceFields: (id) =>
      receivedField({
        heloName: greeting.name,
        address,
        hostname,
        protocol: {
          ehlo: greeting.extended,
          tls: secured === undefined ? undefined : { version: secured.version, cipher: secured.cipher },
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
