/**
 * The configuration in force, as `load` makes it out of the files: complete, valid, units last in names, paths absolute.
 */
import type { Mailbox } from "../mail/address.ts";
import type { Partner, Route } from "../partner/partner.ts";

export interface ListenAddress {
  readonly address: string;
  /** 0 lets the system choose, for tests. */
  readonly port: number;
  readonly implicitTls: boolean;
}

/** What the relay takes at most, from everybody. */
export interface RelayLimits {
  readonly messageBytesMax: number;
  readonly connectionsMax: number;
  readonly connectionsPerAddressMax: number;
  /** Clients that are being told that they are turned away. */
  readonly turnedAwayMax: number;
  /** TLS handshakes of one address. */
  readonly handshakesPerMinute: number;
  readonly spoolBytesMax: number;
  /** Of one session, without a message in between. */
  readonly commandsMax: number;
  /** Of one session: unknown, or not in the syntax of SMTP. */
  readonly badCommandsMax: number;
  /** With its CRLF. */
  readonly commandLineBytesMax: number;
  /** Of one connection. */
  readonly transactionsMax: number;
  readonly headerBytesMax: number;
  readonly headerLinesMax: number;
  /** Received fields (RFC 5321 §6.3). */
  readonly hopsMax: number;
  readonly timeouts: SessionTimeouts;
}

/** How long a client may take. */
export interface SessionTimeouts {
  /** Without a single octet (RFC 5321 §4.5.3.2.7). */
  readonly idleMs: number;
  readonly handshakeMs: number;
  /** For a whole session; a message that is coming in then may still end. */
  readonly sessionMs: number;
  /** For the content of one message, beside what its size allows. */
  readonly messageMs: number;
}

export interface RelayConfig {
  /** The absolute path of relay.yaml. */
  readonly file: string;
  /** SHA-256 over all files read, in hexadecimal: names the policy that a decision was made under. */
  readonly version: string;
  /** Canonical; also our authserv-id (RFC 8601 §2.2) and the name by which loops are found. */
  readonly hostname: string;
  readonly listen: readonly ListenAddress[];
  readonly tls: {
    readonly certificateFile: string;
    readonly keyFile: string;
    /** PEM, leaf first. */
    readonly certificate: string;
    readonly minimumVersion: "TLSv1.2" | "TLSv1.3";
  };
  readonly partners: readonly Partner[];
  readonly spool: { readonly driver: "directory"; readonly path: string };
  /** Where mail goes inside. Partners' own routes are in `partners[].deliver`. */
  readonly routes: readonly Route[];
  readonly retry: {
    /** Delays after the first, second, … failure; the last one repeats. */
    readonly scheduleMs: readonly number[];
    readonly expireMs: number;
    readonly warnAfterMs: number;
  };
  readonly limits: RelayLimits;
  readonly postmaster: Mailbox;
  /** When certificates, revocation lists and pins that run out are spoken of. */
  readonly expiry: { readonly warnMs: number; readonly criticalMs: number; readonly mail: "daily" | "off" };
  readonly audit: { readonly path: string };
  readonly console: { readonly listen: string | undefined };
}

/** One thing that is wrong with the configuration, or (as a warning) unwise. */
export interface ConfigProblem {
  readonly severity: "error" | "warning";
  readonly file: string;
  /** 1-based; undefined where the problem is the file itself. */
  readonly line: number | undefined;
  /** Dotted path of the key, as `routes.internal.servers[0].address`; "" for the file itself. */
  readonly keyPath: string;
  /** What is wrong and what to do. */
  readonly message: string;
}

export type LoadResult =
  | { readonly kind: "loaded"; readonly config: RelayConfig; readonly warnings: readonly ConfigProblem[] }
  | { readonly kind: "invalid"; readonly problems: readonly ConfigProblem[] };
