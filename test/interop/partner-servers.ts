/**
 * The mail servers that partners have, each configured with exactly what `pinrelay partner kit` wrote, and with as little
 * around it as it takes to be handed a message on loopback: an address to listen on, who may hand in, no DNS, and a
 * queue that is tried again every second.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Certificate } from "./certificates.ts";
import { startMachine, type Machine, type MachineFile } from "./machine.ts";
import { startPostfix } from "./postfix.ts";
import { freePort } from "./processes.ts";
import { SmtpClient } from "./smtp-client.ts";

export interface PartnerServer {
  /** Hands a message in, as a user's program does. */
  send(from: string, to: string, content: Buffer): Promise<void>;
  /** Tries what waits again. */
  retry(): Promise<void>;
  /** What it says about itself, for a person. */
  log(): Promise<string>;
  stop(): Promise<void>;
}

export interface PartnerOptions {
  /** The folder that the kit was written into. */
  readonly kit: string;
  readonly certificate: Certificate;
  /** Where mail for `elsewhere.example` goes, over TLS: a host that is none of ours. */
  readonly elsewhere: { readonly address: string; readonly port: number };
}

const hostname = "mx.acme.example";

/** Where the kit expects the partner's certificate and key on a Postfix host, which shares our file system here. */
export const postfixPaths = ({ certificateFile, keyFile }: Certificate): string[] => [
  "--partner-cert",
  certificateFile,
  "--partner-key",
  keyFile,
];

export async function startPostfixPartner({ kit, certificate, elsewhere }: PartnerOptions): Promise<PartnerServer> {
  void certificate; // its files are where the kit says
  const map = "mx.corp.example.transport";
  const postfix = await startPostfix({
    role: "partner-sender",
    hostname,
    address: "127.0.0.11",
    relay: { ...elsewhere, tls: { level: "encrypt" } },
    append: {
      [map]: await piece(kit, map),
      "main.cf": await piece(kit, "main.cf"),
      "master.cf": await piece(kit, "master.cf"),
    },
  });
  return {
    send: async (from, to, message) => void (await postfix.submit({ from, to, message })),
    retry: () => postfix.flush(),
    log: () => postfix.log(),
    stop: () => postfix.stop(),
  };
}

const eximUser = 901;

export async function startEximPartner({ kit, certificate, elsewhere }: PartnerOptions): Promise<PartnerServer> {
  const port = await freePort("127.0.0.1");
  const machine = await startMachine({
    server: "exim",
    hostname,
    accounts: { "Debian-exim": eximUser },
    directories: [
      { path: "/var/spool/exim4", mode: 0o750, owner: eximUser, group: eximUser },
      { path: "/var/log/exim4", mode: 0o750, owner: eximUser, group: eximUser },
    ],
    files: {
      ...(await identity(certificate, "/etc/exim4/partner-client", { mode: 0o640, group: eximUser })),
      "/etc/exim4/mx.corp.example-ca.pem": await piece(kit, "mx.corp.example-ca.pem"),
      "/etc/exim4/exim4.conf": `primary_hostname = ${hostname}
local_interfaces = 127.0.0.1
daemon_smtp_ports = ${port}
tls_advertise_hosts =
host_lookup =
acl_smtp_rcpt = from_here

begin acl
from_here:
  accept

begin routers
${await piece(kit, "exim-router.conf")}
elsewhere:
  driver = manualroute
  domains = elsewhere.example
  transport = elsewhere
  route_list = * ${elsewhere.address}

begin transports
${await piece(kit, "exim-transport.conf")}
elsewhere:
  driver = smtp
  port = ${elsewhere.port}
  hosts_require_tls = *

begin retry
* * F,1h,1s
`,
    },
    command: ["/usr/sbin/exim4", "-bdf", "-q1s"],
    port,
  });
  return {
    ...onMachine(machine, port),
    retry: async () => void (await machine.run("/usr/sbin/exim4", "-qff")),
    log: () => machine.run("cat", "/var/log/exim4/mainlog"),
  };
}

export async function startOpensmtpdPartner({ kit, certificate, elsewhere }: PartnerOptions): Promise<PartnerServer> {
  const port = await freePort("127.0.0.1");
  const [user, queue] = [902, 903];
  const machine = await startMachine({
    server: "opensmtpd",
    hostname,
    accounts: { opensmtpd: user, opensmtpq: queue },
    directories: [
      { path: "/var/empty", mode: 0o755 },
      { path: "/var/lib/opensmtpd/empty", mode: 0o755 },
      { path: "/var/spool/smtpd", mode: 0o711 },
    ],
    files: {
      ...(await identity(certificate, "/etc/mail/partner-client", { mode: 0o600 })),
      "/etc/mail/mx.corp.example-ca.pem": await piece(kit, "mx.corp.example-ca.pem"),
      "/etc/mailname": `${hostname}\n`,
      "/etc/hosts": `127.0.0.1 localhost ${hostname}\n${await piece(kit, "hosts")}`,
      "/etc/smtpd.conf": `listen on 127.0.0.1 port ${port}
${await piece(kit, "smtpd.conf")}action "elsewhere" relay host "smtp+tls://${elsewhere.address}:${elsewhere.port}" tls no-verify
match from local for domain "elsewhere.example" action "elsewhere"
`,
    },
    prepare: "chgrp opensmtpq /usr/sbin/smtpctl; chmod g+s /usr/sbin/smtpctl", // as its package does
    command: ["/usr/sbin/smtpd", "-d", "-v", "-f", "/etc/smtpd.conf"],
    port,
  });
  return {
    ...onMachine(machine, port),
    retry: async () => {
      await machine.run("/usr/sbin/smtpctl", "schedule", "all");
    },
    log: async () => machine.printed,
  };
}

