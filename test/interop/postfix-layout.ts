/**
 * What a test says about a Postfix instance, and the directory that is made of it: configuration, queue, data and mailboxes
 * with the owners and modes that Postfix insists on. Needs root, to give directories away. What it wrote when it fails is
 * for the caller to remove.
 */

import { chmod, chown, mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Policy } from "./policy-server.ts";
import {
  mainCf,
  masterCf,
  paths,
  type Listener,
  type NextHop,
  type PostfixLayout,
  type ServerTls,
} from "./postfix-config.ts";
import { freePort, output } from "./processes.ts";

interface HostOptions {
  hostname: string;
  /** The loopback address that stands for this host: its servers listen there, its client connects from there. */
  address: string;
  messageSizeMaxBytes?: number;
  /** Further main.cf parameters; they win. */
  parameters?: Record<string, string>;
  /** Text behind what stands in `main.cf` and `master.cf`, and further files of the configuration folder. */
  append?: Record<string, string>;
}

interface ReceivingOptions {
  /** Domains of which every address has a mailbox. */
  domains: string[];
  /** Default: chosen by the system. Give it to start a server again where it was. */
  port?: number;
  /** Recipients refused at RCPT: address → reply, such as `550 5.1.1 No such user`. `refuse` changes it later. */
  refused?: Record<string, string>;
  /** Any other answer to what Postfix asks at RCPT, DATA and END-OF-MESSAGE. */
  policy?: Policy;
  /** EHLO keywords that are not announced: `chunking`, `8bitmime`, `dsn`, `pipelining`, `size`, `smtputf8`, `starttls`, … */
  discardEhloKeywords?: string[];
}

/**
 * A partner's server that sends everything to the relay, or, without one, what `append` says where to. Its own domains
 * have mailboxes, where its bounces arrive.
 */
export interface PartnerSenderOptions extends HostOptions {
  role: "partner-sender";
  relay?: NextHop;
  domains?: string[];
}

/** A server inside: takes mail for its domains over TLS; with `relay`, hands the rest to the relay's submission. */
export interface InternalServerOptions extends HostOptions, ReceivingOptions {
  role: "internal";
  tls: ServerTls;
  relay?: NextHop;
}

/** A partner's server that takes mail over TLS and asks for a client certificate, unless told otherwise. */
export interface PartnerReceiverOptions extends HostOptions, ReceivingOptions {
  role: "partner-receiver";
  tls: ServerTls;
  relay?: NextHop;
}

export type PostfixOptions = PartnerSenderOptions | InternalServerOptions | PartnerReceiverOptions;

/** Writes the instance's directory. Root owns what configures it, the mail owner what its daemons write. */
export async function layOut(
  options: PostfixOptions,
  directory: string,
  policy: { address: string; port: number },
): Promise<PostfixLayout> {
  const layout: PostfixLayout = {
    directory,
    daemonDirectory: (await output("postconf", ["-d", "-h", "daemon_directory"])).toString().trim(),
    hostname: options.hostname,
    address: options.address,
    relay: options.relay,
    domains: options.domains ?? [],
    listener: await listenerOf(options),
    submissionPort: await freePort("127.0.0.1"),
    policy,
    discardEhloKeywords: "discardEhloKeywords" in options ? (options.discardEhloKeywords ?? []) : [],
    messageSizeMaxBytes: options.messageSizeMaxBytes ?? 60 * 1024 * 1024,
    mailbox: await account("nobody"),
    parameters: options.parameters ?? {},
  };
  await makeDirectories(directory, layout.mailbox);
  const { append = {} } = options;
  const configuration: Record<string, string> = { "main.cf": mainCf(layout), "master.cf": masterCf(layout) };
  for (const name of new Set([...Object.keys(configuration), ...Object.keys(append)])) {
    const text = `${configuration[name] ?? ""}${append[name] ?? ""}`;
    await writeConfiguration(join(directory, paths.configuration, name), text);
  }
  return layout;
}

async function makeDirectories(directory: string, mailbox: Account): Promise<void> {
  const owner = await account("postfix");
  const postdrop = Number((await output("getent", ["group", "postdrop"])).toString().split(":")[2]);

  const directories: [path: string, mode: number, uid: number, gid: number][] = [
    [paths.configuration, 0o755, 0, 0],
    [paths.queue, 0o755, 0, 0],
    [paths.data, 0o700, owner.uid, owner.gid],
    [paths.mailboxes, 0o755, mailbox.uid, mailbox.gid],
    [`${paths.queue}/pid`, 0o755, 0, 0],
    // The modes that postfix-files(5) lists.
    [`${paths.queue}/public`, 0o2710, owner.uid, postdrop],
    [`${paths.queue}/maildrop`, 0o1730, owner.uid, postdrop],
    ...privateQueues.map((name): [string, number, number, number] => [`${paths.queue}/${name}`, 0o700, owner.uid, 0]),
  ];
  for (const [path, mode, uid, gid] of directories) {
    await mkdir(join(directory, path));
    await chown(join(directory, path), uid, gid);
    await chmod(join(directory, path), mode); // After chown, which clears the set-group-id bit.
  }
}

const settledAt = new Date(2000, 0, 1);

async function writeConfiguration(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  // Postfix reads a file changed within the last second again and again until it has cooled: 1.5 s a start.
  await utimes(path, settledAt, settledAt);
}

interface Account {
  uid: number;
  gid: number;
}

async function account(user: string): Promise<Account> {
  return { uid: Number(await output("id", ["-u", user])), gid: Number(await output("id", ["-g", user])) };
}

const privateQueues = "active bounce corrupt defer deferred flush hold incoming private saved trace".split(" ");

async function listenerOf(options: PostfixOptions): Promise<Listener | undefined> {
  switch (options.role) {
    case "partner-sender":
      return undefined;
    case "internal":
    case "partner-receiver": {
      const asks = options.role === "partner-receiver" && options.tls.level !== "none";
      const tls = asks ? { clientCertificate: "ask" as const, ...options.tls } : options.tls;
      return { address: options.address, port: options.port ?? (await freePort(options.address)), tls };
    }
  }
}
