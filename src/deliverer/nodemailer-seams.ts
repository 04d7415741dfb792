/**
 * The one importer of `nodemailer`: its SMTP connection, with types for the seams at which `client.ts` subclasses it. The
 * package's own types leave these out; a test compares these lists with what the installed version has, so that an upgrade
 * which moves a seam fails there and not in production.
 */
import type { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { TLSSocket } from "node:tls";
import SMTPConnection, { type SMTPConnectionOptions } from "nodemailer/lib/smtp-connection";
import DataStream from "nodemailer/lib/smtp-connection/data-stream.js";

export type { SMTPConnectionOptions };
export { DataStream };

export type Callback<T = unknown> = (error: Error | null, value?: T) => void;

/** An error of the library: `response` is the reply that caused it. */
export type LibraryError = Error & { readonly response?: unknown; readonly recipient?: unknown };

/** The envelope while it is being sent. */
export interface EnvelopeUnderWay {
  readonly rcptQueue: string[];
  readonly rejected: string[];
  readonly rejectedErrors: readonly LibraryError[];
  readonly accepted: string[];
  readonly pipelined: boolean;
  /** Set when MAIL was refused. */
  readonly mailError?: LibraryError;
}

export interface ConnectionSeams extends EventEmitter {
  _socket: Socket | TLSSocket | false | null;
  _destroyed: boolean;
  _closing: boolean;
  secureConnection: boolean;
  _envelope: EnvelopeUnderWay | false;
  _recipientQueue: string[];
  _responseActions: Array<(reply: string) => void>;
  _responseQueue: string[];
  _responsePartial: boolean;
  _currentDataStream: DataStream | false;
  connect(): void;
  send(envelope: { to: string[] }, content: Buffer | Readable, callback: Callback<{ response: string }>): void;
  reset(callback: Callback): void;
  quit(): void;
  close(): void;
  _onConnect(): void;
  _onData(octets: Buffer): void;
  _onError(error: Error, type: string, reply: string | false, command: string): void;
  _upgradeConnection(callback: Callback<boolean>): void;
  _processResponse(): void;
  _parseEhloExtensions(reply: string): void;
  _setEnvelope(envelope: unknown, callback: Callback): void;
  _sendRcpt(recipient: string, callback: Callback): void;
  _createSendStream(callback: Callback<string>): DataStream;
  _sendCommand(line: string): void;
  _actionEHLO(reply: string): void;
  _actionMAIL(reply: string, callback: Callback): void;
  _actionRCPT(reply: string, callback: Callback): void;
  _actionDATA(reply: string, callback: Callback): void;
  _actionSMTPStream(reply: string, callback: Callback<string>): void;
}

/** The methods above, to be looked for in the installed version. */
export const seamMethods = [
  "connect",
  "send",
  "reset",
  "quit",
  "close",
  "_onConnect",
  "_onData",
  "_onError",
  "_upgradeConnection",
  "_processResponse",
  "_parseEhloExtensions",
  "_setEnvelope",
  "_sendRcpt",
  "_createSendStream",
  "_sendCommand",
  "_actionEHLO",
  "_actionMAIL",
  "_actionRCPT",
  "_actionDATA",
  "_actionSMTPStream",
] as const satisfies ReadonlyArray<keyof ConnectionSeams>;

/** The fields above, that a new connection has. */
export const seamFields = [
  "_socket",
  "_destroyed",
  "_closing",
  "secureConnection",
  "_envelope",
  "_recipientQueue",
  "_responseActions",
  "_responseQueue",
  "_responsePartial",
  "_currentDataStream",
] as const satisfies ReadonlyArray<keyof ConnectionSeams>;

export const NodemailerConnection = SMTPConnection as unknown as new (
  options: SMTPConnectionOptions,
) => ConnectionSeams;
