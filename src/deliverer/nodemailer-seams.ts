/**
 * The one importer of `nodemailer`: its SMTP connection, with types for the seams at which `client.ts` subclasses it. The
 * package's own types leave these out; a test compares this list with what the installed version has, so that an upgrade
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

type Callback<T = unknown> = (error: Error | null, value?: T) => void;

/** The envelope while it is being sent. */
export interface EnvelopeUnderWay {
  rcptQueue: string[];
  rejected: string[];
  rejectedErrors: ReadonlyArray<Error & { recipient?: unknown; response?: unknown }>;
  accepted: string[];
  pipelined: boolean;
}

export interface ConnectionSeams extends EventEmitter {
  _socket: Socket | TLSSocket | false | null;
  _destroyed: boolean;
  _closing: boolean;
  secureConnection: boolean;
  _supportedExtensions: string[];
  _maxAllowedSize: number;
  _envelope: EnvelopeUnderWay | false;
  _recipientQueue: string[];
  _responseActions: Array<(reply: string) => void>;
  _currentDataStream: DataStream | false;
  connect(callback: (error?: Error | null) => void): void;
  send(envelope: { to: string[] }, content: Buffer | Readable, callback: Callback<{ response: string }>): void;
  reset(callback: Callback): void;
  quit(): void;
  close(): void;
  _onConnect(): void;
  _onError(error: Error, type: string, data: string | false, command: string): void;
  _upgradeConnection(callback: Callback<boolean>): void;
  _setEnvelope(envelope: unknown, callback: Callback): void;
  _sendRcpt(address: string, callback: Callback): void;
  _createSendStream(callback: Callback<string>): DataStream;
  _sendCommand(line: string): void;
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
  "_onError",
  "_upgradeConnection",
  "_setEnvelope",
  "_sendRcpt",
  "_createSendStream",
  "_sendCommand",
  "_actionMAIL",
  "_actionRCPT",
  "_actionDATA",
  "_actionSMTPStream",
] as const satisfies ReadonlyArray<keyof ConnectionSeams>;

export const NodemailerConnection = SMTPConnection as unknown as new (
  options: SMTPConnectionOptions,
) => ConnectionSeams;
