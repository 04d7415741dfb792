/**
 * What the log tells of a session: one line an event, under the session's id.
 *
 * Promises: what the client sent stands below the key `client` and nowhere else, so that it can pose as nothing of ours;
 * of a message's content nothing is told but its size and digest.
 */
import type { Log } from "../log/log.ts";
import { pathText } from "../mail/address.ts";
import { limitOf, replies } from "../mail/reply.ts";
import type { PeerIdentity } from "../partner/identity.ts";
import type { IntakeResult } from "./intake.ts";
import { pinText } from "./intake-request.ts";
import type { Answer, SecuredBy, Transaction } from "./session.ts";

/** Of a message to many, the first ones: the others are in the spool. */
const recipientsLoggedMax = 10;

/** What is told of a TLS handshake that does not end. */
export const handshakeTooLong = { error: "the TLS handshake took too long", of: "timeouts.handshake" } as const;

export class Journal {
  readonly #log: Log;

  constructor(log: Log, session: string, address: string) {
    this.#log = log.child({ session, address });
  }

  /** A reply that refuses something, or lets pass what the rules would refuse. Others are not worth a line. */
  answer({ reply, reason, client, reference, urgency = "usual" }: Answer): void {
    const { code } = replies[reply];
    const told = {
      reply,
      code,
      of: limitOf(reply),
      ...reason,
      ...(reference === undefined ? {} : { reference }),
      ...(client === undefined ? {} : { client }),
    };
    if (code >= 400) this.#log[urgency === "usual" ? "info" : "warn"]({ event: "refused", ...told });
    else if ("observed" in reason) this.#log.warn({ event: "observed", ...told });
  }

  identified(identity: PeerIdentity, secured: SecuredBy | undefined, helo: string): void {
    this.#log.info({
      event: "identified",
      partner: identity.partner.name,
      pin: pinText(identity.pin),
      tls: secured?.version,
      cipher: secured?.cipher,
      group: secured?.group,
      client: { helo },
    });
  }

  /** @param policy the version of the configuration that decided. */
  message(result: IntakeResult, transaction: Transaction, policy: string): void {
    const partner = transaction.identity.partner.name;
    if (result.kind === "refused") {
      const { id, reply } = result;
      const { code } = replies[reply];
      const cause = result.cause instanceof Error ? result.cause.message : undefined;
      this.#log[code < 500 ? "error" : "info"]({
        event: "message refused",
        partner,
        id,
        reply,
        code,
        of: limitOf(reply),
        cause,
      });
      return;
    }
    const { id, envelope, sizeBytes, sha256 } = result.meta;
    const recipients = envelope.recipients.length;
    const to = envelope.recipients.slice(0, recipientsLoggedMax).map(({ path }) => pathText(path));
    const client = { from: pathText(envelope.reversePath), to };
    if (result.observed.length > 0) this.#log.warn({ event: "observed", partner, id, observed: result.observed });
    this.#log.info({
      event: "message accepted",
      partner,
      id,
      reply: "queued",
      recipients,
      client,
      sizeBytes,
      sha256,
      policy,
    });
  }

  abandoned(transaction: Transaction): void {
    this.#log.info({
      event: "message abandoned",
      partner: transaction.identity.partner.name,
      cause: "the connection ended before the message did",
    });
  }

  handshakeTimeout(): void {
    this.#log.info({ event: "connection failed", ...handshakeTooLong });
  }

  /** Something of ours went wrong. */
  fault(during: string, error: unknown): void {
    this.#log.error({ event: "fault", during, err: error instanceof Error ? error : new Error(String(error)) });
  }
}
