/**
 * main.cf and master.cf of a private Postfix instance, as text. Pure.
 *
 * Two things are wanted of these instances: that they are real mail servers, with Postfix's own defaults for everything
 * that a partner's mail server does on the wire; and that whatever they deliver is what they were given, so that a
 * changed byte is the relay's doing. The second is why local rewriting and line folding are off.
 */

import type { KeyPair } from "./certificates.ts";

/** How the instance's SMTP client treats the server it connects to, and which certificate it shows. */
export type ClientTls = { certificate?: KeyPair } & (
  | { level: "none" }
  /** TLS or nothing; whatever certificate the server has. */
  | { level: "encrypt" }
  /** SHA-256 fingerprints of the certificate or of its public key, in hexadecimal with colons. */
  | { level: "fingerprint"; matches: string[] }
  | { level: "secure"; trustAnchorFile: string; names: string[] }
);

export type ServerTls =
  | { level: "none" }
  | {
      level: "may" | "encrypt";
      certificate: KeyPair;
      /** `require` ends the transaction of a client that shows none; `ask` only records it. */
      clientCertificate?: "ask" | "require";
      /** What client certificates are verified with; only recorded, as Postfix takes any. */
      trustAnchorFile?: string;
      /** TLS from the first byte (port 465), no STARTTLS. */
      implicit?: boolean;
    };

export interface NextHop {
  address: string;
  port: number;
  tls: ClientTls;
  /** TLS from the first byte (port 465), no STARTTLS. */
  implicitTls?: boolean;
}

export interface Listener {
  address: string;
  port: number;
  tls: ServerTls;
}

export interface PostfixLayout {
  /** The instance's directory; everything is below it. */
  directory: string;
  /** Where the package has its programs. */
  daemonDirectory: string;
  hostname: string;
  /** The address that this host has: its client connects from it. */
  address: string;
  /** Where all mail goes that is for none of `domains`; without it such mail waits in the queue, deferred. */
  relay: NextHop | undefined;
  /** Domains whose every address has a mailbox here. */
  domains: string[];
  /** The SMTP server for other hosts. */
  listener: Listener | undefined;
  /** The SMTP server that the test hands messages to: plain, on loopback, refuses nothing. */
  submissionPort: number;
  /** Where the policy server listens. */
  policy: { address: string; port: number };
  discardEhloKeywords: string[];
  messageSizeMaxBytes: number;
  mailbox: { uid: number; gid: number };
  /** Last word on any main.cf parameter. */
  parameters: Record<string, string>;
}

export const paths = {
  configuration: "etc",
  queue: "queue",
  data: "data",
  mailboxes: "mail",
  log: "maillog",
} as const;

export function mainCf(layout: PostfixLayout): string {
  const parameters: Record<string, string> = {
    ...identity(layout),
    ...transparency,
    ...haste,
    ...mailboxes(layout),
    ...client(layout),
    ...server(layout),
    ...layout.parameters,
  };
  return Object.entries(parameters)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join("");
}

function identity({ directory, hostname }: PostfixLayout): Record<string, string> {
  return {
    compatibility_level: "3.6",
    myhostname: hostname,
    // Not the hostname: with it `mydestination` and the origin of local mail would differ by role.
    mydomain: hostname,
    myorigin: hostname,
    mydestination: "",
    inet_protocols: "ipv4",
    // Postfix insists on finding these among the addresses of the interfaces, and `lo` lists 127.0.0.1 alone, though all
    // of 127.0.0.0/8 answers. Where the servers listen is said in master.cf.
    inet_interfaces: "127.0.0.1",
    queue_directory: `${directory}/${paths.queue}`,
    data_directory: `${directory}/${paths.data}`,
    // postlogd writes only below these.
    maillog_file: `${directory}/${paths.log}`,
    maillog_file_prefixes: directory,
    mail_owner: "postfix",
    setgid_group: "postdrop",
    mynetworks: "127.0.0.0/8",
    // Without it, "lost connection" and TLS lines of a client that gave no name cost a DNS look-up.
    smtpd_peername_lookup: "no",
    smtp_dns_support_level: "disabled",
    smtp_host_lookup: "native",
    alias_maps: "",
    alias_database: "",
    local_transport: "error:this host has no local users",
    notify_classes: "",
    biff: "no",
  };
}

/** What keeps a message as it is. */
const transparency: Record<string, string> = {
  // No added Date, Message-ID or completed addresses: those are for mail that begins here.
  local_header_rewrite_clients: "",
  always_add_missing_headers: "no",
  append_dot_mydomain: "no",
  append_at_myorigin: "no",
  message_drop_headers: "",
  // 0: the client sends lines longer than 998 octets as they are, instead of folding them.
  smtp_line_length_limit: "0",
  header_size_limit: "1048576",
  smtputf8_enable: "yes",
  // BCC-like copies, masquerading and content filters are off by default.
};

/** What makes a test fast: nothing pauses, and what is deferred is tried again at once. */
const haste: Record<string, string> = {
  in_flow_delay: "0",
  smtpd_error_sleep_time: "0",
  smtpd_soft_error_limit: "1000",
  smtpd_hard_error_limit: "1000",
  smtpd_client_event_limit_exceptions: "127.0.0.0/8",
  queue_run_delay: "1s",
  minimal_backoff_time: "1s",
  maximal_backoff_time: "1s",
  transport_retry_time: "1s",
  smtp_connect_timeout: "10s",
  smtp_destination_rate_delay: "0s",
  service_throttle_time: "1s",
};

