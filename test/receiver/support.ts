/**
 * What the tests of the receiver share: a receiver in this process on a spool of its own, with its log in an array, and
 * what it has put into the spool, decoded. Everything that a test starts ends with the test.
 */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, onTestFinished } from "vitest";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { createLog } from "../../src/log/log.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { startReceiver, type Receiver, type ReceiverOptions } from "../../src/receiver/receiver.ts";
import { decodeBatch } from "../../src/spool/directory/batch.ts";
import type { MessageMeta } from "../../src/spool/spool.ts";
import { acmeAddress, makeRelayFolder, type RelayFolder, type RelayFolderOptions } from "../tools/relay-folder.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";

export interface Spooled {
  readonly meta: MessageMeta;
  /** The wire form, trace fields included, as latin1. */
  readonly content: string;
}

export type LogLine = Readonly<Record<string, unknown>>;

export interface Relay {
  readonly receiver: Receiver;
  readonly config: RelayConfig;
  readonly certificates: RelayFolder["certificates"];
  /** The listener with STARTTLS. */
  readonly plain: { readonly address: string; readonly port: number };
  readonly implicitTls: { readonly address: string; readonly port: number };
  /** The log as it was written. */
  readonly logText: () => string;
  readonly log: () => LogLine[];
  /** What is in the spool, in the order of arrival. */
  spooled(): Promise<Spooled[]>;
  /** The names of all messages and parts of messages in the drop-box. */
  files(): Promise<string[]>;
  /** A client that has just connected. */
  connect(from?: string): Promise<SmtpDialogue>;
  connectTls(from?: string, certificate?: ClientCertificate, options?: ConnectionOptions): Promise<SmtpDialogue>;
  /** A client of acme that may send MAIL. */
  partner(certificate?: ClientCertificate, from?: string): Promise<SmtpDialogue>;
}

export interface RelayOptions extends ReceiverOptions {
  readonly change?: (config: RelayConfig) => RelayConfig;
}

/** One folder with keys and certificates for all tests of a file; the receivers come and go. */
export function useRelay(options: RelayFolderOptions = {}): (relayOptions?: RelayOptions) => Promise<Relay> {
  let folder: RelayFolder;
  beforeAll(async () => {
    folder = await makeRelayFolder(options);
  });
  afterAll(() => folder.remove());
  return (relayOptions = {}) => start(folder, relayOptions);
}

async function start(folder: RelayFolder, { change = (config) => config, ...options }: RelayOptions): Promise<Relay> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-spool-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  const loaded = await folder.load();
  const config = change({ ...loaded, spool: { ...loaded.spool, path } });
  const lines: string[] = [];
  const receiver = await startReceiver(
    config,
    createLog("receiver", { write: (line) => void lines.push(line) }),
    options,
  );
  const clients: SmtpDialogue[] = [];
  onTestFinished(async () => {
    for (const client of clients) client.close();
    await receiver.stop();
  });
  const [plain, implicitTls] = receiver.addresses;
  if (plain === undefined || implicitTls === undefined) throw new Error("the folder has two listeners");
  const kept = (client: SmtpDialogue): SmtpDialogue => {
    clients.push(client);
    return client;
  };
  const connect = async (from = acmeAddress) => kept(await SmtpDialogue.open(plain, from));
  return {
    receiver,
    config,
    certificates: folder.certificates,
    plain,
    implicitTls,
    logText: () => lines.join(""),
    log: () => lines.map((line) => JSON.parse(line) as LogLine),
    spooled: () => readSpool(join(path, "incoming")),
    files: async () => (await readdir(join(path, "incoming"))).filter((name) => !name.startsWith("lock")),
    connect,
    connectTls: async (from = acmeAddress, certificate, tls) =>
      kept(await SmtpDialogue.openTls(implicitTls, from, certificate, tls)),
    partner: async (certificate = folder.certificates.acme, from = acmeAddress) => {
      const client = await connect(from);
      await client.begin(certificate);
      return client;
    },
  };
}

async function readSpool(incoming: string): Promise<Spooled[]> {
  const names = await readdir(incoming);
  const spooled: Spooled[] = [];
  for (const batch of names.filter((name) => name.endsWith(".batch")).toSorted()) {
    const file = await readFile(join(incoming, batch));
    for (const record of decodeBatch(file) ?? []) {
      if (record.kind === "damaged") throw new Error(record.reason);
      const { contentAt, contentBytes } = record.place;
      const content = record.inline
        ? file.toString("latin1", contentAt, contentAt + contentBytes)
        : await readFile(
            join(incoming, names.find((name) => name.endsWith(`${record.meta.id}.content`)) ?? "missing"),
            "latin1",
          );
      spooled.push({ meta: record.meta, content });
    }
  }
  return spooled;
}

/** The configuration with one partner changed. */
export function withPartner(name: string, changes: Partial<Partner>): (config: RelayConfig) => RelayConfig {
  return (config) => ({
    ...config,
    partners: config.partners.map((partner) => (partner.name === name ? { ...partner, ...changes } : partner)),
  });
}

/** The configuration with other limits of acme. */
export function withLimits(limits: Partial<Partner["limits"]>): (config: RelayConfig) => RelayConfig {
  return (config) => ({
    ...config,
    partners: config.partners.map((partner) => ({ ...partner, limits: { ...partner.limits, ...limits } })),
  });
}

/** The configuration with other limits of the relay. */
export function withRelayLimits(limits: Partial<RelayConfig["limits"]>): (config: RelayConfig) => RelayConfig {
  return (config) => ({ ...config, limits: { ...config.limits, ...limits } });
}

/** A message of the usual kind, in wire form without the final dot. */
export const letter = "From: a@acme.example\r\nTo: orders@corp.example\r\nSubject: Order\r\n\r\n12 anvils\r\n";

/** Asks again until the answer is yes; fails after ten seconds. For what happens on the other side of a socket. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`it did not become true that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

setFlagsFromString("--expose-gc");
const gc: unknown = runInNewContext("gc");

/** So that what is measured is what is held, and not what has not been swept yet. */
export function collectGarbage(): void {
  if (typeof gc === "function") gc();
}
