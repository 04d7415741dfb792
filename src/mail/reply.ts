/**
 * Every reply that the relay chooses to give (design, section 6). Texts name no rule, host or path of ours but tell
 * what to fix: the partner reads the reply, the log carries the reason under the session id that the reply shows.
 */

export interface Reply {
  readonly code: number;
  /** Enhanced status code (RFC 3463); absent where RFC 2034 §3 wants none. */
  readonly status?: string;
  readonly text: string;
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
  tooManyConnections: { code: 421, status: "4.7.0", text: "Too many connections, try again later" },
  shuttingDown: { code: 421, status: "4.3.2", text: "Service is shutting down, try again later" },
  timeout: { code: 421, status: "4.4.2", text: "Timeout, closing the connection" },
  tooManyCommands: { code: 421, status: "4.7.0", text: "Too many commands without a message, try again later" },
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
  addressNotOfPartner: {
    code: 454,
    status: "4.7.0",
    text: "Client certificate is registered, but not for your address: tell the postmaster your sending addresses",
  },
  // syntax
  bareLineFeed: { code: 421, status: "4.5.2", text: "Bare LF: end command lines with CRLF" }, // RFC 5321 §2.3.8
  lineTooLong: { code: 421, status: "4.5.2", text: "Command line is too long" },
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
  tooManyRecipients: { code: 452, status: "4.5.3", text: "Too many recipients, send the rest in another transaction" },
  // limits of a partner, and ours
  rateExceeded: { code: 451, status: "4.7.1", text: "Too many messages, try again later" },
  queueQuota: { code: 452, status: "4.3.1", text: "Too much of your mail is waiting, try again later" },
  tooLargeDeclared: { code: 552, status: "5.3.4", text: "Message is larger than you may send" },
  tooLarge: { code: 552, status: "5.3.4", text: "Message is larger than you may send" },
  spoolFull: { code: 452, status: "4.3.1", text: "Insufficient storage, try again later" },
  spoolFault: { code: 451, status: "4.3.0", text: "Local error, try again later" },
  // content
  malformedContent: { code: 550, status: "5.6.0", text: "Bare CR, bare LF or NUL in the message" },
  headerTooLarge: { code: 552, status: "5.3.4", text: "Message header is too large" },
  tooManyHops: { code: 554, status: "5.4.6", text: "Too many hops" }, // RFC 5321 §6.3
  mailLoop: { code: 554, status: "5.4.6", text: "Mail loop: this message has been here before" },
} as const satisfies Record<string, Reply>;

export type ReplyName = keyof typeof replies;

/** The reply as it goes over the wire, without CRLF, its text followed by `detail` (an id of ours, never peer's words). */
export function replyLine(reply: Reply, detail?: string): string {
  const status = reply.status === undefined ? "" : `${reply.status} `;
  return `${reply.code} ${status}${reply.text}${detail === undefined ? "" : ` ${detail}`}`;
}
