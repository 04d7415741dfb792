/**
 * `limits`, in relay.yaml and in a partner's file: each has a default, or none is there unless it is written.
 */
import type { PartnerLimits } from "../partner/partner.ts";
import * as format from "./formats.ts";
import type { RelayLimits } from "./relay-config.ts";
import { group, optional, scalar, type Read } from "./schema.ts";

/** Of relay.yaml. */
export const relayLimits = group({
  doc: "What the relay takes at most, from all partners together.",
  keys: {
    "message-size": scalar({ doc: "The size of one message.", format: format.size, default: "25MiB" }),
    connections: scalar({ doc: "Connections at a time.", format: format.count, default: 500 }),
    "connections-per-address": scalar({
      doc: "Connections at a time from one address.",
      format: format.count,
      default: 20,
    }),
    "turned-away": scalar({
      doc: "Clients at a time that are told why they are turned away; more are cut off unheard.",
      format: format.count,
      default: 100,
    }),
    "handshakes-per-minute": scalar({
      doc: "TLS handshakes in a minute from one address: many servers make one for each message.",
      format: format.count,
      default: 600,
    }),
    "spool-bytes": scalar({
      doc: "The size of the spool: when it is full, partners are told to try again later.",
      format: format.size,
      default: "10GiB",
    }),
    commands: scalar({
      doc: "Commands of a session without a message in between; recipients of a message are not counted.",
      format: format.count,
      default: 100,
    }),
    "bad-commands": scalar({
      doc: "Commands of a session that do not exist, or are not in the syntax of SMTP.",
      format: format.count,
      default: 10,
    }),
    "command-line": scalar({
      doc: "The size of a command line, with its CRLF.",
      format: format.commandLineSize,
      default: "4KiB",
    }),
    transactions: scalar({ doc: "Transactions of a connection.", format: format.count, default: 1000 }),
    "header-size": scalar({
      doc: "The size of a message's header: it is held in memory.",
      format: format.headerSize,
      default: "256KiB",
    }),
    "header-lines": scalar({ doc: "Lines of a message's header.", format: format.count, default: 10_000 }),
    // RFC 5321 §6.3 asks for 100 at least where a host has nothing else to go by; we also know our own name in them, and
    // mail between partners takes few hops.
    hops: scalar({
      doc: "Received fields of a message: one that has more is taken for one that goes in circles.",
      format: format.count,
      default: 50,
    }),
    timeouts: group({
      doc: "How long a client may take.",
      keys: {
        idle: scalar({ doc: "Without sending anything.", format: format.duration, default: "5m" }),
        handshake: scalar({ doc: "For the TLS handshake.", format: format.duration, default: "30s" }),
        session: scalar({
          doc: "For a whole session; a message that is coming in then may still end.",
          format: format.duration,
          default: "1h",
        }),
        message: scalar({
          doc: "For the content of a message, beside what its size allows at 128 kbit/s.",
          format: format.duration,
          default: "10m",
        }),
      },
      default: {},
    }),
  },
  default: {},
});

/** Of a partner's file. */
export const partnerLimits = group({
  doc: "What the relay takes at most from this partner.",
  keys: {
    "message-size": scalar({ doc: "The size of one message.", format: format.size, default: "10MiB" }),
    recipients: scalar({ doc: "Recipients of one message.", format: format.count, default: 100 }),
    "messages-per-minute": scalar({ doc: "Messages in a minute.", format: format.count, default: 600 }),
    "messages-per-day": scalar({
      doc: "Messages in 24 hours. Absent: no limit.",
      format: format.dailyCount,
      default: optional,
    }),
    "bytes-per-minute": scalar({
      doc: "The size of its mail in a minute; one larger message passes, and the next waits for it. Absent: no limit.",
      format: format.size,
      default: optional,
    }),
    "bytes-per-day": scalar({
      doc: "The size of its mail in 24 hours. Absent: no limit.",
      format: format.size,
      default: optional,
    }),
    "recipients-per-minute": scalar({
      doc: "Recipients in a minute, of all messages together. Absent: no limit.",
      format: format.count,
      default: optional,
    }),
    "recipients-per-day": scalar({
      doc: "Recipients in 24 hours, of all messages together. Absent: no limit.",
      format: format.dailyCount,
      default: optional,
    }),
    connections: scalar({ doc: "Connections at a time.", format: format.count, default: 10 }),
    "queue-bytes": scalar({
      doc: "The size of its mail that waits for delivery.",
      format: format.size,
      default: "1GiB",
    }),
  },
  default: {},
});

export function makeRelayLimits(written: Read<typeof relayLimits>): RelayLimits {
  const { idle, handshake, session, message } = written.timeouts;
  return {
    messageBytesMax: written["message-size"],
    connectionsMax: written.connections,
    connectionsPerAddressMax: written["connections-per-address"],
    turnedAwayMax: written["turned-away"],
    handshakesPerMinute: written["handshakes-per-minute"],
    spoolBytesMax: written["spool-bytes"],
    commandsMax: written.commands,
    badCommandsMax: written["bad-commands"],
    commandLineBytesMax: written["command-line"],
    transactionsMax: written.transactions,
    headerBytesMax: written["header-size"],
    headerLinesMax: written["header-lines"],
    hopsMax: written.hops,
    timeouts: { idleMs: idle, handshakeMs: handshake, sessionMs: session, messageMs: message },
  };
}

export function makePartnerLimits(limits: Read<typeof partnerLimits>): PartnerLimits {
  return {
    messageBytesMax: limits["message-size"],
    recipientsMax: limits.recipients,
    messagesPerMinute: limits["messages-per-minute"],
    messagesPerDay: limits["messages-per-day"],
    bytesPerMinute: limits["bytes-per-minute"],
    bytesPerDay: limits["bytes-per-day"],
    recipientsPerMinute: limits["recipients-per-minute"],
    recipientsPerDay: limits["recipients-per-day"],
    connectionsMax: limits.connections,
    queueBytesMax: limits["queue-bytes"],
  };
}
