/**
 * Every reply that the relay chooses to give (design, section 6). Texts name no rule, host or path of ours but tell
 * what to fix: the partner reads the reply, the log carries the reason under the session id that the reply shows.
 */

export interface Reply {
  readonly code: number;
  /** Enhanced status code (RFC 3463); absent where RFC 2034 §3 wants none. */
  readonly status?: string;
  readonly text: string;
  /**
   * The key of the limit that is reached, as it stands under `limits` of relay.yaml or of the partner's file: for the log,
   * and for whoever counts. Where both have it and mean different things the partner's is called `partner-…`.
   */
  readonly limit?: string;
}

export const replies = {
  // success
  senderAccepted: { code: 250, status: "2.1.0", text: "Sender OK" },
  recipientAccepted: { code: 250, status: "2.1.5", text: "Recipient OK" },
  startData: { code: 354, text: "End data with <CR><LF>.<CR><LF>" },
  queued: { code: 250, status: "2.0.0", text: "Queued as" }, // the id follows
  done: { code: 250, status: "2.0.0", text: "OK" },
  readyForTls: { code: 220, status: "2.0.0", text: "Ready to start TLS" },
  goodbye: { code: 221, status: "2.0.0", text: "Bye" },
  // the session
  addressUnknown: { code: 554, status: "5.7.1", text: "No mail is accepted from your address" },
  quitOnly: { code: 503, status: "5.5.1", text: "No mail is accepted from your address, only QUIT" }, // RFC 5321 §3.1
  tooManyConnections: {
    code: 421,
    status: "4.7.0",
    text: "Too many connections, try again later",
    limit: "connections",
  },
  tooManyConnectionsOfAddress: {
    code: 421,
    status: "4.7.0",
    text: "Too many connections from your address: open fewer at a time, or try again later",
    limit: "connections-per-address",
  },
  // RFC 3207 §4
  tooManyHandshakes: {
    code: 454,
    status: "4.7.0",
    text: "TLS not available now: too many handshakes from your address, send more messages on one connection",
    limit: "handshakes-per-minute",
  },
  shuttingDown: { code: 421, status: "4.3.2", text: "Service is shutting down, try again later" },
  idleTimeout: {
    code: 421,
    status: "4.4.2",
    text: "Timeout, nothing came for too long",
    limit: "timeouts.idle",
  },
  sessionTimeout: {
    code: 421,
    status: "4.4.2",
    text: "Timeout, the session took too long: start a new connection",
    limit: "timeouts.session",
  },
  messageTimeout: {
    code: 421,
    status: "4.4.2",
    text: "Timeout, the message took too long: send it faster",
    limit: "timeouts.message",
  },
  tooManyCommands: {
    code: 421,
    status: "4.7.0",
    text: "Too many commands without a message, try again later",
    limit: "commands",
  },
  tooManyBadCommands: {
    code: 421,
    status: "4.7.0",
    text: "Too many bad commands: see the replies to them for what to mend",
    limit: "bad-commands",
  },
  tooManyIdleRecipients: {
    code: 421,
    status: "4.7.0",
    text: "Too many refused recipients without a message, try again later",
    limit: "refused-recipients",
  },
  tooManyTransactions: {
    code: 421,
    status: "4.7.0",
    text: "Too many transactions on one connection: start a new connection",
    limit: "transactions",
  },
  sessionFault: { code: 421, status: "4.3.0", text: "Local error, try again later" },
  notSmtp: { code: 421, status: "4.7.0", text: "This is an SMTP server" },
  // identity
  tlsRequired: { code: 530, status: "5.7.0", text: "Must issue a STARTTLS command first" }, // RFC 3207 §4
  certificateMissing: {
    code: 454,
    status: "4.7.0",
    text: "No client certificate was presented: configure the one that is registered here, and the mail will pass",
  },
  certificateUnknown: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate is not registered here: tell the postmaster its fingerprint, and the mail will pass",
  },
  certificateMissingAnywhere: { code: 550, status: "5.7.1", text: "A registered client certificate is required" },
  certificateUnknownAnywhere: { code: 550, status: "5.7.1", text: "Client certificate is not registered here" },
  certificateExpired: { code: 454, status: "4.7.0", text: "Client certificate has expired: renew it" },
  certificateNotYetValid: { code: 454, status: "4.7.0", text: "Client certificate is not valid yet: check its dates" },
  certificatePending: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate is not confirmed yet: let the postmaster here compare its fingerprint with you",
  },
  certificateRevoked: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate was revoked: register a new one with the postmaster here, and the mail will pass",
  },
  certificateRetired: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate was replaced by your next one: configure that one on this host, too",
  },
  revocationUnknown: {
    code: 454,
    status: "4.7.0",
    text: "Revocation list of your CA is out of date here: tell the postmaster, and the mail will pass",
  },
  certificateUsage: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate lacks the extended key usage clientAuth: tell the postmaster, or use one that has it",
  },
  keyExchangeTooWeak: {
    code: 454,
    status: "4.7.0",
    text: "Post-quantum key exchange is required: let your server offer X25519MLKEM768",
  },
  addressNotOfPartner: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate is registered, but not for your address: tell the postmaster your sending addresses",
  },
  // syntax
  bareLineFeed: { code: 421, status: "4.5.2", text: "Bare LF: end command lines with CRLF" }, // RFC 5321 §2.3.8
  lineTooLong: { code: 421, status: "4.5.2", text: "Command line is too long", limit: "command-line" },
  controlCharacter: { code: 500, status: "5.5.2", text: "Control character in a command" },
  unknownCommand: { code: 500, status: "5.5.2", text: "Command not recognized" },
  notImplemented: { code: 502, status: "5.5.1", text: "Command not implemented" },
  heloSyntax: { code: 501, status: "5.5.4", text: "Say EHLO and your host name" },
  senderSyntax: { code: 501, status: "5.1.7", text: "Bad sender address syntax" },
  recipientSyntax: { code: 501, status: "5.1.3", text: "Bad recipient address syntax" },
  internationalizedSender: { code: 553, status: "5.6.7", text: "Address needs SMTPUTF8" }, // RFC 6531 §3.5
  internationalizedRecipient: { code: 553, status: "5.6.7", text: "Address needs SMTPUTF8" },
  parameterUnknown: { code: 555, status: "5.5.4", text: "Parameter not recognized or not implemented" }, // §4.1.1.11
  parameterSyntax: { code: 501, status: "5.5.4", text: "Bad parameter syntax" },
  parameterRepeated: { code: 501, status: "5.5.4", text: "Parameter given twice" },
  // order
  heloFirst: { code: 503, status: "5.5.1", text: "Send EHLO first" },
  nestedMail: { code: 503, status: "5.5.1", text: "A transaction is open already" },
  mailFirst: { code: 503, status: "5.5.1", text: "Send MAIL first" },
  recipientFirst: { code: 503, status: "5.5.1", text: "No valid recipients" },
  tlsActive: { code: 503, status: "5.5.1", text: "TLS is active already" },
  takesNoArgument: { code: 501, status: "5.5.4", text: "Command takes no argument" },
  // policy
  senderNotAllowed: { code: 550, status: "5.7.1", text: "Sender address is not one that you may use here" },
  recipientNotAllowed: { code: 550, status: "5.7.1", text: "Recipient is not one that you may write to" },
  relayingDenied: { code: 550, status: "5.7.1", text: "Relaying denied" },
  tooManyRecipients: {
    code: 452,
    status: "4.5.3",
    text: "Too many recipients, send the rest in another transaction",
    limit: "recipients",
  },
  // limits of a partner, and ours
  rateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many messages, try again later",
    limit: "messages-per-minute",
  },
  dayRateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many messages in a day, try again later",
    limit: "messages-per-day",
  },
  byteRateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many bytes in a minute, try again later",
    limit: "bytes-per-minute",
  },
  byteDayRateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many bytes in a day, try again later",
    limit: "bytes-per-day",
  },
  // 451, not 452: after 4.5.3 a client would send the rest at once (RFC 5321 §4.5.3.1.10)
  recipientRateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many recipients in a minute, send to this one later",
    limit: "recipients-per-minute",
  },
  recipientDayRateExceeded: {
    code: 451,
    status: "4.7.1",
    text: "Too many recipients in a day, send to this one later",
    limit: "recipients-per-day",
  },
  tooManyConnectionsOfPartner: {
    code: 451,
    status: "4.7.1",
    text: "Too many connections of yours: open fewer at a time, or try again later",
    limit: "partner-connections",
  },
  queueQuota: {
    code: 452,
    status: "4.3.1",
    text: "Too much of your mail is waiting, try again later",
    limit: "queue-bytes",
  },
  tooLargeDeclared: {
    code: 552,
    status: "5.3.4",
    text: "Message is larger than you may send",
    limit: "message-size",
  },
  tooLarge: { code: 552, status: "5.3.4", text: "Message is larger than you may send", limit: "message-size" },
  spoolFull: { code: 452, status: "4.3.1", text: "Insufficient storage, try again later" },
  spoolFault: { code: 451, status: "4.3.0", text: "Local error, try again later" },
  // content
  malformedContent: { code: 550, status: "5.6.0", text: "Bare CR, bare LF or NUL in the message" },
  headerMalformed: { code: 550, status: "5.6.0", text: "Message header is not one: see RFC 5322, section 2.2" },
  fromFieldCount: { code: 550, status: "5.6.0", text: "Message needs exactly one From field" },
  fromFieldNotAllowed: { code: 550, status: "5.7.1", text: "From field has an address that you may not use here" },
  headerTooLarge: { code: 552, status: "5.3.4", text: "Message header is too large", limit: "header-size" },
  headerTooLong: { code: 552, status: "5.3.4", text: "Message header has too many lines", limit: "header-lines" },
  tooManyHops: { code: 554, status: "5.4.6", text: "Too many hops", limit: "hops" }, // RFC 5321 §6.3
  mailLoop: { code: 554, status: "5.4.6", text: "Mail loop: this message has been here before" },
} as const satisfies Record<string, Reply>;

export type ReplyName = keyof typeof replies;

/** The key of the limit that the reply speaks of; undefined where it is no matter of limits. */
export function limitOf(name: ReplyName): string | undefined {
  const reply: Reply = replies[name];
  return reply.limit;
}

/** The reply as it goes over the wire, without CRLF, its text followed by `detail` (an id of ours, never peer's words). */
export function replyLine(reply: Reply, detail?: string): string {
  const status = reply.status === undefined ? "" : `${reply.status} `;
  return `${reply.code} ${status}${reply.text}${detail === undefined ? "" : ` ${detail}`}`;
}