export async function startSendmailPartner({ kit, certificate, elsewhere }: PartnerOptions): Promise<PartnerServer> {
  const port = await freePort("127.0.0.1");
  const cf = "/usr/share/sendmail/cf";
  const machine = await startMachine({
    server: "sendmail",
    hostname,
    accounts: { smmta: 904, smmsp: 905 },
    directories: [
      { path: "/etc/mail/tls", mode: 0o700 },
      { path: "/var/spool/mqueue", mode: 0o700 },
    ],
    files: {
      ...(await identity(certificate, "/etc/mail/tls/partner-client", { mode: 0o600 })),
      "/etc/mail/mailertable": `elsewhere.example\telsewhere:[${elsewhere.address}]\n${await piece(kit, "mailertable")}`,
      "/etc/mail/access": await piece(kit, "access"),
      "/etc/mail/aliases": "",
      "/etc/mail/local-host-names": "",
      "/etc/mail/sendmail.mc": `include(\`${cf}/m4/cf.m4')dnl
OSTYPE(\`linux')dnl
define(\`confDOMAIN_NAME', \`${hostname}')dnl
define(\`confPID_FILE', \`/run/sendmail.pid')dnl
define(\`ALIAS_FILE', \`/etc/mail/aliases')dnl
define(\`STATUS_FILE', \`/var/spool/mqueue/statistics')dnl
define(\`confLOG_LEVEL', \`14')dnl
define(\`confTO_IDENT', \`0')dnl
define(\`confTO_CONNECT', \`5s')dnl
define(\`confMIN_QUEUE_AGE', \`0')dnl
define(\`confTO_HOSTSTATUS', \`0s')dnl
FEATURE(\`no_default_msa')dnl
FEATURE(\`nocanonify')dnl
FEATURE(\`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(\`Name=MTA, Addr=127.0.0.1, Port=${port}, M=S')dnl
${await piece(kit, "sendmail-features.mc")}MAILER(\`smtp')dnl
MAILER_DEFINITIONS
Melsewhere,\tP=[IPC], F=mDFMuXa8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=2040,
\t\tT=DNS/RFC822/SMTP,
\t\tA=TCP $h ${elsewhere.port}
${await piece(kit, "sendmail-mailer.mc")}`,
    },
    prepare: `cd /etc/mail
m4 sendmail.mc > sendmail.cf
/usr/libexec/sendmail/makemap hash mailertable < mailertable
/usr/libexec/sendmail/makemap hash access < access
/usr/libexec/sendmail/sendmail -bi # the aliases`,
    command: ["/usr/libexec/sendmail/sendmail", "-bD", "-q1s", "-X", "/var/spool/mqueue.log"],
    port,
  });
  return {
    ...onMachine(machine, port),
    retry: async () => void (await machine.run("/usr/libexec/sendmail/sendmail", "-q")),
    log: async () => {
      const queue = await machine.run("/usr/libexec/sendmail/sendmail", "-bp");
      return `${machine.printed}${queue}${await machine.run("cat", "/var/spool/mqueue.log")}`;
    },
  };
}

async function piece(kit: string, name: string): Promise<string> {
  return readFile(join(kit, name), "utf8");
}

/** The partner's certificate and key at the places that the kit names. */
async function identity(
  { certificateFile, keyFile }: Certificate,
  base: string,
  key: Omit<MachineFile, "text">,
): Promise<Record<string, MachineFile | string>> {
  return {
    [`${base}.pem`]: await readFile(certificateFile, "utf8"),
    [`${base}.key`]: { text: await readFile(keyFile, "utf8"), ...key },
  };
}

function onMachine(machine: Machine, port: number): Pick<PartnerServer, "send" | "stop"> {
  return {
    async send(from, to, content) {
      const { client } = await SmtpClient.open({ address: "127.0.0.1", port });
      try {
        await client.expect(250, "EHLO user.acme.example");
        await client.expect(250, `MAIL FROM:<${from}>`);
        await client.expect(250, `RCPT TO:<${to}>`);
        await client.expect(354, "DATA");
        const { code, lines } = await client.content(content);
        if (code !== 250) throw new Error(`not taken: ${lines.join(" / ")}`);
        await client.quit();
      } finally {
        client.destroy();
      }
    },
    stop: () => machine.stop(),
  };
}