function mailboxes({ directory, domains, mailbox, messageSizeMaxBytes }: PostfixLayout): Record<string, string> {
  return {
    virtual_mailbox_domains: domains.join(", "),
    // One Maildir for all: virtual(8) allows no path made from the address. Delivered-To tells the copies apart.
    virtual_mailbox_maps: "static:all/",
    virtual_mailbox_base: `${directory}/${paths.mailboxes}`,
    virtual_uid_maps: `static:${mailbox.uid}`,
    virtual_gid_maps: `static:${mailbox.gid}`,
    virtual_mailbox_limit: "0",
    mailbox_size_limit: "0",
    virtual_alias_maps: "",
    virtual_alias_domains: "",
    relay_domains: "",
    message_size_limit: String(messageSizeMaxBytes),
  };
}

function client({ address, relay }: PostfixLayout): Record<string, string> {
  if (!relay) return { default_transport: "retry:no next hop is configured" };
  const { tls } = relay;
  return {
    default_transport: "smtp",
    relayhost: `[${relay.address}]:${relay.port}`,
    smtp_bind_address: address,
    smtp_tls_security_level: tls.level,
    smtp_tls_wrappermode: relay.implicitTls ? "yes" : "no",
    smtp_tls_loglevel: "1",
    smtp_tls_fingerprint_digest: "sha256",
    ...(tls.certificate && {
      smtp_tls_cert_file: tls.certificate.certificateFile,
      smtp_tls_key_file: tls.certificate.keyFile,
    }),
    ...(tls.level === "fingerprint" && { smtp_tls_fingerprint_cert_match: tls.matches.join(", ") }),
    ...(tls.level === "secure" && {
      smtp_tls_CAfile: tls.trustAnchorFile,
      smtp_tls_secure_cert_match: tls.names.join(", "),
    }),
  };
}

function server({ listener, policy, discardEhloKeywords }: PostfixLayout): Record<string, string> {
  const ask = `check_policy_service inet:${policy.address}:${policy.port}`;
  return {
    smtpd_discard_ehlo_keywords: discardEhloKeywords.join(", "),
    smtpd_relay_restrictions: "reject_unauth_destination",
    smtpd_recipient_restrictions: `reject_unauth_destination, ${ask}`,
    smtpd_data_restrictions: ask,
    smtpd_end_of_data_restrictions: ask,
    smtpd_policy_service_timeout: "10s",
    ...(listener && serverTls(listener.tls)),
  };
}

function serverTls(tls: ServerTls): Record<string, string> {
  if (tls.level === "none") return { smtpd_tls_security_level: "none" };
  return {
    smtpd_tls_security_level: tls.level,
    smtpd_tls_wrappermode: tls.implicit ? "yes" : "no",
    smtpd_tls_cert_file: tls.certificate.certificateFile,
    smtpd_tls_key_file: tls.certificate.keyFile,
    smtpd_tls_loglevel: "1",
    smtpd_tls_received_header: "yes",
    smtpd_tls_fingerprint_digest: "sha256",
    smtpd_tls_ask_ccert: tls.clientCertificate ? "yes" : "no",
    smtpd_tls_req_ccert: tls.clientCertificate === "require" ? "yes" : "no",
    ...(tls.trustAnchorFile && { smtpd_tls_CAfile: tls.trustAnchorFile }),
  };
}

export function masterCf({ listener, submissionPort }: PostfixLayout): string {
  const publicServer = listener ? [`${listener.address}:${listener.port} inet n - n - - smtpd`] : [];
  return [
    ...publicServer,
    `127.0.0.1:${submissionPort} inet n - n - - smtpd`,
    "  -o syslog_name=postfix/submission",
    "  -o smtpd_tls_security_level=none",
    "  -o smtpd_tls_wrappermode=no",
    "  -o smtpd_tls_ask_ccert=no",
    "  -o smtpd_tls_req_ccert=no",
    "  -o smtpd_discard_ehlo_keywords=",
    "  -o smtpd_relay_restrictions=permit_mynetworks,reject",
    "  -o smtpd_recipient_restrictions=",
    "  -o smtpd_data_restrictions=",
    "  -o smtpd_end_of_data_restrictions=",
    ...services,
    "",
  ].join("\n");
}

/** As the distribution has them, without chroot: the instance's directory holds no copies of system files. */
const services = [
  "pickup unix n - n 60 1 pickup",
  "cleanup unix n - n - 0 cleanup",
  "qmgr unix n - n 300 1 qmgr",
  "tlsmgr unix - - n 1000? 1 tlsmgr",
  "rewrite unix - - n - - trivial-rewrite",
  "bounce unix - - n - 0 bounce",
  "defer unix - - n - 0 bounce",
  "trace unix - - n - 0 bounce",
  "verify unix - - n - 1 verify",
  "flush unix n - n 1000? 0 flush",
  "proxymap unix - - n - - proxymap",
  "proxywrite unix - - n - 1 proxymap",
  "smtp unix - - n - - smtp",
  "relay unix - - n - - smtp",
  "showq unix n - n - - showq",
  "error unix - - n - - error",
  "retry unix - - n - - error",
  "discard unix - - n - - discard",
  "virtual unix - n n - - virtual",
  "anvil unix - - n - 1 anvil",
  "scache unix - - n - 1 scache",
  "tlsproxy unix - - n - 0 tlsproxy",
  "postlog unix-dgram n - n - 1 postlogd",
];
